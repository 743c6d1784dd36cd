package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A book is a TxOwner that notes what became of groups.
type book struct {
	mu    sync.Mutex
	done  map[*TxGroup][]error
	order []*TxGroup
}

func newBook() *book { return &book{done: map[*TxGroup][]error{}} }

func (b *book) GroupDone(g *TxGroup, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done[g] = append(b.done[g], err)
	b.order = append(b.order, g)
}

func (b *book) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.order)
}

// has waits until n groups have ended, and requires that each did once.
func (b *book) has(t testing.TB, n int) {
	t.Helper()
	eventually(t, func() bool { return b.count() >= n }, "groups end")
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Len(t, b.order, n)
	require.Len(t, b.done, n, "a group ended twice")
}

func (b *book) of(g *TxGroup) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Join(b.done[g]...)
}

// group makes a group with one record for each "topic key value".
func (b *book) group(records ...string) *TxGroup {
	g := &TxGroup{Owner: b}
	for _, r := range records {
		f := strings.Fields(r)
		g.Records = append(g.Records, &TxRecord{Topic: f[0], Key: []byte(f[1]), Value: []byte(f[2])})
	}
	return g
}

func txConfig(brokers []string, id string) TransactorConfig {
	return TransactorConfig{Config: testConfig(brokers), TransactionalID: id, Timeout: 6 * time.Second}
}

// transactor runs one until the test ends, and takes its id.
func transactor(t testing.TB, cfg TransactorConfig) *Transactor {
	t.Helper()
	tr, err := NewTransactor(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tr.Run(ctx) }() // ends with cancel
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
	require.NoError(t, tr.Renew(t.Context()))
	return tr
}

// committedValues reads what is committed in a topic, all partitions together, until there are n.
func committedValues(t testing.TB, brokers []string, topic string, n int) (values []string) {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	require.NoError(t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for len(values) < n && ctx.Err() == nil {
		c.PollFetches(ctx).EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
	}
	require.NoError(t, ctx.Err(), "not all records are there")
	return values
}

func TestGroupsAreCommittedWholeAndInOrder(t *testing.T) {
	c := fake(t, kfake.NumBrokers(3), kfake.SeedTopics(1, "ordered"), kfake.SeedTopics(6, "spread"))
	tr := transactor(t, txConfig(c.ListenAddrs(), "id"))
	b := newBook()
	const n = 3000
	for i := range n {
		tr.Write(b.group(fmt.Sprintf("ordered k%d %d", i%7, i), fmt.Sprintf("spread k%d %d", i%50, i)))
	}
	b.has(t, n)
	require.NoError(t, errors.Join(b.of(b.order[0]), b.of(b.order[n-1])))
	values := committedValues(t, c.ListenAddrs(), "ordered", n)
	for i, v := range values {
		require.Equal(t, fmt.Sprint(i), v)
	}
	require.Len(t, committedValues(t, c.ListenAddrs(), "spread", n), n)
}

func TestRecordOfAGroupIsStoredAsGiven(t *testing.T) {
	c := fake(t, kfake.SeedTopics(5, "t"))
	cfg := txConfig(c.ListenAddrs(), "id")
	cfg.Compression = "lz4"
	tr := transactor(t, cfg)
	b := newBook()
	when := time.UnixMilli(1_700_000_000_123)
	tr.Write(&TxGroup{Owner: b, Records: []*TxRecord{
		{Topic: "t", PartitionKey: []byte("foobar"), Key: []byte("k"), Value: []byte("v"), Timestamp: when, Headers: []Header{{[]byte("a"), []byte("b")}}},
		{Topic: "t", Key: []byte("gone")},
		{Topic: "t", Value: []byte{}}}})
	b.has(t, 1)
	require.NoError(t, b.of(b.order[0]))
	byKey := map[string]*kgo.Record{}
	for _, rs := range read(t, c.ListenAddrs(), "t", 3) {
		for _, r := range rs {
			byKey[string(r.Key)] = r
		}
	}
	require.Equal(t, PartitionOf([]byte("foobar"), 5), byKey["k"].Partition)
	require.True(t, when.Equal(byKey["k"].Timestamp))
	require.Equal(t, []kgo.RecordHeader{{Key: "a", Value: []byte("b")}}, byKey["k"].Headers)
	require.Nil(t, byKey["gone"].Value)
	require.Equal(t, PartitionOf([]byte("gone"), 5), byKey["gone"].Partition)
	require.NotNil(t, byKey[""].Value)
}

func TestRecordsWithoutAKeyAreSpread(t *testing.T) {
	c := fake(t, kfake.SeedTopics(5, "t"))
	tr := transactor(t, txConfig(c.ListenAddrs(), "id"))
	b := newBook()
	const n, size = 400, 4000 // 80 times another partition is drawn
	for range n {
		tr.Write(&TxGroup{Owner: b, Records: []*TxRecord{{Topic: "t", Value: make([]byte, size)}}})
	}
	b.has(t, n)
	used, most := 0, 0
	for _, rs := range read(t, c.ListenAddrs(), "t", n) {
		if len(rs) > 0 {
			used++
		}
		most = max(most, len(rs))
	}
	require.Greater(t, used, 2)
	require.Less(t, most, n/2)
}

func TestRefusedRecordFailsItsOwnGroupOnly(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t", "closed"))
	require.NoError(t, c.CreateTopic("compacted", 1, map[string]string{"cleanup.policy": "compact"}))
	require.NoError(t, c.CreateTopic("small", 1, map[string]string{"max.message.bytes": "1000"}))
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "closed", Err: kerr.TopicAuthorizationFailed, Count: -1})
	tr := transactor(t, txConfig(c.ListenAddrs(), "id"))
	b := newBook()
	bad := map[*TxGroup]error{
		b.group("t a bad", "missing b bad"):                                          ErrTopicMissing,
		b.group("t a bad", "closed b bad"):                                           ErrNotAuthorized,
		b.group("t a bad", "il/legal b bad"):                                         ErrInvalidRecord,
		b.group("t a bad", "small b "+strings.Repeat("x", 2000)):                     ErrTooLarge,
		{Owner: b, Records: []*TxRecord{{Topic: "compacted", Value: []byte("bad")}}}: ErrInvalidRecord,
	}
	var good []*TxGroup
	add := func() {
		g := b.group(fmt.Sprintf("t k %d", len(good)), fmt.Sprintf("small k %d", len(good)))
		good = append(good, g)
		tr.Write(g)
	}
	add()
	for g := range bad {
		tr.Write(g)
		add()
	}
	b.has(t, len(good)+len(bad))
	for g, want := range bad {
		require.ErrorIs(t, b.of(g), want)
		require.True(t, Final(b.of(g)))
	}
	for _, g := range good {
		require.NoError(t, b.of(g))
	}
	for i, v := range committedValues(t, c.ListenAddrs(), "t", len(good)) {
		require.Equal(t, fmt.Sprint(i), v)
	}
}

