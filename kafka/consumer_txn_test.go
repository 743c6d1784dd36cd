package kafka

import (
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

func transact(t testing.TB, k *kfake.Cluster, id string) *kgo.Client {
	t.Helper()
	cl := client(t, k, kgo.TransactionalID(id))
	require.NoError(t, cl.BeginTransaction())
	return cl
}

// TestTransactionOpenAtTheStartIsGivenWhenItCommits: the end of a log is where the first open transaction begins.
func TestTransactionOpenAtTheStartIsGivenWhenItCommits(t *testing.T) {
	k := fake(t, kfake.SeedTopics(2, "t"))
	cl := client(t, k)
	put(t, cl, "t", 0, "old")
	open := transact(t, k, "one")
	put(t, open, "t", 0, "a")
	put(t, cl, "t", 0, "b") // not in it, behind it
	tp := newTape()
	c := follow(t, following(k.ListenAddrs(), tp, "t"))
	positioned(t, c)
	put(t, open, "t", 0, "c")
	put(t, cl, "t", 1, "other")
	tp.has(t, 1)
	require.Equal(t, []string{"other"}, tp.of("t", 1))
	require.Zero(t, c.Lag(), "what can't be had is not late")
	require.NoError(t, open.EndTransaction(t.Context(), kgo.TryCommit))
	tp.has(t, 4)
	require.Equal(t, []string{"a", "b", "c"}, tp.of("t", 0))
	eventually(t, func() bool { return c.Lag() == 0 }, "nothing is left")
}

func TestAbortedTransactionsAreNotGiven(t *testing.T) {
	k := fake(t, kfake.SeedTopics(1, "t"))
	tp := newTape()
	c := follow(t, following(k.ListenAddrs(), tp, "t"))
	positioned(t, c)
	one, two, plain := client(t, k, kgo.TransactionalID("one")), client(t, k, kgo.TransactionalID("two")), client(t, k)
	var want []string
	for n := range 40 {
		require.NoError(t, one.BeginTransaction())
		require.NoError(t, two.BeginTransaction())
		v := strconv.Itoa(n)
		first, second := rand.IntN(2) == 0, rand.IntN(2) == 0
		put(t, one, "t", 0, "one "+v)
		put(t, plain, "t", 0, "plain "+v)
		put(t, two, "t", 0, "two "+v)
		put(t, one, "t", 0, "one again "+v)
		require.NoError(t, one.EndTransaction(t.Context(), kgo.TransactionEndTry(first)))
		put(t, two, "t", 0, "two again "+v)
		require.NoError(t, two.EndTransaction(t.Context(), kgo.TransactionEndTry(second)))
		want = appendIf(want, first, "one "+v)
		want = append(want, "plain "+v)
		want = appendIf(want, second, "two "+v)
		want = appendIf(want, first, "one again "+v)
		want = appendIf(want, second, "two again "+v)
	}
	tp.has(t, len(want))
	require.Equal(t, want, tp.of("t", 0))
	eventually(t, func() bool { return c.Lag() == 0 }, "markers are passed too")
	require.Equal(t, want, tp.of("t", 0))
}

func appendIf(s []string, ok bool, v string) []string {
	if ok {
		return append(s, v)
	}
	return s
}

// TestCommittedGivesWhatWasCommitted compares with a model: any log of producers whose transactions overlap, read from
// any batch on, with the list of aborted transactions that Kafka gives with it.
func TestCommittedGivesWhatWasCommitted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := drawLog(t)
		first := rapid.IntRange(0, len(log.batches)).Draw(t, "first batch")
		block := new(sarama.FetchResponseBlock)
		for _, b := range log.batches[first:] {
			block.RecordsSet = append(block.RecordsSet, &sarama.Records{RecordBatch: b})
		}
		from := int64(0)
		if first < len(log.batches) {
			b := log.batches[first]
			from = b.FirstOffset + rapid.Int64Range(0, int64(b.LastOffsetDelta)).Draw(t, "into it")
		}
		for _, a := range log.aborted {
			if log.ended[a] >= from {
				block.AbortedTransactions = append(block.AbortedTransactions, a)
			}
		}
		var want, got []int64
		for _, b := range log.batches[first:] {
			for _, r := range b.Records {
				if o := b.FirstOffset + r.OffsetDelta; !b.Control && !log.dead[o] && o >= from {
					want = append(want, o)
				}
			}
		}
		for b, r := range committed(block, from) {
			got = append(got, b.FirstOffset+r.OffsetDelta)
		}
		require.Equal(t, want, got)
		if first < len(log.batches) {
			require.Equal(t, log.end, after(block, from))
		}
	})
}

// A drawnLog is a log in which every transaction has ended.
type drawnLog struct {
	batches []*sarama.RecordBatch
	aborted []*sarama.AbortedTransaction
	ended   map[*sarama.AbortedTransaction]int64 // offsets of the markers
	dead    map[int64]bool                       // offsets of aborted records
	end     int64
}

func drawLog(t *rapid.T) drawnLog {
	log := drawnLog{dead: map[int64]bool{}, ended: map[*sarama.AbortedTransaction]int64{}}
	open := map[int64][]int64{} // offsets by producer
	add := func(b *sarama.RecordBatch, records int) {
		b.FirstOffset, b.LastOffsetDelta = log.end, int32(records-1)
		for i := range records {
			b.Records = append(b.Records, &sarama.Record{OffsetDelta: int64(i)})
		}
		log.batches = append(log.batches, b)
		log.end += int64(records)
	}
	end := func(id int64, commit bool) {
		if !commit {
			a := &sarama.AbortedTransaction{ProducerID: id, FirstOffset: open[id][0]}
			log.aborted, log.ended[a] = append(log.aborted, a), log.end
			for _, o := range open[id] {
				log.dead[o] = true
			}
		}
		delete(open, id)
		b := &sarama.RecordBatch{Control: true, IsTransactional: true, ProducerID: id}
		add(b, 1)
		b.Records[0].Key = []byte{0, 0, 0, 0}
		if commit {
			b.Records[0].Key[3] = 1
		}
	}
	for range rapid.IntRange(0, 30).Draw(t, "steps") {
		id := rapid.Int64Range(0, 3).Draw(t, "producer")
		switch {
		case id == 0: // a producer without transactions
			add(&sarama.RecordBatch{ProducerID: 7}, rapid.IntRange(1, 4).Draw(t, "records"))
		case len(open[id]) > 0 && rapid.Bool().Draw(t, "ends"):
			end(id, rapid.Bool().Draw(t, "commits"))
		default:
			n := rapid.IntRange(1, 4).Draw(t, "records")
			for i := range n {
				open[id] = append(open[id], log.end+int64(i))
			}
			add(&sarama.RecordBatch{IsTransactional: true, ProducerID: id}, n)
		}
	}
	for id := int64(1); id <= 3; id++ {
		if len(open[id]) > 0 {
			end(id, rapid.Bool().Draw(t, "commits at last"))
		}
	}
	return log
}
