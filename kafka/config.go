package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// Config says how to reach a cluster and how to produce to it. NewAdmin uses Brokers, ClientID, Security, the
// time-outs, CreateTopics and Logger only.
type Config struct {
	// Brokers are host:port addresses to begin with; at least one.
	Brokers []string
	// ClientID names this client in the brokers' logs and quotas. Default "sluice".
	ClientID string
	// Security is how client and cluster prove who they are.
	Security Security
	// Linger is how long a batch waits for more records. 0: it is sent at once, so batches are small under little load
	// and each record costs more CPU time.
	Linger time.Duration
	// Compression of batches: none, gzip, snappy, lz4, zstd. Default none.
	Compression string
	// MaxInFlightBytes is the size of the Budget. Default 64 MiB.
	MaxInFlightBytes int64
	// Budget is that of another Producer, for several that share one; MaxInFlightBytes is not used then, and the
	// metrics of the budget are that Producer's. nil: its own. A Transactor takes nothing from it, and tells it how many
	// partitions topics have.
	Budget *Budget
	// DialTimeout bounds one attempt to connect. Default 3 s.
	DialTimeout time.Duration
	// RequestTimeout is how long the replicas of a partition may take to store a batch before the leader says
	// so and the batch is sent again; a broker that says nothing at all is given half as much again and then
	// left. Default 8 s, so that a network which swallows packets is noticed after 12 s.
	RequestTimeout time.Duration
	// CreateTopics makes topics that are missing; nil: a missing topic is an error.
	CreateTopics *CreateTopics
	// Patience ends what a member of a consumer group does to leave in good order after its Run was told to end, which may
	// be as long as a session lasts if the coordinator says nothing. nil: only that does.
	Patience context.Context
	// Logger gets what an operator should know; the zero value logs nothing.
	Logger zerolog.Logger
	// Registerer takes the metrics; nil: they are counted and not registered.
	Registerer prometheus.Registerer
	// Burst is called after each burst of RecordDone calls, on the same goroutine and under the same rules, so
	// that the caller can join what the burst caused. Like those, calls may come from different goroutines at
	// once. May be nil.
	Burst func()
}

// CreateTopics says how topics are made.
type CreateTopics struct {
	// Partitions of a new topic; 0: the cluster's default.
	Partitions int32
	// Replication factor of a new topic; 0: the cluster's default.
	Replication int16
}

// withDefaults fills in what was left out and says what can't work.
func (c Config) withDefaults() (Config, error) {
	c.ClientID = or(c.ClientID, "sluice")
	c.Compression = or(c.Compression, "none")
	c.MaxInFlightBytes = or(c.MaxInFlightBytes, 64<<20)
	c.DialTimeout = or(c.DialTimeout, 3*time.Second)
	c.RequestTimeout = or(c.RequestTimeout, 8*time.Second)
	if c.Patience == nil {
		c.Patience = context.Background()
	}
	if c.Burst == nil {
		c.Burst = func() {}
	}
	return c, c.validate()
}

// compresses says whether batches may be smaller than their records.
func (c Config) compresses() bool { return codecs[c.Compression] != sarama.CompressionNone }

// budget gives the one to take from.
func (c Config) budget() *Budget {
	if c.Budget != nil {
		return c.Budget
	}
	return newBudget(c.MaxInFlightBytes)
}

func or[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

func (c Config) validate() error {
	var errs []error
	if len(c.Brokers) == 0 {
		errs = append(errs, errors.New("no brokers"))
	}
	if _, ok := codecs[c.Compression]; !ok {
		errs = append(errs, fmt.Errorf("unknown compression %q", c.Compression))
	}
	if c.Linger < 0 || c.MaxInFlightBytes < 0 || c.DialTimeout < 0 || c.RequestTimeout < 0 {
		errs = append(errs, errors.New("a duration or size is negative"))
	}
	if t := c.CreateTopics; t != nil && (t.Partitions < 0 || t.Replication < 0) {
		errs = append(errs, errors.New("partitions and replication of new topics can't be negative"))
	}
	errs = append(errs, c.Security.check())
	return errors.Join(errs...)
}
