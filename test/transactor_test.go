package test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/kafka"
	"sluice/test/cluster"
)

// A txDesk writes groups of two records and notes how each ended.
type txDesk struct {
	tr    *kafka.Transactor
	topic string

	mu     sync.Mutex
	made   map[*kafka.TxGroup]int
	ended  map[int]error
	twice  bool
	under  int           // groups under way
	settle chan struct{} // a group ended
	losses int           // of the id
}

func (d *txDesk) GroupDone(g *kafka.TxGroup, err error) {
	d.mu.Lock()
	n := d.made[g]
	_, before := d.ended[n]
	d.twice = d.twice || before
	d.ended[n] = err
	d.under--
	d.mu.Unlock()
	select {
	case d.settle <- struct{}{}:
	default:
	}
}

// write writes one more group, once fewer than 200 are under way.
func (d *txDesk) write() {
	for {
		d.mu.Lock()
		if d.under < 200 {
			break
		}
		d.mu.Unlock()
		<-d.settle
	}
	n := len(d.made)
	g := &kafka.TxGroup{Owner: d}
	for _, side := range []string{"a", "b"} {
		g.Records = append(g.Records, &kafka.TxRecord{Topic: d.topic, Key: fmt.Appendf(nil, "%s%d", side, n%50), Value: fmt.Appendf(nil, "%s%d", side, n)})
	}
	d.made[g] = n
	d.under++
	d.mu.Unlock()
	d.tr.Write(g)
}

// load writes until ctx ends, renews what is lost, and waits until all have ended.
func (d *txDesk) load(ctx context.Context, t testing.TB, lost <-chan error) {
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-pace.C:
			d.renew(t, lost)
			d.write()
		}
	}
}

// renew takes the id again if it is lost.
func (d *txDesk) renew(t testing.TB, lost <-chan error) {
	select {
	case <-lost:
		d.losses++
		if err := d.tr.Renew(t.Context()); err != nil {
			t.Errorf("cannot renew: %v", err)
		}
	default:
	}
}

func (d *txDesk) count(is func(error) bool) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, err := range d.ended {
		if is(err) {
			n++
		}
	}
	return n
}

func committedGroup(err error) bool { return err == nil }

// flows waits until so many more groups are committed.
func (d *txDesk) flows(t testing.TB, more int) {
	t.Helper()
	before := d.count(committedGroup)
	require.Eventually(t, func() bool { return d.count(committedGroup) >= before+more }, 2*time.Minute, 10*time.Millisecond, "groups are committed")
}

// newDesk runs a transactor until the test ends.
func newDesk(t testing.TB, brokers []string, topic, id string) (*txDesk, <-chan error) {
	t.Helper()
	lost := make(chan error, 100)
	tr, err := kafka.NewTransactor(kafka.TransactorConfig{TransactionalID: id, OnFenced: func(err error) { lost <- err },
		Config: kafka.Config{Brokers: brokers, Logger: zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.ErrorLevel)}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tr.Run(ctx) }() // ends with cancel
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
	require.NoError(t, tr.Renew(t.Context()))
	return &txDesk{tr: tr, topic: topic, made: map[*kafka.TxGroup]int{}, ended: map[int]error{}, settle: make(chan struct{}, 1)}, lost
}

// underLoad has groups written while there is trouble, and requires that each is in Kafka as was said of it: whole and
// once, or not at all.
func (d *txDesk) underLoad(t testing.TB, brokers []string, lost <-chan error, trouble func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var load sync.WaitGroup
	load.Go(func() { d.load(ctx, t, lost) }) // ends with ctx
	d.flows(t, 300)
	trouble()
	d.flows(t, 300)
	cancel()
	load.Wait()
	require.Eventually(t, func() bool {
		d.renew(t, lost)
		return d.count(func(error) bool { return true }) == len(d.made)
	}, 2*time.Minute, 10*time.Millisecond, "all end")
	require.False(t, d.twice, "a group ended twice")
	there := map[string]int{}
	for _, value := range committed(t, brokers, d.topic) {
		there[value]++
	}
	kinds := map[string]int{}
	for n, err := range d.ended {
		a, b := there[fmt.Sprint("a", n)], there[fmt.Sprint("b", n)]
		require.Equal(t, a, b, "group %d is not whole", n)
		switch {
		case err == nil:
			kinds["committed"]++
			require.Equal(t, 1, a, "group %d was committed", n)
		default:
			kinds["not committed"]++
			require.NotErrorIs(t, err, kafka.ErrTransactionUnknown)
			require.Zero(t, a, "group %d was not committed: %v", n, err)
		}
	}
	t.Logf("groups: %v; the id was lost and taken again %d times", kinds, d.losses)
}

