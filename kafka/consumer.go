package kafka

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// A ConsumerConfig says what to follow. Of Config it uses Brokers, ClientID, the time-outs, Logger and Registerer.
type ConsumerConfig struct {
	Config
	// Topics are exact names. One that is missing is waited for.
	Topics []string
	// Patterns take every topic whose whole name matches one of them, save Kafka's own and Sluice's (__* and
	// sluice-*). With patterns every look at the cluster lists all of its topics.
	Patterns []*regexp.Regexp
	// From is where partitions begin that are there at the start.
	From Start
	// Refresh is how often new topics and partitions are looked for. Default 5 s. They are also looked for when a
	// partition is in trouble.
	Refresh time.Duration
	// Handle gets each record, in the order of offsets within a partition. Calls for one partition come one after
	// the other, those for different partitions may come at once. It may block, also for long: that delays its own
	// partition and no other. What it costs meanwhile is memory, five fetches for each partition that is held back at
	// most (DESIGN.md), and that its broker is asked fifty times a second instead of twice. Run ends only after it
	// returned. r and its Headers slice are valid during the call. Key, Value and the bytes of headers share memory
	// with a whole fetch, so who keeps them copies them.
	Handle func(r *Fetched)
	// Progress is called on the goroutine of Handle and in order with it: everything of the partition below next was
	// handled, or holds nothing to handle, as control records, aborted transactions and what was compacted away. The
	// first call tells where a partition begins that is followed from its end. May be nil.
	Progress func(topic string, partition int32, next int64)
	// Begin is called on the goroutine of Handle and in order with it, before anything else is told of a partition, and
	// again when its log was cut: what comes from here on begins at next, whatever offsets came before. id is the
	// topic's, "" if Kafka has none: a topic that was deleted and made anew has another one. May be nil.
	Begin func(topic, id string, partition int32, next int64)
	// Burst is called on the goroutine of Handle after a run of its calls, when no more record of that partition is
	// at hand or 256 were handled, so that the caller can join work. May be nil.
	Burst func()
}

// A Start is where a consumer begins.
type Start int

// The starts.
const (
	FromEnd       Start = iota // what is written from now on
	FromBeginning              // everything there is: Positioned is closed when all that there was at the start is handled
)

// A Fetched record is one that was read from Kafka.
type Fetched struct {
	Topic      string
	Partition  int32
	Offset     int64
	Key, Value []byte // nil: null
	Headers    []Header
	Timestamp  time.Time
	Appended   bool // Timestamp is when the broker appended it, not what its writer said; unknown of a Group's
}

// A Consumer follows all partitions of some topics, without a consumer group and without storing where it is. It
// begins where they end when it starts, gives committed records only, and each of them once for as long as it runs.
// The section on the consumer in DESIGN.md tells how.
type Consumer struct {
	cfg        ConsumerConfig
	log        zerolog.Logger // sampled: what many partitions can trigger
	m          *consumerMetrics
	patterns   []*regexp.Regexp // of whole names
	admin      *Admin           // the lister's
	look       signal           // for the lister: a partition is in trouble
	positioned chan struct{}
	asking     *asker         // of End
	work       sync.WaitGroup // of the goroutines that Run waits for

	mu       sync.Mutex // guards what follows, the topics, their followers and what fetchers are to do; no other lock is taken under it
	topics   map[string]*followedTopic
	fetchers map[int32]*fetcher // by the broker's ID
	listings int                // how many were begun
	listed   bool               // one succeeded
	fixed    bool               // positioned is closed
	notes    []func()           // log lines, written when mu is not held
}

