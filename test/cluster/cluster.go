package cluster

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/test/internal/ports"
)

// ErrNotOwned is returned for what cannot be done to a cluster that the
// harness did not start.
var ErrNotOwned = errors.New("this cluster is given by KAFKA_BROKERS and not the harness's to stop")

// startLimit bounds a node's start and a restart. A node takes 3 to 12 s; the
// rest is for a machine that is busy with other tests.
const startLimit = 2 * time.Minute

// Cluster is a running Kafka. Its methods may be called from several
// goroutines; those that change a node go one after the other.
type Cluster struct {
	brokers []string // what clients are to be given
	direct  []string // past any proxy

	// mu guards the nodes' states and serving.
	mu      sync.Mutex
	nodes   []node
	serving []bool // neither killed nor paused
	ends    []endpoints
	dir     string
	closers []func() error // run last to first by Close
}

// Start gets a cluster by the first way that works on this machine and waits
// until it serves. ctx bounds the start only.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	m := machine()
	switch m.way {
	case wayExternal:
		return startExternal(ctx, cfg)
	case wayJava:
		return start(ctx, cfg, func(c *Cluster) error { return c.prepareProcesses(ctx, cfg, m.java) })
	case wayContainer:
		return start(ctx, cfg, func(c *Cluster) error { return c.prepareContainers(ctx, cfg, m.engine) })
	}
	return nil, errors.New(m.why)
}

func startExternal(ctx context.Context, cfg Config) (*Cluster, error) {
	if cfg.own() {
		return nil, ErrNotOwned
	}
	c := &Cluster{brokers: external(), direct: external()}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	return c, until(ctx, pollEvery, func() error {
		return hasBrokers(ctx, c.brokers[0], cfg.nodes())
	})
}

