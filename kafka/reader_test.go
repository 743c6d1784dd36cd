package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func reader(t testing.TB, brokers []string) *Reader {
	t.Helper()
	r, err := NewReader(testConfig(brokers))
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r
}

// collect reads a piece and gives the values.
func collect(t testing.TB, r *Reader, topic string, partition int32, from int64, maxBytes int32) (values []string, next int64) {
	t.Helper()
	next, err := r.Read(t.Context(), topic, partition, from, maxBytes, func(f *Fetched) bool {
		if f.Offset < from || f.Topic != topic || f.Partition != partition {
			t.Errorf("got %s/%d at %d", f.Topic, f.Partition, f.Offset)
		}
		values = append(values, string(f.Value))
		return true
	})
	require.NoError(t, err)
	return values, next
}

// all reads from an offset to the end.
func all(t testing.TB, r *Reader, topic string, partition int32, from int64, maxBytes int32) (values []string, end int64) {
	t.Helper()
	for range 100_000 {
		more, next := collect(t, r, topic, partition, from, maxBytes)
		if values = append(values, more...); next == from {
			return values, next
		}
		from = next
	}
	t.Fatal("it has no end")
	return nil, 0
}

func TestReadGivesEveryRecordInOrderFromAnyOffset(t *testing.T) {
	k := fake(t, kfake.NumBrokers(3), kfake.SeedTopics(4, "t"))
	cl := client(t, k)
	for p := range 4 {
		for n := 0; n < 60; n += 6 {
			put(t, cl, "t", p, numbers(n, n+5)...)
		}
	}
	r := reader(t, k.ListenAddrs())
	for p := range int32(4) {
		for _, maxBytes := range []int32{-1, 0, 1, 200, 1 << 20} {
			for _, from := range []int64{0, 1, 5, 6, 58, 59} {
				values, end := all(t, r, "t", p, from, maxBytes)
				require.Equal(t, numbers(int(from), 59), values)
				require.EqualValues(t, 60, end)
			}
		}
	}
}

func TestReadAtTheEndAndAfterItGivesNothing(t *testing.T) {
	k := fake(t, kfake.SeedTopics(1, "t"))
	r := reader(t, k.ListenAddrs())
	for _, from := range []int64{0, 100} {
		values, next := collect(t, r, "t", 0, from, 1000)
		require.Empty(t, values)
		require.Equal(t, from, next)
	}
}

// TestReadTakesNothingForTheEndThatIsNot: a new leader does not show all that it has until the others have fetched from it, and
// one that was replaced and does not know has never had what came since.
func TestReadTakesNothingForTheEndThatIsNot(t *testing.T) {
	for name, answer := range map[string]*kerr.Error{"a new leader": nil, "a replaced one": kerr.OffsetOutOfRange} {
		t.Run(name, func(t *testing.T) {
			k := fake(t, kfake.SeedTopics(1, "t"))
			put(t, client(t, k), "t", 0, numbers(0, 9)...)
			hide(k, 5, answer)
			r := reader(t, k.ListenAddrs())
			for _, from := range []int64{5, 9} {
				next, err := r.Read(t.Context(), "t", 0, from, 1000, func(*Fetched) bool { t.Error("a record"); return true })
				require.ErrorIs(t, err, errHidden)
				require.Equal(t, from, next)
			}
			fault := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: "t", Err: kerr.OffsetNotAvailable, Count: -1})
			_, err := r.Read(t.Context(), "t", 0, 9, 1000, nil)
			require.Error(t, err)
			fault.Remove()
			values, next := collect(t, r, "t", 0, 10, 1000)
			require.Empty(t, values)
			require.EqualValues(t, 10, next)
		})
	}
}

