package kafka

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// of gives fates to the requests of one kind, in their order. The others arrive.
func of(key kmsg.Key, wait func(), fates ...fate) func(int16) (fate, func()) {
	var n atomic.Int64
	return func(k int16) (fate, func()) {
		if k == int16(key) {
			if i := n.Add(1); i <= int64(len(fates)) {
				return fates[i-1], wait
			}
		}
		return arrives, nil
	}
}

// TestUnansweredCommitIsAskedForAgain, whether it was heard or not.
func TestUnansweredCommitIsAskedForAgain(t *testing.T) {
	for _, is := range []fate{vanishes, unanswered} {
		c := meddled(t, of(kmsg.EndTxn, nil, is, is), kfake.SeedTopics(1, "t"))
		tr := transactor(t, txConfig(c.ListenAddrs(), "id"))
		b := newBook()
		tr.Write(b.group("t k v"))
		b.has(t, 1)
		require.NoError(t, b.of(b.order[0]))
		require.Equal(t, []string{"v"}, committedValues(t, c.ListenAddrs(), "t", 1))
	}
}

// TestFenceAfterAnUnansweredCommitLeavesNothingOpen: the log knows how it ended.
func TestFenceAfterAnUnansweredCommitLeavesNothingOpen(t *testing.T) {
	for _, is := range []fate{vanishes, unanswered} {
		var asked, fenced atomic.Bool
		c := meddled(t, func(key int16) (fate, func()) {
			if key != int16(kmsg.EndTxn) || fenced.Load() {
				return arrives, nil
			}
			asked.Store(true)
			return is, nil
		}, kfake.SeedTopics(1, "t"))
		cfg := txConfig(c.ListenAddrs(), "id")
		told := make(chan error, 1)
		cfg.OnFenced = func(err error) { told <- err }
		tr := transactor(t, cfg)
		b := newBook()
		before := b.group("t k before")
		fenced.Store(true)
		tr.Write(before)
		b.has(t, 1)
		fenced.Store(false)
		doubtful := b.group("t k v")
		tr.Write(doubtful)
		eventually(t, asked.Load, "a commit")
		f, err := NewFencer(cfg.Config)
		require.NoError(t, err)
		require.NoError(t, f.Fence(t.Context(), "id"))
		require.NoError(t, f.Close())
		fenced.Store(true)
		require.ErrorIs(t, <-told, ErrTransactionUnknown)
		refused := b.group("t k w")
		tr.Write(refused)
		b.has(t, 2)
		require.ErrorIs(t, b.of(refused), ErrFenced)
		require.NoError(t, tr.Renew(t.Context()))
		b.has(t, 3)
		want := []string{"before"}
		if is == unanswered {
			want = append(want, "v")
			require.NoError(t, b.of(doubtful))
		} else {
			require.ErrorIs(t, b.of(doubtful), ErrFenced)
			require.NotErrorIs(t, b.of(doubtful), ErrTransactionUnknown)
		}
		tr.Write(b.group("t k after"))
		b.has(t, 4)
		require.Equal(t, append(want, "after"), committedValues(t, c.ListenAddrs(), "t", len(want)+1))
	}
}

// TestOpenTransactionIsUnknownWhenItsRecordsAreGone, and when Run ends first.
func TestOpenTransactionIsUnknownWhenItsRecordsAreGone(t *testing.T) {
	for _, renews := range []bool{true, false} {
		var healed atomic.Bool
		c := meddled(t, func(key int16) (fate, func()) {
			if key == int16(kmsg.EndTxn) && !healed.Load() {
				return unanswered, nil
			}
			return arrives, nil
		}, kfake.SeedTopics(1, "t"))
		cfg := txConfig(c.ListenAddrs(), "id")
		told := make(chan error, 1)
		cfg.OnFenced = func(err error) { told <- err }
		tr, err := NewTransactor(cfg)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- tr.Run(ctx) }() // ends with cancel
		require.NoError(t, tr.Renew(t.Context()))
		b := newBook()
		tr.Write(b.group("t k v"))
		require.Len(t, committedValues(t, c.ListenAddrs(), "t", 1), 1)
		f, err := NewFencer(cfg.Config)
		require.NoError(t, err)
		require.NoError(t, f.Fence(t.Context(), "id"))
		require.NoError(t, f.Close())
		healed.Store(true)
		require.ErrorIs(t, <-told, ErrTransactionUnknown)
		require.Zero(t, b.count())
		if renews {
			require.NoError(t, c.DeleteRecords("t", 0, 2))
			require.NoError(t, tr.Renew(t.Context()))
		}
		cancel()
		require.NoError(t, <-ended)
		b.has(t, 1)
		require.ErrorIs(t, b.of(b.order[0]), ErrTransactionUnknown)
	}
}