// start runs the nodes that prepare adds, and leaves nothing when it fails.
func start(ctx context.Context, cfg Config, prepare func(*Cluster) error) (*Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	c := &Cluster{serving: make([]bool, cfg.nodes())}
	err := c.lease(cfg)
	if err == nil {
		err = prepare(c)
	}
	if err == nil {
		err = c.startAll(ctx)
	}
	if err != nil {
		err = fmt.Errorf("cannot start Kafka: %w\n%s", err, c.Logs(40))
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// lease takes four ports for each node, and one for each more listener.
func (c *Cluster) lease(cfg Config) error {
	each := 4 + len(cfg.Listeners)
	leases, err := ports.Take(each * cfg.nodes())
	if err != nil {
		return err
	}
	c.closers = append(c.closers, func() error { return ports.Release(leases) })
	for i := range cfg.nodes() {
		l := leases[each*i:]
		e := endpoints{id: i + 1, client: l[0].Number, direct: l[1].Number, internal: l[2].Number, controller: l[3].Number, more: map[string]int{}}
		for k, more := range cfg.Listeners {
			e.more[more.Name] = l[4+k].Number
		}
		e.advertise(cfg)
		c.ends = append(c.ends, e)
		c.brokers = append(c.brokers, e.advertised)
		c.direct = append(c.direct, e.directAddr())
	}
	return nil
}

func (c *Cluster) prepareProcesses(ctx context.Context, cfg Config, java string) error {
	jars, err := jars(ctx)
	if err != nil {
		return err
	}
	if err := c.makeDir(cfg); err != nil {
		return err
	}
	for i := range c.ends {
		c.ends[i].bind, c.ends[i].peer = "127.0.0.1", "127.0.0.1"
		c.ends[i].meet(cfg)
	}
	id, err := c.clusterID()
	if err != nil {
		return err
	}
	kind := server
	if cfg.Load {
		kind = loaded
	}
	for i, e := range c.ends {
		dir := filepath.Join(c.dir, fmt.Sprintf("node-%d", i))
		properties := propertiesFile(cfg.properties(e, c.ends, filepath.Join(dir, "data")))
		p, err := newProcess(java, jars, dir, id, properties, kind, cfg.JVM)
		if err != nil {
			return err
		}
		if cfg.Env != nil {
			p.env = cfg.Env(i)
		}
		c.nodes = append(c.nodes, p)
	}
	return nil
}

func (c *Cluster) makeDir(cfg Config) (err error) {
	if c.dir = cfg.Dir; c.dir != "" {
		return os.MkdirAll(c.dir, 0o755)
	}
	c.dir, err = os.MkdirTemp("", "sluice-kafka-")
	c.closers = append(c.closers, func() error { return os.RemoveAll(c.dir) })
	return err
}

// clusterID is kept beside the data, for Config.Dir's second Start.
func (c *Cluster) clusterID() (string, error) {
	path := filepath.Join(c.dir, "cluster-id")
	if b, err := os.ReadFile(path); err == nil {
		return string(b), nil
	}
	id := newClusterID()
	return id, os.WriteFile(path, []byte(id), 0o644)
}

// newClusterID makes one of Kafka's own form, without the leading dash that
// its command line would take for an option.
func newClusterID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // crypto/rand never fails
	b[0] &= 0x7f
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func (c *Cluster) prepareContainers(ctx context.Context, cfg Config, engine string) error {
	sweep(ctx, engine)
	network := fmt.Sprintf("sluice-test-%d-%d", os.Getpid(), c.ends[0].client)
	label := fmt.Sprintf("%s=%d", pidLabel, os.Getpid())
	if _, err := engineRun(ctx, engine, "network", "create", "--label", label, network); err != nil {
		return err
	}
	c.closers = append(c.closers, func() error {
		_, err := engineRun(context.Background(), engine, "network", "rm", network)
		return err
	})
	for i := range c.ends {
		c.ends[i].bind, c.ends[i].peer = "0.0.0.0", fmt.Sprintf("%s-%d", network, i)
		c.ends[i].meet(cfg)
	}
	id := newClusterID()
	for _, e := range c.ends {
		c.nodes = append(c.nodes, &container{
			engine: engine, name: e.peer, network: network, cluster: id,
			ports:      slices.Concat([]int{e.client, e.direct}, slices.Sorted(maps.Values(e.more))),
			properties: string(propertiesFile(cfg.properties(e, c.ends, dataDirInContainer))),
		})
	}
	return nil
}

// startAll starts the nodes together, since a quorum forms only of several.
func (c *Cluster) startAll(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var g errgroup.Group
	for i, n := range c.nodes {
		g.Go(func() error { return n.start(ctx) })
		c.serving[i] = true
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return c.waitReady(ctx)
}

// waitReady waits until every serving node sees all serving nodes. It gives up
// at once when a node has ended.
func (c *Cluster) waitReady(ctx context.Context) error {
	var ids []int32
	for _, i := range c.servingNodes() {
		ids = append(ids, int32(c.ends[i].id))
	}
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	for _, i := range c.servingNodes() {
		err := until(ctx, pollEvery, func() error {
			if err := c.nodes[i].exited(); err != nil {
				giveUp(fmt.Errorf("node %d failed", i))
				return err
			}
			return knowsBrokers(ctx, c.direct[i], ids...)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// servingNodes returns the numbers of the nodes that serve. c.mu is held.
func (c *Cluster) servingNodes() []int {
	var is []int
	for i, serves := range c.serving {
		if serves {
			is = append(is, i)
		}
	}
	return is
}

// Brokers returns the addresses to give to clients: what Config.Advertise
// said, or the nodes' own.
func (c *Cluster) Brokers() []string { return slices.Clone(c.brokers) }

// Direct returns addresses that lead past whatever Config.Advertise put in
// front of the nodes, for a test that verifies what Kafka really holds.
func (c *Cluster) Direct() []string { return slices.Clone(c.direct) }

// Owned says whether the harness started the nodes and may stop them.
func (c *Cluster) Owned() bool { return len(c.nodes) > 0 }

// with calls f with the node under the lock.
func (c *Cluster) with(i int, f func(n node) error) error {
	if !c.Owned() {
		return ErrNotOwned
	}
	if i < 0 || i >= len(c.nodes) {
		return fmt.Errorf("no node %d: the cluster has nodes 0 to %d", i, len(c.nodes)-1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return f(c.nodes[i])
}

// Kill ends a node as SIGKILL does and returns when it is gone. Nodes count
// from 0.
func (c *Cluster) Kill(i int) error {
	return c.with(i, func(n node) error {
		c.serving[i] = false
		return n.kill()
	})
}

// Stop ends a node in good order, its partitions handed over, and returns when
// it is gone.
func (c *Cluster) Stop(i int) error {
	return c.with(i, func(n node) error {
		c.serving[i] = false
		return n.stop()
	})
}

// Restart starts a node again over the same data, at the same addresses, and
// waits until all serving nodes see each other. A node that still runs is
// killed first.
func (c *Cluster) Restart(i int) error {
	return c.with(i, func(n node) error {
		ctx, cancel := context.WithTimeout(context.Background(), startLimit)
		defer cancel()
		if err := n.kill(); err != nil {
			return err
		}
		if err := n.start(ctx); err != nil {
			return err
		}
		c.serving[i] = true
		if err := c.waitReady(ctx); err != nil {
			return fmt.Errorf("node %d did not come back: %w\n%s", i, err, n.logs(40))
		}
		return nil
	})
}

// Pause stops a node in its tracks (SIGSTOP): its sockets stay open and no
// byte moves. The others take it for dead after a while.
func (c *Cluster) Pause(i int) error {
	return c.with(i, func(n node) error {
		c.serving[i] = false
		return n.pause()
	})
}

// Resume ends a Pause.
func (c *Cluster) Resume(i int) error {
	return c.with(i, func(n node) error {
		c.serving[i] = true
		return n.resume()
	})
}

// Logs returns the last lines of every node's log.
func (c *Cluster) Logs(lines int) string {
	var s string
	for i, n := range c.nodes {
		s += fmt.Sprintf("--- Kafka node %d\n%s\n", i, n.logs(lines))
	}
	return s
}

// Close kills the nodes and removes their data. Calling it again does nothing.
func (c *Cluster) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, n := range c.nodes {
		errs = append(errs, n.kill())
		errs = append(errs, n.remove())
	}
	for _, f := range slices.Backward(c.closers) {
		errs = append(errs, f())
	}
	c.closers, c.nodes = nil, nil
	return errors.Join(errs...)
}
