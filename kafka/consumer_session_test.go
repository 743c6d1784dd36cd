package kafka

import (
	"fmt"
	"math"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestFetchesNameOnlyWhatIsNew: with many partitions and one record at a time, that is what fetching costs.
func TestFetchesNameOnlyWhatIsNew(t *testing.T) {
	const parts = 50
	k := fake(t, kfake.SeedTopics(parts, "t"))
	var fetches, named atomic.Int64
	k.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		fetches.Add(1)
		for _, topic := range req.(*kmsg.FetchRequest).Topics {
			named.Add(int64(len(topic.Partitions)))
		}
		return nil, nil, false
	})
	tp := newTape()
	positioned(t, follow(t, following(k.ListenAddrs(), tp, "t")))
	cl := client(t, k)
	const n = 200
	for i := range n {
		put(t, cl, "t", i%parts, strconv.Itoa(i))
		tp.has(t, i+1)
	}
	require.GreaterOrEqual(t, fetches.Load(), int64(n))
	require.Less(t, named.Load(), int64(n+5*parts), "of %d fetches", fetches.Load())
}

// TestSessionThatTheBrokerForgetsIsBegunAnew: it has room for one, and there are three consumers.
func TestSessionThatTheBrokerForgetsIsBegunAnew(t *testing.T) {
	k := fake(t, kfake.SeedTopics(2, "t"), kfake.BrokerConfigs(map[string]string{"max.incremental.fetch.session.cache.slots": "1"}))
	var tapes []*tape
	for range 3 {
		tp := newTape()
		c := follow(t, following(k.ListenAddrs(), tp, "t"))
		positioned(t, c)
		tapes = append(tapes, tp)
		defer func() { require.Zero(t, counted(c.m.errors), "it is no error") }()
	}
	cl := client(t, k)
	for n := 1; n <= 100; n++ {
		put(t, cl, "t", n%2, strconv.Itoa(n))
	}
	for _, tp := range tapes {
		tp.has(t, 100)
	}
}

func TestSessionTellsChangesAndBeginsAnewWithoutAPartition(t *testing.T) {
	a, b := newFollower("t", "", 0, 0), newFollower("t", "", 1, 0)
	at := func(p *follower, offset int64) place { return place{p, offset, fetchPart, 0} }
	var s fetchSession
	step := func(id, wantID, wantEpoch int32, want []place, fetch ...place) {
		t.Helper()
		require.Equal(t, want, s.news(fetch))
		require.Equal(t, []int32{wantID, wantEpoch}, []int32{s.id, s.epoch})
		s.next(id)
	}
	step(7, 0, 0, []place{at(a, 1)}, at(a, 1))
	step(7, 7, 1, nil, at(a, 1))
	step(7, 7, 2, []place{at(b, 5)}, at(a, 1), at(b, 5))
	step(7, 7, 3, []place{at(a, 2)}, at(a, 2), at(b, 5))
	step(8, 7, 0, []place{at(b, 5)}, at(b, 5))                                      // the old id ends the old session
	step(0, 8, 1, []place{at(a, 2)}, at(a, 2), at(b, 5))                            // the broker has no room any more
	step(9, 0, 0, []place{at(a, 2), at(b, 5)}, at(a, 2), at(b, 5))                  // and is asked again
	step(9, 9, 1, []place{{b, 5, fetchMax, 0}}, at(a, 2), place{b, 5, fetchMax, 0}) // a limit is news too
	s.epoch = math.MaxInt32 - 1
	step(9, 9, math.MaxInt32-1, nil, at(a, 2), place{b, 5, fetchMax, 0})
	require.Zero(t, s.epoch)
}

// TestWhatIsNotGivenIsAskedForWithALargerLimit: a batch that is larger than the limit, behind those of others.
func TestWhatIsNotGivenIsAskedForWithALargerLimit(t *testing.T) {
	c, err := NewConsumer(ConsumerConfig{Config: testConfig([]string{"127.0.0.1:1"}), Topics: []string{"t"}, Handle: func(*Fetched) {}})
	require.NoError(t, err)
	p := newFollower("t", "", 0, 10)
	empty := &sarama.FetchResponseBlock{LastStableOffset: 11}
	for _, want := range []int32{fetchMax, fetchMax} {
		require.False(t, c.accept(t.Context(), p, empty))
		require.Equal(t, want, p.limit)
		require.EqualValues(t, 10, p.next)
	}
	full := &sarama.FetchResponseBlock{LastStableOffset: 12, RecordsSet: []*sarama.Records{{RecordBatch: &sarama.RecordBatch{
		FirstOffset: 10, LastOffsetDelta: 1, Records: []*sarama.Record{{}, {OffsetDelta: 1}}}}}}
	require.True(t, c.accept(t.Context(), p, full))
	require.EqualValues(t, fetchPart, p.limit)
	require.EqualValues(t, 12, p.next)
	c.work.Wait()
	require.Equal(t, 2.0, counted(c.m.handled))
	require.False(t, c.accept(t.Context(), p, &sarama.FetchResponseBlock{LastStableOffset: 12}), "nothing is there")
	require.EqualValues(t, fetchPart, p.limit)
}

