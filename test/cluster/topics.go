package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// adminLimit bounds one administrative call.
const adminLimit = time.Minute

// admin runs f with an administrative client that goes past any proxy.
func (c *Cluster) admin(f func(ctx context.Context, a *kadm.Client) error) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.direct...))
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), adminLimit)
	defer cancel()
	return f(ctx, kadm.NewClient(cl))
}

// CreateTopic makes a topic and returns when every serving node sees a leader
// for each of its partitions. Replication 0 or less means the cluster's
// default. configs may be nil.
func (c *Cluster) CreateTopic(name string, partitions, replication int, configs map[string]string) error {
	if replication <= 0 {
		replication = -1
	}
	values := make(map[string]*string, len(configs))
	for k, v := range configs {
		values[k] = &v
	}
	return c.admin(func(ctx context.Context, a *kadm.Client) error {
		_, err := a.CreateTopic(ctx, int32(partitions), int16(replication), values, name)
		if err != nil {
			return fmt.Errorf("cannot create topic %q: %w", name, err)
		}
		return c.waitTopic(ctx, name, partitions)
	})
}

// DeleteTopic removes a topic and returns when no serving node knows it.
func (c *Cluster) DeleteTopic(name string) error {
	return c.admin(func(ctx context.Context, a *kadm.Client) error {
		if _, err := a.DeleteTopic(ctx, name); err != nil {
			return fmt.Errorf("cannot delete topic %q: %w", name, err)
		}
		return c.waitTopic(ctx, name, 0)
	})
}

func (c *Cluster) waitTopic(ctx context.Context, name string, partitions int) error {
	for _, addr := range c.answering() {
		err := until(ctx, pollEvery, func() error { return knowsTopic(ctx, addr, name, partitions) })
		if err != nil {
			return err
		}
	}
	return nil
}

// answering returns the direct addresses of the nodes that serve.
func (c *Cluster) answering() []string {
	if !c.Owned() {
		return c.direct
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var addrs []string
	for _, i := range c.servingNodes() {
		addrs = append(addrs, c.direct[i])
	}
	return addrs
}