// TestHowATransactionEndedIsReadWhereThereIsALeader: any of its partitions says so, and one that has no leader does not keep the
// others from it; without any it is asked for until there is one.
func TestHowATransactionEndedIsReadWhereThereIsALeader(t *testing.T) {
	for _, is := range []fate{vanishes, unanswered} {
		for _, leaderless := range [][]int32{{0}, {1}, {0, 1}} {
			var asked, fenced atomic.Bool
			c := meddled(t, func(key int16) (fate, func()) {
				if key != int16(kmsg.EndTxn) || fenced.Load() {
					return arrives, nil
				}
				asked.Store(true)
				return is, nil
			}, kfake.NumBrokers(1), kfake.SeedTopics(2, "t"))
			cfg := txConfig(c.ListenAddrs(), "id")
			told := make(chan error, 1)
			cfg.OnFenced = func(err error) { told <- err }
			tr := transactor(t, cfg)
			b := newBook()
			values := []string{"0", "1", "2", "3", "4", "5"}
			var records []string
			for _, v := range values {
				records = append(records, "t k"+v+" "+v)
			}
			tr.Write(b.group(records...))
			eventually(t, asked.Load, "a commit")
			if is == unanswered {
				require.Len(t, committedValues(t, c.ListenAddrs(), "t", len(values)), len(values))
			}
			for _, p := range c.PartitionInfos("t") {
				require.Positive(t, p.HighWatermark, "it has both partitions")
			}
			f, err := NewFencer(cfg.Config)
			require.NoError(t, err)
			require.NoError(t, f.Fence(t.Context(), "id"))
			require.NoError(t, f.Close())
			fenced.Store(true)
			require.ErrorIs(t, <-told, ErrTransactionUnknown)
			asks, heal := withoutLeaders(t, c, "t", leaderless...)
			renewed := make(chan error, 1)
			go func() { renewed <- tr.Renew(t.Context()) }() // ends with the test
			if len(leaderless) == 2 {
				eventually(t, func() bool { return asks.Load() > 4 }, "it goes on asking")
				require.Zero(t, b.count())
				heal()
			}
			require.NoError(t, <-renewed)
			b.has(t, 1)
			if is == unanswered {
				require.NoError(t, b.of(b.order[0]))
			} else {
				require.ErrorIs(t, b.of(b.order[0]), ErrFenced)
				require.NotErrorIs(t, b.of(b.order[0]), ErrTransactionUnknown)
			}
		}
	}
}

// withoutLeaders has Kafka, of one node, say that partitions of a topic have no leader, and counts how often it does, until heal.
func withoutLeaders(t testing.TB, c *kfake.Cluster, topic string, partitions ...int32) (asks *atomic.Int64, heal func()) {
	t.Helper()
	host, text, err := net.SplitHostPort(c.ListenAddrs()[0])
	require.NoError(t, err)
	port, err := strconv.Atoi(text)
	require.NoError(t, err)
	id := c.TopicInfo(topic).TopicID
	var healed atomic.Bool
	asks = new(atomic.Int64)
	c.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
		if healed.Load() {
			return nil, nil, false
		}
		c.KeepControl()
		asks.Add(1)
		resp := req.ResponseKind().(*kmsg.MetadataResponse)
		resp.Brokers = []kmsg.MetadataResponseBroker{{NodeID: c.CurrentNode(), Host: host, Port: int32(port)}}
		of := kmsg.MetadataResponseTopic{Topic: &topic, TopicID: id}
		for p := range int32(len(c.PartitionInfos(topic))) {
			part := kmsg.MetadataResponseTopicPartition{Partition: p, Leader: c.CurrentNode()}
			if slices.Contains(partitions, p) {
				part.Leader, part.ErrorCode = -1, kerr.LeaderNotAvailable.Code
			}
			of.Partitions = append(of.Partitions, part)
		}
		resp.Topics = []kmsg.MetadataResponseTopic{of}
		return resp, nil, true
	})
	return asks, func() { healed.Store(true) }
}