// committed reads the values of a topic's committed records. The last record of each partition is a mark of how a
// transaction ended.
func committed(t testing.TB, brokers []string, topic string) (values []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	require.NoError(t, err)
	defer c.Close()
	ends, err := kadm.NewClient(c).ListCommittedOffsets(ctx, topic)
	require.NoError(t, err)
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		require.NoError(t, o.Err)
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	for len(left) > 0 {
		fetches := c.PollFetches(ctx)
		require.NoError(t, ctx.Err(), "some of %v is left to read", left)
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				values = append(values, string(r.Value))
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return values
}

// TestTransactorThroughFences: somebody else takes the id again and again, with transactions open.
func TestTransactorThroughFences(t *testing.T) {
	besideOthers(t)
	kafkas := cluster.Shared(t)
	topic := newTopic(t, kafkas, 6)
	d, lost := newDesk(t, kafkas.Brokers(), topic, topic)
	f, err := kafka.NewFencer(kafka.Config{Brokers: kafkas.Brokers()})
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	d.underLoad(t, kafkas.Brokers(), lost, func() {
		for range either(10, 100) {
			began := time.Now()
			require.NoError(t, f.Fence(t.Context(), topic))
			t.Logf("fenced in %v", time.Since(began))
			d.flows(t, 20)
		}
	})
}

// TestTransactorWhileNodesAreKilledInTurn: each is the coordinator at some time.
func TestTransactorWhileNodesAreKilledInTurn(t *testing.T) {
	besideOthers(t)
	kafkas := cluster.Need(t, cluster.Config{Own: true, Nodes: 3})
	topic := cluster.TopicName(t)
	require.NoError(t, kafkas.CreateTopic(topic, 6, 3, nil))
	d, lost := newDesk(t, kafkas.Brokers(), topic, topic)
	d.underLoad(t, kafkas.Brokers(), lost, func() {
		for i := range either(1, 12) {
			require.NoError(t, kafkas.Kill(i%3))
			killed := time.Now()
			d.flows(t, 200)
			t.Logf("200 groups were committed %v after node %d was killed", time.Since(killed), i%3)
			require.NoError(t, kafkas.Restart(i%3))
			d.flows(t, 200)
		}
	})
}

// TestGroupMembersTakeOver: records go on where a member that left, or that was cut off, has settled them.
func TestGroupMembersTakeOver(t *testing.T) {
	kafkas := cluster.Shared(t)
	const partitions = 6
	topic := newTopic(t, kafkas, partitions)
	var mu sync.Mutex
	seen := map[string]int{}
	join := func() (g *kafka.Group, leave func()) {
		g, err := kafka.NewGroup(kafka.GroupConfig{Name: topic, Topics: []string{topic}, SessionTimeout: 6 * time.Second, Heartbeat: time.Second,
			Config: kafka.Config{Brokers: kafkas.Brokers(), Logger: zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.InfoLevel)},
			Handle: func(_ context.Context, r *kafka.Fetched, done func(bool)) bool {
				mu.Lock()
				defer mu.Unlock()
				seen[string(r.Value)]++
				done(true)
				return true
			}})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx) }() // ends with cancel
		leave = sync.OnceFunc(func() { cancel(); require.NoError(t, <-done) })
		t.Cleanup(leave)
		return g, leave
	}
	has := func(g *kafka.Group, n int) {
		t.Helper()
		require.Eventually(t, func() bool { return len(g.Owned()) == n }, time.Minute, 5*time.Millisecond, "partitions are shared")
	}
	a, _ := join()
	has(a, partitions)
	b, leaveB := join()
	has(a, partitions/2)
	has(b, partitions/2)
	c := independent(t, kafkas.Brokers())
	var sent atomic.Int64
	for i := range int32(partitions) { // all of them have begun when the last of these was handled
		require.Eventually(t, func() bool {
			say(t, c, topic, i, fmt.Sprint("begin ", i, " ", sent.Add(1)))
			mu.Lock()
			defer mu.Unlock()
			for value := range seen {
				var p int32
				if _, err := fmt.Sscanf(value, "begin %d", &p); err == nil && p == i {
					return true
				}
			}
			return false
		}, time.Minute, 50*time.Millisecond)
	}
	const n = 600
	for i := range n {
		if i == n/2 {
			leaveB()
			has(a, partitions)
		}
		say(t, c, topic, int32(i%partitions), fmt.Sprint("n", i))
	}
	all := func() bool {
		mu.Lock()
		defer mu.Unlock()
		for i := range n {
			if seen[fmt.Sprint("n", i)] == 0 {
				return false
			}
		}
		return true
	}
	require.Eventually(t, all, time.Minute, 10*time.Millisecond, "all are handled")
	for i := range n {
		require.Equal(t, 1, seen[fmt.Sprint("n", i)], "record %d", i)
	}
}