// TestRefusedBatchIsHalvedUntilTheRecordIsFound: Kafka does not always name the record.
func TestRefusedBatchIsHalvedUntilTheRecordIsFound(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t"))
	c.ControlKey(int16(kmsg.Produce), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		req := kreq.(*kmsg.ProduceRequest)
		if !strings.Contains(string(req.Topics[0].Partitions[0].Records), "poison") {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.ProduceResponse)
		p := kmsg.NewProduceResponseTopicPartition()
		p.ErrorCode = kerr.InvalidRecord.Code
		resp.Topics = []kmsg.ProduceResponseTopic{{Topic: "t", Partitions: []kmsg.ProduceResponseTopicPartition{p}}}
		return resp, nil, true
	})
	tr := transactor(t, txConfig(c.ListenAddrs(), "id"))
	b := newBook()
	var poisoned *TxGroup
	for i := range 40 {
		g := b.group(fmt.Sprintf("t k %d", i))
		if i == 23 {
			g = b.group("t k poison")
			poisoned = g
		}
		tr.Write(g)
	}
	b.has(t, 40)
	require.ErrorIs(t, b.of(poisoned), ErrInvalidRecord)
	require.Len(t, committedValues(t, c.ListenAddrs(), "t", 39), 39)
}

func TestFencedTransactorWritesNothingUntilItRenews(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t"))
	cfg := txConfig(c.ListenAddrs(), "id")
	lost := make(chan error, 10)
	cfg.OnFenced = func(err error) { lost <- err }
	tr := transactor(t, cfg)
	b := newBook()
	tr.Write(b.group("t k before"))
	b.has(t, 1)
	f, err := NewFencer(cfg.Config)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	require.NoError(t, f.Fence(t.Context(), "id"))
	for range 10 {
		tr.Write(b.group("t k fenced"))
	}
	b.has(t, 11)
	require.ErrorIs(t, <-lost, ErrFenced)
	for _, g := range b.order[1:] {
		require.ErrorIs(t, b.of(g), ErrFenced)
		require.NotErrorIs(t, b.of(g), ErrTransactionUnknown)
	}
	require.NoError(t, tr.Renew(t.Context()))
	tr.Write(b.group("t k after"))
	b.has(t, 12)
	require.Equal(t, []string{"before", "after"}, committedValues(t, c.ListenAddrs(), "t", 2))
	require.Empty(t, lost, "once for each loss")
}