// TestCommitThatArrivesLateCommitsNothingElse: it was asked for again, and answered, and another transaction is half written.
func TestCommitThatArrivesLateCommitsNothingElse(t *testing.T) {
	released, heard := make(chan struct{}), make(chan struct{})
	var c *kfake.Cluster
	var asked, stores, commits, stable atomic.Int64
	c = meddled(t, func(key int16) (fate, func()) {
		switch {
		case key == int16(kmsg.EndTxn) && asked.Add(1) == 1:
			return late, func() { <-released }
		case key == int16(kmsg.Produce) && stores.Add(1) == 3: // the second batch of the second transaction
			return slow, func() {
				close(released)
				<-heard
				stable.Store(c.PartitionInfo("t", 0).LastStableOffset)
			}
		}
		return arrives, nil
	})
	require.NoError(t, c.CreateTopic("t", 1, map[string]string{"max.message.bytes": "1000"}))
	c.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
		if commits.Add(1) == 2 { // the late one
			close(heard)
		}
		c.KeepControl()
		return nil, nil, false
	})
	tr := transactor(t, txConfig(c.ListenAddrs(), "id"))
	b := newBook()
	tr.Write(b.group("t k v"))
	b.has(t, 1)
	long := strings.Repeat("x", 600)
	tr.Write(b.group("t k "+long, "t k "+long))
	b.has(t, 2)
	require.EqualValues(t, 2, stable.Load(), "nothing of the second transaction is committed before all of it is stored")
	require.NoError(t, errors.Join(b.of(b.order[0]), b.of(b.order[1])))
	require.Equal(t, []string{"v", long, long}, committedValues(t, c.ListenAddrs(), "t", 3))
}

// A storm has groups written through a schedule of trouble: requests that are lost, not answered, late or slow beyond
// each time-out, coordinators and leaders that move, others who take the id, and Kafka's own time for a transaction.
type storm struct {
	tr   *Transactor
	mu   sync.Mutex
	open map[*TxGroup]bool
	wait []*TxGroup // for Renew
	bad  []error
}

func (s *storm) GroupDone(g *TxGroup, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.open[g]:
		s.bad = append(s.bad, errors.New("a group ended twice"))
	case err == nil:
		delete(s.open, g)
	case errors.Is(err, ErrFenced) && !errors.Is(err, ErrTransactionUnknown):
		s.wait = append(s.wait, g)
	default:
		s.bad = append(s.bad, err)
		delete(s.open, g)
	}
}

// again writes what was not stored.
func (s *storm) again() {
	s.mu.Lock()
	wait := s.wait
	s.wait = nil
	s.mu.Unlock()
	for _, g := range wait {
		s.tr.Write(g)
	}
}

func (s *storm) left() (n int, bad error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open), errors.Join(s.bad...)
}