// TestAnswerCountsOnlyWhereItWasAskedFor: two fetchers may have asked, when a leader has moved.
func TestAnswerCountsOnlyWhereItWasAskedFor(t *testing.T) {
	c, err := NewConsumer(ConsumerConfig{Config: testConfig([]string{"127.0.0.1:1"}), Topics: []string{"t"}, Handle: func(*Fetched) {}})
	require.NoError(t, err)
	p, f := newFollower("t", "", 0, 0), &fetcher{c: c}
	w := plan{fetch: []place{{p: p, offset: 0}}}
	s := spanOf(10)
	answer := &sarama.FetchResponse{Blocks: map[string]map[int32]*sarama.FetchResponseBlock{"t": {0: s.block}}}
	handled := func(want float64) {
		t.Helper()
		f.deliver(t.Context(), w, answer)
		c.work.Wait()
		require.Equal(t, want, counted(c.m.handled))
	}
	handled(0) // not settled: it may be another topic's
	p.settled = true
	handled(10)
	handled(10)
	require.EqualValues(t, 10, p.next)
	s.block.Err = sarama.ErrOffsetOutOfRange
	handled(10)
	require.False(t, p.lost, "what was asked for is not where it is")
	w.fetch[0].offset = 10
	handled(10)
	require.True(t, p.lost)
}

// TestRecordsOfTheOldFormatArePassedAndCounted: they can't be read, and must not be stood before for ever.
func TestRecordsOfTheOldFormatArePassedAndCounted(t *testing.T) {
	c, err := NewConsumer(ConsumerConfig{Config: testConfig([]string{"127.0.0.1:1"}), Topics: []string{"t"}, Handle: func(*Fetched) {}})
	require.NoError(t, err)
	p := newFollower("t", "", 0, 10)
	old := &sarama.FetchResponseBlock{LastStableOffset: 15, RecordsSet: []*sarama.Records{{MsgSet: &sarama.MessageSet{Messages: []*sarama.MessageBlock{{Offset: 10}, {Offset: 14}}}}}}
	require.True(t, c.accept(t.Context(), p, old))
	c.work.Wait()
	require.EqualValues(t, 15, p.next)
	require.EqualValues(t, 15, p.handled.Load())
	require.Equal(t, 5.0, counted(c.m.gapRecords))
}

// spanOf makes a span of n records with a header each.
func spanOf(n int) span {
	b := &sarama.RecordBatch{LastOffsetDelta: int32(n - 1)}
	for i := range n {
		b.Records = append(b.Records, &sarama.Record{OffsetDelta: int64(i), Key: []byte("k"), Value: []byte(fmt.Sprint(i)),
			Headers: []*sarama.RecordHeader{{Key: []byte("h"), Value: []byte("v")}}})
	}
	return span{block: &sarama.FetchResponseBlock{RecordsSet: []*sarama.Records{{RecordBatch: b}}}, next: int64(n)}
}

// TestHandlingARecordAllocatesNothing: what there is belongs to the span.
func TestHandlingARecordAllocatesNothing(t *testing.T) {
	c, err := NewConsumer(ConsumerConfig{Config: testConfig([]string{"127.0.0.1:1"}), Topics: []string{"t"}, Handle: func(*Fetched) {}})
	require.NoError(t, err)
	p := newFollower("t", "", 0, 0)
	allocs := func(s span) float64 { return testing.AllocsPerRun(100, func() { c.handle(t.Context(), p, s, 0) }) }
	one, many := spanOf(1), spanOf(1000)
	require.Equal(t, allocs(one), allocs(many))
	require.LessOrEqual(t, allocs(one), 3.0)
}

func BenchmarkHandle(b *testing.B) {
	c, err := NewConsumer(ConsumerConfig{Config: testConfig([]string{"127.0.0.1:1"}), Topics: []string{"t"}, Handle: func(*Fetched) {}})
	require.NoError(b, err)
	p, s := newFollower("t", "", 0, 0), spanOf(1000)
	b.ReportAllocs()
	for b.Loop() {
		c.handle(b.Context(), p, s, 0)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/record")
}