func TestNothingIsWrittenBeforeTheFirstRenew(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t"))
	tr, err := NewTransactor(txConfig(c.ListenAddrs(), "id"))
	require.NoError(t, err)
	b := newBook()
	tr.Write(b.group("t k v"))
	b.has(t, 1)
	require.ErrorIs(t, b.of(b.order[0]), ErrFenced)
}

// TestFenceThatKeepsACommitFromBeginningLeavesNothingOpen: the coordinator said that it was busy with the fence, and then
// that the right is gone. It never took the commit.
func TestFenceThatKeepsACommitFromBeginningLeavesNothingOpen(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t"))
	cfg := txConfig(c.ListenAddrs(), "id")
	tr := transactor(t, cfg)
	asked := make(chan struct{})
	once := sync.OnceFunc(func() { close(asked) })
	var fenced atomic.Bool
	c.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		once()
		resp := req.ResponseKind().(*kmsg.EndTxnResponse)
		resp.ErrorCode = kerr.ConcurrentTransactions.Code
		return resp, nil, !fenced.Load()
	})
	b := newBook()
	tr.Write(b.group("t k v"))
	<-asked
	f, err := NewFencer(cfg.Config)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	require.NoError(t, f.Fence(t.Context(), "id"))
	fenced.Store(true)
	b.has(t, 1)
	require.ErrorIs(t, b.of(b.order[0]), ErrFenced)
	require.NotErrorIs(t, b.of(b.order[0]), ErrTransactionUnknown)
}

// TestEachGroupIsThereAsItWasSaid through broken connections, moving leaders and lost answers.
func TestEachGroupIsThereAsItWasSaid(t *testing.T) {
	c, g := gated(t, kfake.NumBrokers(3), kfake.SeedTopics(4, "t"))
	cfg := txConfig(c.ListenAddrs(), "id")
	cfg.Timeout = 20 * time.Second
	tr := transactor(t, cfg)
	b := newBook()
	const n = 3000
	groups := make([]*TxGroup, n)
	for i := range n {
		groups[i] = b.group(fmt.Sprintf("t a%d a%d", i%20, i), fmt.Sprintf("t b%d b%d", i%20, i))
		tr.Write(groups[i])
		if i%100 == 0 {
			g.drop()
			eventually(t, func() bool { return b.count() >= i/2 }, "groups are written through trouble")
		}
		if i%500 == 0 {
			c.ShufflePartitionLeaders()
		}
	}
	b.has(t, n)
	want := map[string]bool{}
	for i, g := range groups {
		require.NoError(t, b.of(g), "what was aborted is written again")
		want[fmt.Sprint("a", i)], want[fmt.Sprint("b", i)] = true, true
	}
	t.Logf("%d of %d groups are committed", len(want)/2, n)
	got := map[string]bool{}
	for _, v := range committedValues(t, c.ListenAddrs(), "t", len(want)) {
		require.False(t, got[v], "%s is there twice", v)
		got[v] = true
	}
	require.Equal(t, want, got)
}

// TestPartitionThatDoesNotStoreHoldsUpNoOtherGroup: its groups wait, and those of their Order behind them; all others
// are written without them.
func TestPartitionThatDoesNotStoreHoldsUpNoOtherGroup(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "stuck", "free"))
	tr := transactor(t, txConfig(c.ListenAddrs(), "id"))
	b := newBook()
	warm := b.group("free k warm", "stuck k warm")
	tr.Write(warm)
	b.has(t, 1)
	stuck := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "stuck", Err: kerr.NotEnoughReplicas, Count: -1})
	const n = 300
	var held, free []*TxGroup
	for i := range n {
		for order := range 3 {
			topic := "free"
			if order == 1 && i == 10 || order == 2 {
				topic = "stuck"
			}
			g := b.group(fmt.Sprintf("%s k%d %d-%d", topic, order, order, i))
			g.Order = order
			if order == 1 && i >= 10 || order == 2 {
				held = append(held, g)
			} else {
				free = append(free, g)
			}
			tr.Write(g)
		}
	}
	eventually(t, func() bool { return b.count() == 1+len(free) }, "what does not go there is written")
	for _, g := range held {
		require.NotContains(t, b.order, g)
	}
	stuck.Remove()
	b.has(t, 1+3*n)
	next := map[string]int{}
	for _, v := range append(committedValues(t, c.ListenAddrs(), "free", len(free)+n-10), committedValues(t, c.ListenAddrs(), "stuck", n+2)...) {
		if order, i, ok := strings.Cut(v, "-"); ok && order != "1" {
			require.Equal(t, fmt.Sprint(next[order]), i, "order %s", order)
			next[order]++
		}
	}
	for i, last := 0, -1; i < len(b.order); i++ { // as they were committed
		if g := b.order[i]; g.Order == 1 {
			_, v, _ := strings.Cut(string(g.Records[0].Value), "-")
			require.Equal(t, fmt.Sprint(last+1), v)
			last++
		}
	}
}