// TestNoTroubleLeavesTheOutcomeUnknown while Kafka lives: every group is committed in the end, whole and once.
func TestNoTroubleLeavesTheOutcomeUnknown(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			rng := rand.New(rand.NewPCG(seed, 0))
			draw := func(n int) int {
				mu.Lock()
				defer mu.Unlock()
				return rng.IntN(n)
			}
			var calm atomic.Bool
			const answer = 200 * time.Millisecond // what a coordinator may take
			c := meddled(t, func(key int16) (fate, func()) {
				switch kmsg.Key(key) {
				case kmsg.Produce, kmsg.Fetch, kmsg.InitProducerID, kmsg.AddPartitionsToTxn, kmsg.EndTxn:
				default:
					return arrives, nil
				}
				if calm.Load() || draw(6) > 0 {
					return arrives, nil
				}
				delay := time.Duration(draw(int(2 * answer)))
				return fate(1 + draw(4)), func() { _ = sleep(t.Context(), delay) }
			}, kfake.NumBrokers(3), kfake.SeedTopics(4, "t"))
			lostRight := make(chan struct{}, 100)
			cfg := txConfig(c.ListenAddrs(), "id")
			cfg.Timeout, cfg.MostGroups = 3*answer, 10
			cfg.OnFenced = func(error) { lostRight <- struct{}{} }
			s := &storm{tr: transactor(t, cfg), open: map[*TxGroup]bool{}}
			f, err := NewFencer(cfg.Config)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, f.Close()) })
			losses, n := 0, 0
			serve := func() {
				select {
				case <-lostRight:
					losses++
					require.NoError(t, s.tr.Renew(t.Context()))
				default:
				}
				s.again()
			}
			for n < 150 {
				for range 1 + draw(5) {
					g := &TxGroup{Owner: s}
					for _, side := range []string{"a", "b"} {
						g.Records = append(g.Records, &TxRecord{Topic: "t", Key: fmt.Append(nil, side, n%10), Value: fmt.Append(nil, side, n)})
					}
					s.mu.Lock()
					s.open[g] = true
					s.mu.Unlock()
					s.tr.Write(g)
					n++
				}
				switch draw(40) {
				case 0:
					go func() { _ = f.Fence(t.Context(), "id") }() // ends with the test
				case 1:
					c.RehashCoordinators()
				case 2:
					c.ShufflePartitionLeaders()
				}
				_ = sleep(t.Context(), time.Duration(draw(20))*time.Millisecond) // the pace
				serve()
			}
			calm.Store(true)
			eventually(t, func() bool { serve(); left, bad := s.left(); return left == 0 || bad != nil }, "all groups are committed")
			_, bad := s.left()
			require.NoError(t, bad)
			there := map[string]int{}
			for _, v := range committedValues(t, c.ListenAddrs(), "t", 2*n) {
				there[v]++
			}
			for i := range n {
				for _, side := range []string{"a", "b"} {
					require.Equal(t, 1, there[fmt.Sprint(side, i)], "record %s%d", side, i)
				}
			}
			t.Logf("the id was lost and taken again %d times", losses)
		})
	}
}

// TestCoordinatorThatNeverIsThereIsSaid: a cluster may have fewer brokers than transaction.state.log.replication.factor, and
// what waits for transactions then waits for ever.
func TestCoordinatorThatNeverIsThereIsSaid(t *testing.T) {
	t.Parallel()
	c := meddled(t, func(int16) (fate, func()) { return arrives, nil })
	c.ControlKey(int16(kmsg.FindCoordinator), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		resp := req.ResponseKind().(*kmsg.FindCoordinatorResponse)
		resp.ErrorCode = kerr.CoordinatorNotAvailable.Code
		return resp, nil, true
	})
	said := make(lineSink, 1)
	cfg := txConfig(c.ListenAddrs(), "id")
	cfg.Logger = zerolog.New(said)
	tr, err := NewTransactor(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- tr.Run(ctx) }() // ends with ctx
	renewed := make(chan error, 1)
	go func() { renewed <- tr.Renew(ctx) }() // ends with ctx
	line := <-said
	require.Contains(t, line, "the Kafka coordinator decides nothing yet")
	require.Contains(t, line, `"of":"id"`)
	require.Contains(t, line, "coordinator is not available")
	cancel()
	require.NoError(t, <-ended)
	require.Error(t, <-renewed)
}

// A lineSink keeps the first lines of a log for who waits for them.
type lineSink chan string

func (s lineSink) Write(b []byte) (int, error) {
	select {
	case s <- string(b):
	default:
	}
	return len(b), nil
}