// NewConsumer checks cfg and registers the metrics. It starts nothing and connects to nothing.
func NewConsumer(cfg ConsumerConfig) (*Consumer, error) {
	cfg, patterns, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("cannot make a consumer: %w", err)
	}
	c := &Consumer{
		cfg: cfg, log: cfg.Logger.Sample(&zerolog.BurstSampler{Burst: 10, Period: time.Second}), patterns: patterns,
		admin: newAdmin(cfg.Config.forListings()), look: newSignal(), positioned: make(chan struct{}),
		asking: &asker{net: newLinks(cfg.Config, 3*time.Second)},
		topics: map[string]*followedTopic{}, fetchers: map[int32]*fetcher{},
	}
	for _, name := range cfg.Topics {
		c.topics[name] = &followedTopic{name: name, named: true}
	}
	c.m = newConsumerMetrics(c)
	if err := c.m.register(cfg.Registerer); err != nil {
		return nil, fmt.Errorf("cannot register the consumer's metrics: %w", err)
	}
	return c, nil
}

func (cfg ConsumerConfig) withDefaults() (ConsumerConfig, []*regexp.Regexp, error) {
	var errs []error
	var err error
	cfg.Config, err = cfg.Config.withDefaults()
	errs = append(errs, err)
	cfg.Refresh = or(cfg.Refresh, 5*time.Second)
	if cfg.Refresh < 0 {
		errs = append(errs, errors.New("the time between looks for new topics is negative"))
	}
	if cfg.Handle == nil {
		errs = append(errs, errors.New("nothing handles the records"))
	}
	cfg.Topics = slices.Compact(sorted(slices.Clone(cfg.Topics)))
	if cfg.Burst == nil {
		cfg.Burst = func() {}
	}
	if cfg.Begin == nil {
		cfg.Begin = func(string, string, int32, int64) {}
	}
	if cfg.Progress == nil {
		cfg.Progress = func(string, int32, int64) {}
	}
	if len(cfg.Topics)+len(cfg.Patterns) == 0 {
		errs = append(errs, errors.New("no topics"))
	}
	for _, name := range cfg.Topics {
		if !legalTopic(name) {
			errs = append(errs, fmt.Errorf("topic %q: not a legal name", name))
		}
	}
	patterns, err := wholeNames(cfg.Patterns)
	return cfg, patterns, errors.Join(append(errs, err)...)
}

// wholeNames makes patterns match whole names only: what the leftmost match of `a|ab` finds in "ab" is "a".
func wholeNames(patterns []*regexp.Regexp) (whole []*regexp.Regexp, err error) {
	for _, p := range patterns {
		if p == nil {
			return nil, errors.New("a pattern is nil")
		}
		w, err := regexp.Compile(`\A(?:` + p.String() + `)\z`)
		if err != nil {
			return nil, fmt.Errorf("cannot match whole names by %q: %w", p, err)
		}
		whole = append(whole, w)
	}
	return whole, nil
}

// Run follows until ctx ends, through every outage of Kafka, and then returns nil. It returns when no call of Handle
// is under way and all its goroutines have ended. It is called once.
func (c *Consumer) Run(ctx context.Context) error {
	c.runLister(ctx)
	c.asking.close() // first: who handles a record may wait for an end
	_ = c.admin.Close()
	c.work.Wait()
	return nil
}

// Positioned is closed when it is settled where each partition that was there at the start begins, and Progress was
// told: a record that is appended after that is never missed. A topic that is missing or that may not be seen is not
// waited for, save with FromBeginning.
func (c *Consumer) Positioned() <-chan struct{} { return c.positioned }

// Lag is how many records there are between what was handled and the end of the logs, all partitions together. A
// log ends for it before the first transaction that is still open. Control records and aborted ones count until
// they are passed.
func (c *Consumer) Lag() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	lag := int64(0)
	for _, t := range c.topics {
		for _, p := range t.parts {
			if !t.gone && p.next >= 0 {
				lag += max(0, p.end-p.handled.Load())
			}
		}
	}
	return lag
}

// following is how many partitions are followed.
func (c *Consumer) following() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.topics {
		if !t.gone {
			n += len(t.parts)
		}
	}
	return n
}

// unlock releases mu and writes the log lines that were noted under it.
func (c *Consumer) unlock() {
	notes := c.notes
	c.notes = nil
	c.mu.Unlock()
	for _, write := range notes {
		write()
	}
}

// note has a log line written once mu is released. The caller holds mu.
func (c *Consumer) note(write func()) { c.notes = append(c.notes, write) }
