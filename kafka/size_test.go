package kafka

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// sized makes a record whose batch of its own has exactly so many bytes.
func sized(t testing.TB, size int) *Record {
	t.Helper()
	r := &Record{Key: []byte("k"), Value: noise(size)}
	for r.aloneSize() != size {
		if d := r.aloneSize() - size; d > 0 {
			r.Value = r.Value[:len(r.Value)-d]
		} else { // the number of bytes of a length changed
			r.Key = append(r.Key, make([]byte, -d)...)
		}
	}
	require.Equal(t, size, r.aloneSize())
	return r
}

func TestRecordIsTakenUpToItsTopicsLimitAndNotAbove(t *testing.T) {
	const limit = 20000
	c := fake(t, kfake.SeedTopics(1, "usual"))
	require.NoError(t, c.CreateTopic("small", 1, map[string]string{"max.message.bytes": strconv.Itoa(limit)}))
	require.NoError(t, c.CreateTopic("large", 1, map[string]string{"max.message.bytes": strconv.Itoa(3 << 20)}))
	p := start(t, testConfig(c.ListenAddrs()))
	done := make(counter, 1)
	produce := func(topic string, size int) error {
		r := sized(t, size)
		r.Topic, r.Owner = topic, done
		p.Produce(r)
		return <-done
	}
	require.NoError(t, produce("small", limit))
	require.ErrorIs(t, produce("small", limit+1), ErrTooLarge)
	require.NoError(t, produce("usual", 1<<20))
	require.ErrorIs(t, produce("usual", 2<<20), ErrTooLarge)
	require.NoError(t, produce("large", 3<<20))
	require.ErrorIs(t, produce("large", 3<<20+1), ErrTooLarge)
}

func TestNoBatchExceedsItsTopicsLimit(t *testing.T) {
	for _, codec := range []string{"none", "lz4", "snappy", "zstd", "gzip"} {
		t.Run(codec, func(t *testing.T) {
			const limit = 30000
			c := fake(t)
			require.NoError(t, c.CreateTopic("small", 2, map[string]string{"max.message.bytes": strconv.Itoa(limit)}))
			refused := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Observe: true, Count: -1, When: func(req kmsg.Request) bool {
				for _, topic := range req.(*kmsg.ProduceRequest).Topics {
					for _, part := range topic.Partitions {
						if len(part.Records) > limit {
							return true
						}
					}
				}
				return false
			}})
			cfg := testConfig(c.ListenAddrs())
			cfg.Compression = codec
			p := start(t, cfg)
			done := make(counter, 3000)
			const n = 600
			for i := range n {
				p.Produce(&Record{Topic: "small", Key: []byte{byte(i)}, Value: noise(i * 45), Owner: done})
			}
			for range n {
				require.NoError(t, <-done)
			}
			require.Zero(t, refused.Hits())
		})
	}
}

func TestLimitThatMayNotBeReadIsFoundOut(t *testing.T) {
	const limit = 50000
	c := fake(t)
	require.NoError(t, c.CreateTopic("t", 1, map[string]string{"max.message.bytes": strconv.Itoa(limit)}))
	c.ControlKey(int16(kmsg.DescribeConfigs), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		resp := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
		for _, r := range req.(*kmsg.DescribeConfigsRequest).Resources {
			resp.Resources = append(resp.Resources, kmsg.DescribeConfigsResponseResource{ResourceType: r.ResourceType, ResourceName: r.ResourceName, ErrorCode: kerr.TopicAuthorizationFailed.Code})
		}
		return resp, nil, true
	})
	p := start(t, testConfig(c.ListenAddrs()))
	done := make(counter, 1)
	p.Produce(&Record{Topic: "t", Value: []byte("x"), Owner: done})
	require.NoError(t, <-done)
	crowd := make(counter, 20)
	for range 20 {
		p.Produce(&Record{Topic: "t", Value: noise(10000), Owner: crowd})
	}
	for range 20 {
		require.NoError(t, <-crowd, "nobody is refused for its neighbours")
	}
	small, large := newLedger(), make(counter, 1)
	p.Produce(&Record{Topic: "t", Value: noise(2 * limit), Owner: large})
	for i := range 50 {
		r := small.record(i, "t", "k")
		r.Value = append(r.Value, noise(20000)...)
		p.Produce(r)
	}
	require.ErrorIs(t, <-large, ErrTooLarge)
	eventually(t, func() bool { return small.count() == 50 }, "the others end")
	require.Zero(t, small.errs())
}

