package kafka

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// Config says how to reach a cluster and how to produce to it. NewAdmin uses Brokers, ClientID, CreateTopics
// and Logger.
type Config struct {
	// Brokers are host:port addresses to begin with; at least one.
	Brokers []string
	// ClientID names this client in the brokers' logs and quotas. Default "sluice".
	ClientID string
	// Linger is how long a batch waits for more records. Default 5 ms.
	Linger time.Duration
	// Compression of batches: none, gzip, snappy, lz4, zstd. Default none.
	Compression string
	// MaxInFlightBytes bounds what is taken from the Budget. Default 64 MiB.
	MaxInFlightBytes int64
	// CreateTopics makes topics that are missing; nil: a missing topic is an error.
	CreateTopics *CreateTopics
	// Logger gets what an operator should know; zero value: nothing.
	Logger zerolog.Logger
	// Registerer takes the metrics; nil: they are not registered.
	Registerer prometheus.Registerer
	// Burst is called after each burst of RecordDone calls, on the same goroutine and under the same rules, so
	// that the caller can join what the burst caused. May be nil.
	Burst func()
}

// CreateTopics says how topics are made.
type CreateTopics struct {
	// Partitions of a new topic; 0: the cluster's default.
	Partitions int32
	// Replication factor of a new topic; 0: the cluster's default.
	Replication int16
}