// hide has fetches from an offset on answered as by a leader that shows nothing from there on; nil: it has that, else not.
func hide(k *kfake.Cluster, from int64, answer *kerr.Error) {
	k.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		fetch := req.(*kmsg.FetchRequest)
		if len(fetch.Topics) == 0 || fetch.Topics[0].Partitions[0].FetchOffset < from {
			return nil, nil, false
		}
		resp := fetch.ResponseKind().(*kmsg.FetchResponse)
		topic, part := kmsg.NewFetchResponseTopic(), kmsg.NewFetchResponseTopicPartition()
		topic.Topic, topic.TopicID = fetch.Topics[0].Topic, fetch.Topics[0].TopicID
		part.HighWatermark, part.LastStableOffset, part.LogStartOffset, part.RecordBatches = from, from, 0, []byte{}
		if answer != nil {
			part.ErrorCode, part.HighWatermark, part.LastStableOffset = answer.Code, -1, -1
		}
		topic.Partitions = append(topic.Partitions, part)
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
}

func TestReadStopsWhereItsCallerDoes(t *testing.T) {
	k := fake(t, kfake.SeedTopics(1, "t"))
	put(t, client(t, k), "t", 0, numbers(0, 9)...)
	var seen []int64
	next, err := reader(t, k.ListenAddrs()).Read(t.Context(), "t", 0, 2, 1<<20, func(f *Fetched) bool {
		seen = append(seen, f.Offset)
		return f.Offset < 5
	})
	require.NoError(t, err)
	require.EqualValues(t, 5, next, "the record that was not taken comes again")
	require.Equal(t, []int64{2, 3, 4, 5}, seen)
}

// TestReadGivesOnlyWhatIsCommittedAndPassesTheRest: markers, aborted transactions and what was compacted away.
func TestReadGivesOnlyWhatIsCommittedAndPassesTheRest(t *testing.T) {
	k := fake(t)
	require.NoError(t, k.CreateTopic("t", 1, map[string]string{"cleanup.policy": "compact"}))
	plain, tx := client(t, k), client(t, k, kgo.TransactionalID("tx"))
	for n := range 20 {
		produceAll(t, plain, keyed("t", 0, "a", "plain "+strconv.Itoa(n)))
		require.NoError(t, tx.BeginTransaction())
		produceAll(t, tx, keyed("t", 0, "b", strconv.Itoa(n)))
		require.NoError(t, tx.EndTransaction(t.Context(), kgo.TransactionEndTry(n%2 == 0)))
	}
	k.Compact()
	r := reader(t, k.ListenAddrs())
	start, err := r.Start(t.Context(), "t", 0)
	require.NoError(t, err)
	for _, maxBytes := range []int32{1, 1 << 20} {
		values, end := all(t, r, "t", 0, start, maxBytes)
		require.Equal(t, []string{"18", "plain 19"}, values)
		require.Equal(t, stable(t, plain, "t", 0), end)
	}
	require.NoError(t, tx.BeginTransaction())
	produceAll(t, tx, keyed("t", 0, "c", "open"))
	end := stable(t, plain, "t", 0)
	values, next := collect(t, r, "t", 0, end, 1<<20)
	require.Empty(t, values, "it is not decided")
	require.Equal(t, end, next)
	require.NoError(t, tx.EndTransaction(t.Context(), kgo.TryCommit))
	values, next = all(t, r, "t", 0, end, 1<<20)
	require.Equal(t, []string{"open"}, values)
	require.Equal(t, end+2, next)
}

func TestReadBelowTheFirstRecordSaysThatItIsGone(t *testing.T) {
	k := fake(t, kfake.SeedTopics(1, "t"))
	cl := client(t, k)
	put(t, cl, "t", 0, numbers(0, 9)...)
	r := reader(t, k.ListenAddrs())
	start, err := r.Start(t.Context(), "t", 0)
	require.NoError(t, err)
	require.Zero(t, start)
	to := kadm.Offsets{}
	to.AddOffset("t", 0, 4, -1)
	_, err = kadm.NewClient(cl).DeleteRecords(t.Context(), to)
	require.NoError(t, err)
	next, err := r.Read(t.Context(), "t", 0, 3, 1<<20, func(*Fetched) bool { t.Error("a record"); return true })
	require.ErrorIs(t, err, ErrOffsetGone)
	require.EqualValues(t, 3, next)
	start, err = r.Start(t.Context(), "t", 0)
	require.NoError(t, err)
	require.EqualValues(t, 4, start)
	values, _ := all(t, r, "t", 0, start, 1<<20)
	require.Equal(t, numbers(4, 9), values)
}