func TestInnocentRecordIsNotRefusedForItsNeighbour(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t"))
	// A broker with a validator: it refuses whole batches.
	c.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		preq := req.(*kmsg.ProduceRequest)
		if !bytes.Contains(preq.Topics[0].Partitions[0].Records, []byte("guilty")) {
			return nil, nil, false
		}
		resp := preq.ResponseKind().(*kmsg.ProduceResponse)
		resp.Topics = []kmsg.ProduceResponseTopic{{Topic: "t", Partitions: []kmsg.ProduceResponseTopicPartition{{ErrorCode: kerr.InvalidRecord.Code}}}}
		return resp, nil, true
	})
	p := start(t, testConfig(c.ListenAddrs()))
	innocent, guilty := make(counter, 100), make(counter, 100)
	for range 5 { // a device sends again what was refused
		for i := range 100 {
			p.Produce(&Record{Topic: "t", Value: fmt.Append(nil, "fine", i), Owner: innocent})
			if i%30 == 20 {
				p.Produce(&Record{Topic: "t", Value: []byte("guilty"), Owner: guilty})
			}
		}
		for range 3 {
			require.ErrorIs(t, <-guilty, ErrInvalidRecord)
		}
		for range 100 {
			require.NoError(t, <-innocent)
		}
	}
	require.Len(t, read(t, c.ListenAddrs(), "t", 500)[0], 500)
}

func TestRecordWithoutKeyForACompactedTopicIsRefusedAlone(t *testing.T) {
	c := fake(t)
	require.NoError(t, c.CreateTopic("compacted", 1, map[string]string{"cleanup.policy": "compact"}))
	p := start(t, testConfig(c.ListenAddrs()))
	with, without := make(counter, 10), make(counter, 10)
	for range 10 {
		p.Produce(&Record{Topic: "compacted", Key: []byte("k"), Owner: with})
		p.Produce(&Record{Topic: "compacted", Owner: without})
	}
	for range 10 {
		require.NoError(t, <-with)
		require.ErrorIs(t, <-without, ErrInvalidRecord)
	}
}

func TestErrorsAreVerdictsOnlyWhenTheyAreAboutTheRecord(t *testing.T) {
	f := func(err sarama.KError, want error) {
		t.Helper()
		got := recordVerdict(err)
		require.ErrorIs(t, got, want)
		require.ErrorIs(t, got, err)
		require.Equal(t, want != ErrUncertain, Final(got))
	}
	f(sarama.ErrMessageSizeTooLarge, ErrTooLarge)
	f(sarama.ErrMessageSetSizeTooLarge, ErrTooLarge)
	f(sarama.ErrInvalidRecord, ErrInvalidRecord)
	f(sarama.ErrTopicAuthorizationFailed, ErrNotAuthorized)
	f(sarama.ErrInvalidTopic, ErrInvalidRecord)
	for _, err := range []sarama.KError{sarama.ErrInvalidTimestamp, sarama.ErrPolicyViolation, sarama.ErrUnknown, sarama.ErrRequestTimedOut,
		sarama.ErrUnknownTopicOrPartition, sarama.ErrOutOfOrderSequenceNumber, sarama.ErrUnsupportedCompressionType, sarama.ErrThrottlingQuotaExceeded} {
		f(err, ErrUncertain)
	}
	require.False(t, Final(ErrClosed))
	require.False(t, Final(nil))
	require.True(t, Final(&MissingTopicsError{[]string{"a"}}))
}

// TestABatchIsNoLargerThanARequest: a topic's limit may be higher than what sarama encodes.
func TestABatchIsNoLargerThanARequest(t *testing.T) {
	p, s := byHand(t, 1)
	p.mu.Lock()
	tp := p.topics["t"]
	state := tp.state
	state.limit = math.MaxInt32
	p.openTopic(tp, state, false, 0)
	p.mu.Unlock()
	for range 10 {
		p.Produce(&Record{Topic: "t", Value: make([]byte, 1<<20), Owner: discard{}})
	}
	p.Produce(&Record{Topic: "t", Value: make([]byte, 2*mostRequest), Owner: discard{}})
	require.Len(t, s.nextByHand().batches[0].records, 3)
	p.mu.Lock()
	defer p.mu.Unlock()
	last := tp.parts[0].waiting[len(tp.parts[0].waiting)-1]
	require.Len(t, last.records, 1, "a larger one goes alone")
}

// TestWhatCannotBeEncodedDelaysNoOther: it is divided, or refused, and the connection stays.
func TestWhatCannotBeEncodedDelaysNoOther(t *testing.T) {
	before := sarama.MaxRequestSize
	t.Cleanup(func() { sarama.MaxRequestSize = before })
	sarama.MaxRequestSize = 300 << 10
	c := fake(t, kfake.SeedTopics(3, "t"))
	cfg := testConfig(c.ListenAddrs())
	cfg.Linger = 50 * time.Millisecond
	p := start(t, cfg)
	l := newLedger()
	const n = 60
	for i := range n {
		r := l.record(i, "t", fmt.Sprint(i%5))
		r.Value = append(r.Value, noise(50000)...)
		p.Produce(r)
	}
	eventually(t, func() bool { return l.count() == n }, "all end")
	l.once(t, n)
	require.Zero(t, l.errs())
	inOrder(t, read(t, c.ListenAddrs(), "t", n))
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.brokers {
		require.Zero(t, testutil.ToFloat64(b.m.lost))
	}
}
