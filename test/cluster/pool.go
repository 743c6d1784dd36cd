package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
)

// idle are clusters that tests have left whole, for the next one that wants nothing special: starting three nodes
// costs as much processor time as a minute of most tests. They are kept while [Main] runs, which ends them.
var idle struct {
	mu       sync.Mutex
	clusters []*Cluster
}

// plain says whether a cluster of another test will do.
func (c Config) plain() bool {
	c.Own = false
	return !c.own() && !c.Load
}

// take gives an idle cluster of cfg's size; nil: there is none.
func take(cfg Config) *Cluster {
	idle.mu.Lock()
	defer idle.mu.Unlock()
	i := slices.IndexFunc(idle.clusters, func(c *Cluster) bool { return len(c.nodes) == cfg.nodes() })
	if i < 0 || !cfg.plain() {
		return nil
	}
	c := idle.clusters[i]
	idle.clusters = slices.Delete(idle.clusters, i, i+1)
	return c
}

// keep leaves a cluster to other tests, if all of its nodes serve; false: it is to be closed.
func keep(c *Cluster, cfg Config) bool {
	if !shared.open.Load() || !cfg.plain() || c.renew() != nil {
		return false
	}
	idle.mu.Lock()
	defer idle.mu.Unlock()
	idle.clusters = append(idle.clusters, c)
	return true
}

// closeIdle ends the idle clusters.
func closeIdle() error {
	idle.mu.Lock()
	defer idle.mu.Unlock()
	var errs []error
	for _, c := range idle.clusters {
		errs = append(errs, c.Close())
	}
	idle.clusters = nil
	return errors.Join(errs...)
}

// renew deletes all topics but Kafka's own, whose replicas must be in sync on all nodes, as they are after a start.
func (c *Cluster) renew() error {
	c.mu.Lock()
	whole := c.Owned() && len(c.servingNodes()) == len(c.nodes)
	c.mu.Unlock()
	if !whole {
		return errors.New("not all nodes serve")
	}
	return c.admin(func(ctx context.Context, a *kadm.Client) error {
		topics, err := a.ListTopics(ctx)
		if err != nil {
			return err
		}
		if names := topics.Names(); len(names) > 0 {
			if _, err := a.DeleteTopics(ctx, names...); err != nil {
				return err
			}
		}
		return until(ctx, pollEvery, func() error {
			topics, err := a.ListTopicsWithInternal(ctx)
			if err != nil {
				return err
			}
			for _, t := range topics {
				for _, p := range t.Partitions {
					if p.Leader < 0 || len(p.ISR) < len(p.Replicas) {
						return fmt.Errorf("partition %d of %s is not in sync", p.Partition, t.Topic)
					}
				}
			}
			return nil
		})
	})
}