// TestReadGivesABatchLargerThanItsLimit: a caller with a small limit would be stuck before it.
func TestReadGivesABatchLargerThanItsLimit(t *testing.T) {
	k := fake(t, kfake.SeedTopics(1, "t"))
	big := string(make([]byte, 700<<10))
	put(t, client(t, k), "t", 0, "small", big, "after")
	values, end := all(t, reader(t, k.ListenAddrs()), "t", 0, 0, 10)
	require.Equal(t, []string{"small", big, "after"}, values)
	require.EqualValues(t, 3, end)
}

func TestReadFindsTheNewLeader(t *testing.T) {
	k := fake(t, kfake.NumBrokers(3), kfake.SeedTopics(1, "t"))
	put(t, client(t, k), "t", 0, numbers(0, 9)...)
	r := reader(t, k.ListenAddrs())
	for range 6 {
		eventually(t, func() bool {
			_, err := r.Read(t.Context(), "t", 0, 0, 1<<20, func(*Fetched) bool { return true })
			return err == nil
		}, "it is read again")
		require.NoError(t, k.MoveTopicPartition("t", 0, (k.LeaderFor("t", 0)+1)%3))
	}
}

// TestATopicIsMissingWhenTwoBrokersSaySo: one that has not heard of it yet would take a session's positions from it.
func TestATopicIsMissingWhenTwoBrokersSaySo(t *testing.T) {
	k := fake(t, kfake.NumBrokers(3), kfake.SeedTopics(1, "t"))
	put(t, client(t, k), "t", 0, "v")
	r := reader(t, k.ListenAddrs())
	behind := func(answers int) {
		k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "t", Err: kerr.UnknownTopicOrPartition, Count: answers})
	}
	behind(1)
	id, err := r.TopicID(t.Context(), "t")
	require.NoError(t, err)
	require.NotEmpty(t, id)
	r.forget("t")
	behind(1)
	_, err = r.Start(t.Context(), "t", 0)
	require.NoError(t, err)
	behind(2)
	_, err = r.TopicID(t.Context(), "t")
	require.ErrorIs(t, err, ErrTopicMissing)
}

func TestReadSaysWhatWentWrong(t *testing.T) {
	k, g := gated(t, kfake.SeedTopics(1, "t"))
	r := reader(t, k.ListenAddrs())
	none := func(*Fetched) bool { return true }
	for _, at := range []struct {
		topic     string
		partition int32
		err       error
	}{{"missing", 0, ErrTopicMissing}, {"t", 1, errNoLeader}, {"t", -1, errNoLeader}} {
		_, err := r.Read(t.Context(), at.topic, at.partition, 0, 1000, none)
		require.ErrorIs(t, err, at.err)
		require.ErrorContains(t, err, fmt.Sprintf("partition %d of %s", at.partition, at.topic))
		_, err = r.Start(t.Context(), at.topic, at.partition)
		require.ErrorIs(t, err, at.err)
	}
	k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "t", Err: kerr.TopicAuthorizationFailed, Count: 1})
	next, err := r.Read(t.Context(), "t", 0, 7, 1000, none)
	require.ErrorContains(t, err, "authorized")
	require.EqualValues(t, 7, next)
	_, err = r.Read(expired(t), "t", 0, 0, 1000, none)
	require.ErrorIs(t, err, context.Canceled)
	g.set(down)
	_, err = r.Read(t.Context(), "t", 0, 0, 1000, none)
	require.Error(t, err)
	g.set(passing)
	eventually(t, func() bool {
		_, err := r.Read(t.Context(), "t", 0, 0, 1000, none)
		return err == nil
	}, "its connections are made anew")
	r.Close()
	_, err = r.Read(t.Context(), "t", 0, 0, 1000, none)
	require.ErrorIs(t, err, ErrClosed)
}

