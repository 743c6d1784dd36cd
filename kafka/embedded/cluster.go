package embedded

import (
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// A Cluster is a running Kafka.
type Cluster struct {
	fake *kfake.Cluster
	stop chan struct{}
	done sync.WaitGroup
}

// retainEvery is how often old records are dropped.
const retainEvery = time.Second

// Start starts a cluster. It accepts connections when Start returns, after a few milliseconds.
func Start(cfg Config) (*Cluster, error) {
	cfg = cfg.withDefaults()
	opts := []kfake.Opt{
		kfake.NumBrokers(cfg.Brokers),
		kfake.DefaultNumPartitions(int(cfg.Partitions)),
		kfake.BrokerConfigs(cfg.settings()),
	}
	if cfg.Port != 0 {
		ports := make([]int, cfg.Brokers)
		for i := range ports {
			ports[i] = cfg.Port + i
		}
		opts = append(opts, kfake.Ports(ports...))
	}
	if len(cfg.Topics) > 0 {
		opts = append(opts, kfake.SeedTopics(cfg.Partitions, cfg.Topics...))
	}
	fake, err := kfake.NewCluster(opts...)
	if err != nil {
		return nil, fmt.Errorf("cannot start an embedded Kafka: %w", err)
	}
	c := &Cluster{fake: fake, stop: make(chan struct{})}
	c.done.Go(c.retain) // ends with Close
	return c, nil
}

// retain drops what is too old or too much. kfake does so itself only when a topic has its own retention.
func (c *Cluster) retain() {
	tick := time.NewTicker(retainEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-tick.C:
			c.fake.ApplyRetention()
		}
	}
}

// settings bound what is kept. Only whole segments are dropped, so these are smaller than what is kept.
func (c Config) settings() map[string]string {
	s := map[string]string{
		"log.retention.bytes":    strconv.FormatInt(c.RetentionBytes, 10),
		"log.segment.bytes":      strconv.FormatInt(max(c.RetentionBytes/4, 1), 10),
		"log.cleaner.backoff.ms": "1000", // compaction
	}
	maps.Copy(s, c.Settings)
	return s
}

// Brokers gives the addresses to connect to.
func (c *Cluster) Brokers() []string { return c.fake.ListenAddrs() }

// Close ends the cluster, and forgets what it has. It is called once.
func (c *Cluster) Close() {
	close(c.stop)
	c.done.Wait()
	c.fake.Close()
}