func TestEveryGroupEndsWhenTheTransactorDoes(t *testing.T) {
	c, g := gated(t, kfake.SeedTopics(1, "t"))
	tr, err := NewTransactor(txConfig(c.ListenAddrs(), "id"))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tr.Run(ctx) }() // ends with cancel
	require.NoError(t, tr.Renew(t.Context()))
	g.set(swallows)
	b := newBook()
	for range 100 {
		tr.Write(b.group("t k v"))
	}
	cancel()
	require.NoError(t, <-done)
	b.has(t, 100)
	require.ErrorIs(t, tr.Renew(t.Context()), ErrClosed)
	tr.Write(b.group("t k v"))
	b.has(t, 101)
	for _, g := range b.order {
		require.ErrorIs(t, b.of(g), ErrClosed)
	}
}

func TestFenceEndsWithItsContext(t *testing.T) {
	c, g := gated(t)
	g.set(swallows)
	f, err := NewFencer(testConfig(c.ListenAddrs()))
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, f.Fence(ctx, "id"), context.DeadlineExceeded)
	g.set(passing)
	require.NoError(t, f.Fence(t.Context(), "id"))
	require.NoError(t, f.Fence(t.Context(), "another, never used"))
}

// TestTopicOfWhichNothingIsKnownHoldsUpNoOtherGroup: it is missing, and can't be created for now.
func TestTopicOfWhichNothingIsKnownHoldsUpNoOtherGroup(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t"))
	cannot := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.InvalidReplicationFactor, Count: -1})
	cfg := txConfig(c.ListenAddrs(), "id")
	cfg.CreateTopics = &CreateTopics{Partitions: 1, Replication: 1}
	tr := transactor(t, cfg)
	b := newBook()
	bad, good := b.group("t k v", "new k v"), b.group("t k w")
	tr.Write(bad)
	tr.Write(good)
	b.has(t, 1)
	require.NoError(t, b.of(good))
	require.Same(t, good, b.order[0])
	cannot.Remove()
	b.has(t, 2)
	require.NoError(t, b.of(bad), "it is written when the topic can be created")
	require.Equal(t, []string{"v"}, committedValues(t, c.ListenAddrs(), "new", 1))
}

func TestGroupWithoutRecordsIsDone(t *testing.T) {
	c := fake(t)
	tr := transactor(t, txConfig(c.ListenAddrs(), "id"))
	b := newBook()
	tr.Write(b.group())
	b.has(t, 1)
	require.NoError(t, b.of(b.order[0]))
}

// TestLargeGroupsAreWrittenInSeveralBatches: more of one partition than a batch takes is still one transaction.
func TestLargeGroupsAreWrittenInSeveralBatches(t *testing.T) {
	c := fake(t)
	require.NoError(t, c.CreateTopic("t", 1, map[string]string{"max.message.bytes": "10000"}))
	tr := transactor(t, txConfig(c.ListenAddrs(), "id"))
	b := newBook()
	for range 50 {
		tr.Write(b.group("t k "+strings.Repeat("x", 4000), "t k "+strings.Repeat("y", 9000), "t k z"))
	}
	b.has(t, 50)
	for _, g := range b.order {
		require.NoError(t, b.of(g))
	}
	require.Len(t, committedValues(t, c.ListenAddrs(), "t", 150), 150)
}

func TestTransactorsShareTheirMetrics(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t"))
	reg := prometheus.NewPedanticRegistry()
	b := newBook()
	for _, id := range []string{"one", "two"} {
		cfg := txConfig(c.ListenAddrs(), id)
		cfg.Registerer = reg
		transactor(t, cfg).Write(b.group("t k v"))
	}
	b.has(t, 2)
	faults, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, faults)
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "sluice_kafka_transaction_groups_total" {
			require.Equal(t, 2.0, f.GetMetric()[0].GetCounter().GetValue())
		}
	}
}