// TestCloseEndsWhatIsUnderWay: its callers may wait for a broker that does not answer.
func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	k, g := gated(t, kfake.SeedTopics(1, "t"))
	put(t, client(t, k), "t", 0, "v")
	cfg := testConfig(k.ListenAddrs())
	r, err := NewReader(cfg)
	require.NoError(t, err)
	_, _ = all(t, r, "t", 0, 0, 1000)
	g.set(swallows)
	errs := make(chan error, 10)
	for range cap(errs) {
		go func() { // ends with Close
			_, err := r.Read(t.Context(), "t", 0, 0, 1000, func(*Fetched) bool { return true })
			errs <- err
		}()
	}
	r.Close()
	for range cap(errs) {
		require.Error(t, <-errs)
	}
}

// TestManyReadAtOnce: of many partitions, some leave, and none gets what another asked for.
func TestManyReadAtOnce(t *testing.T) {
	const partitions, each = 12, 50
	k := fake(t, kfake.NumBrokers(3), kfake.SeedTopics(partitions, "t"))
	cl := client(t, k)
	for p := range partitions {
		put(t, cl, "t", p, numbers(p*1000, p*1000+each-1)...)
	}
	r := reader(t, k.ListenAddrs())
	var work sync.WaitGroup
	for n := range 120 {
		p := int32(n % partitions)
		work.Go(func() {
			if n%3 == 0 {
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				if _, err := r.Read(ctx, "t", p, 0, 100, func(*Fetched) bool { return true }); !errors.Is(err, context.Canceled) && err != nil {
					t.Error(err)
				}
				return
			}
			want, fails := int(p)*1000, 0
			for from := int64(0); from < each; {
				next, err := r.Read(t.Context(), "t", p, from, 300, func(f *Fetched) bool {
					if string(f.Value) != strconv.Itoa(want) {
						t.Errorf("got %s in place of %d", f.Value, want)
					}
					want++
					return true
				})
				if fails++; err != nil && fails < 100 {
					continue // those who connect at once may fail together
				}
				if err != nil || next == from {
					t.Errorf("at %d of partition %d: %v", from, p, err)
					return
				}
				from = next
			}
		})
	}
	work.Wait()
}

// TestPartitionsAndWrittenAreAsTheyAreNow: partitions that were added too, and what an open transaction holds back.
func TestPartitionsAndWrittenAreAsTheyAreNow(t *testing.T) {
	k := fake(t, kfake.SeedTopics(2, "t"))
	cl, tx := client(t, k), client(t, k, kgo.TransactionalID("tx"))
	r := reader(t, k.ListenAddrs())
	put(t, cl, "t", 1, "a", "b")
	require.NoError(t, tx.BeginTransaction())
	produceAll(t, tx, keyed("t", 1, "k", "held back"))
	n, err := r.Partitions(t.Context(), "t")
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	end, err := r.Written(t.Context(), "t", 1)
	require.NoError(t, err)
	require.EqualValues(t, 3, end)
	values, _ := all(t, r, "t", 1, 0, 1<<20)
	require.Equal(t, []string{"a", "b"}, values)
	require.NoError(t, tx.EndTransaction(t.Context(), kgo.TryAbort))

	_, err = kadm.NewClient(cl).CreatePartitions(t.Context(), 3, "t")
	require.NoError(t, err)
	n, err = r.Partitions(t.Context(), "t")
	require.NoError(t, err)
	require.EqualValues(t, 5, n)
	end, err = r.Written(t.Context(), "t", 4)
	require.NoError(t, err)
	require.Zero(t, end)
	_, err = r.Partitions(t.Context(), "missing")
	require.ErrorIs(t, err, ErrTopicMissing)
	_, err = r.Written(t.Context(), "missing", 0)
	require.ErrorIs(t, err, ErrTopicMissing)
}