func TestTransactorGroupAndFencerCheckTheirConfiguration(t *testing.T) {
	_, err := NewTransactor(TransactorConfig{Timeout: -1})
	require.ErrorContains(t, err, "no brokers")
	require.ErrorContains(t, err, "no transactional id")
	require.ErrorContains(t, err, "negative")
	_, err = NewFencer(Config{})
	require.ErrorContains(t, err, "no brokers")
	_, err = NewGroup(GroupConfig{Heartbeat: time.Second, SessionTimeout: time.Second})
	require.ErrorContains(t, err, "no name or no topics")
	require.ErrorContains(t, err, "less than three heartbeats")
}

// TestTransactionsFollowTheRulesOfBatches: what says nothing about the records refuses none, and what is about the batch
// changes the batch.
func TestTransactionsFollowTheRulesOfBatches(t *testing.T) {
	hour := time.Now().Add(-time.Hour).UnixMilli()
	always := func(*kmsg.RecordBatch) bool { return true }
	for _, f := range []struct {
		err     *kerr.Error
		refuses func(*kmsg.RecordBatch) bool
		most    int
	}{
		{kerr.InvalidTimestamp, func(b *kmsg.RecordBatch) bool { return b.FirstTimestamp < hour }, -1},
		{kerr.UnsupportedCompressionType, func(b *kmsg.RecordBatch) bool { return b.Attributes&7 != 0 }, -1},
		{kerr.PolicyViolation, always, 3},
		{kerr.ThrottlingQuotaExceeded, always, 3},
		{kerr.UnknownServerError, always, 3},
		{kerr.CorruptMessage, always, 5},
		{kerr.OutOfOrderSequenceNumber, always, 1},
	} {
		t.Run(f.err.Message, func(t *testing.T) {
			c := fake(t, kfake.SeedTopics(1, "t"))
			cfg := txConfig(c.ListenAddrs(), "id")
			cfg.Compression = "lz4"
			tr := transactor(t, cfg)
			said := 0
			c.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
				c.KeepControl()
				r := req.(*kmsg.ProduceRequest)
				var b kmsg.RecordBatch
				if err := b.ReadFrom(r.Topics[0].Partitions[0].Records); err != nil {
					t.Errorf("not a batch: %v", err)
				}
				if said == f.most || !f.refuses(&b) {
					return nil, nil, false
				}
				said++
				resp := r.ResponseKind().(*kmsg.ProduceResponse)
				p := kmsg.NewProduceResponseTopicPartition()
				p.ErrorCode, p.BaseOffset = f.err.Code, -1
				topic := kmsg.NewProduceResponseTopic()
				topic.Topic, topic.Partitions = "t", append(topic.Partitions, p)
				resp.Topics = append(resp.Topics, topic)
				return resp, nil, true
			})
			b := newBook()
			for i := range 3 {
				g := &TxGroup{Owner: b}
				for range 20 {
					g.Records = append(g.Records, &TxRecord{Topic: "t", Key: []byte("k"), Value: fmt.Append(nil, i), Timestamp: time.UnixMilli(1_700_000_000_123)})
				}
				tr.Write(g)
			}
			b.has(t, 3)
			for _, g := range b.order {
				require.NoError(t, b.of(g))
			}
			require.Positive(t, said)
			require.Len(t, committedValues(t, c.ListenAddrs(), "t", 60), 60)
		})
	}
}

// TestTransactorSaysWhereItsRecordsAreStuck: a topic that only transactions write to has partitions for the Budget too, or
// one that is stuck would use up what the others of its topic may have.
func TestTransactorSaysWhereItsRecordsAreStuck(t *testing.T) {
	c := fake(t, kfake.SeedTopics(4, "t"))
	p, err := NewProducer(Config{Brokers: c.ListenAddrs()})
	require.NoError(t, err)
	require.Equal(t, Destination{"t", AnyPartition}, p.Budget().Destination("t", []byte("k")))
	cfg := txConfig(c.ListenAddrs(), "id")
	cfg.Budget = p.Budget()
	tr := transactor(t, cfg)
	b := newBook()
	tr.Write(b.group("t k v"))
	b.has(t, 1)
	require.Equal(t, Destination{"t", PartitionOf([]byte("k"), 4)}, p.Budget().Destination("t", []byte("k")))
	require.Equal(t, Destination{"t", AnyPartition}, p.Budget().Destination("t", nil))
}
