package kafka

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A logBook is what a producer logged.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBook) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(line)
}

// count gives how many lines have a text.
func (b *logBook) count(text string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range bytes.Lines(b.text.Bytes()) {
		if bytes.Contains(line, []byte(text)) {
			n++
		}
	}
	return n
}

// TestAnswersThatAreNoVerdictMakeRecordsWait: whatever Kafka says of itself, a quota, a policy or our clock, no record is
// refused or left open for it, and all are stored once and in order when it is over.
func TestAnswersThatAreNoVerdictMakeRecordsWait(t *testing.T) {
	for _, e := range []*kerr.Error{kerr.UnknownServerError, kerr.ThrottlingQuotaExceeded, kerr.PolicyViolation, kerr.NotEnoughReplicas,
		kerr.NotEnoughReplicasAfterAppend, kerr.RequestTimedOut, kerr.KafkaStorageError, kerr.LeaderNotAvailable, kerr.NotLeaderForPartition,
		kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch, kerr.InvalidTimestamp, kerr.UnsupportedCompressionType, kerr.UnsupportedForMessageFormat,
		kerr.NetworkException, kerr.BrokerNotAvailable, kerr.InvalidRequest} {
		t.Run(e.Message, func(t *testing.T) {
			t.Parallel()
			c := fake(t, kfake.SeedTopics(2, "t"))
			var log logBook
			cfg := testConfig(c.ListenAddrs())
			cfg.Compression, cfg.Logger = "lz4", zerolog.New(&log)
			p := start(t, cfg)
			l := newLedger()
			p.Produce(l.record(0, "t", "k"))
			eventually(t, func() bool { return l.count() == 1 }, "it flows")
			c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "t", Err: e, Count: 4})
			const n = 300
			for i := 1; i < n; i++ {
				p.Produce(l.record(i, "t", fmt.Sprint(i%5)))
			}
			eventually(t, func() bool { return l.count() == n }, "all end")
			l.once(t, n)
			require.Zero(t, l.errs())
			inOrder(t, read(t, c.ListenAddrs(), "t", n))
			switch e {
			case kerr.PolicyViolation, kerr.InvalidTimestamp, kerr.UnsupportedCompressionType, kerr.UnsupportedForMessageFormat, kerr.NotEnoughReplicas:
				require.Equal(t, 1, log.count(`"kafka_topic":"t"`), "a setting is the cause: %s", log.text.String())
			}
		})
	}
}

// refusing answers Produce requests for partition 0 of topic t with f's answer, where it gives one.
func refusing(c *kfake.Cluster, f func(records []byte) *kmsg.ProduceResponseTopicPartition) {
	c.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		preq := req.(*kmsg.ProduceRequest)
		answer := f(preq.Topics[0].Partitions[0].Records)
		if answer == nil {
			return nil, nil, false
		}
		resp := preq.ResponseKind().(*kmsg.ProduceResponse)
		resp.Topics = []kmsg.ProduceResponseTopic{{Topic: "t", Partitions: []kmsg.ProduceResponseTopicPartition{*answer}}}
		return resp, nil, true
	})
}

// TestRecordsThatKafkaNamesAreRefusedAndNoOther: it names them by their place in the batch (KIP-467).
func TestRecordsThatKafkaNamesAreRefusedAndNoOther(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t"))
	var mu sync.Mutex
	requests := 0
	refusing(c, func(records []byte) *kmsg.ProduceResponseTopicPartition {
		mu.Lock()
		requests++
		mu.Unlock()
		var batch kmsg.RecordBatch
		if batch.ReadFrom(records) != nil {
			return nil
		}
		answer := &kmsg.ProduceResponseTopicPartition{ErrorCode: kerr.InvalidRecord.Code}
		left := batch.Records
		for i := range batch.NumRecords {
			var r kmsg.Record
			if r.ReadFrom(left) != nil {
				return nil
			}
			if string(r.Value) == "guilty" {
				answer.ErrorRecords = append(answer.ErrorRecords, kmsg.ProduceResponseTopicPartitionErrorRecord{RelativeOffset: i})
			}
			whole := r.AppendTo(nil)
			left = left[len(whole):]
		}
		if len(answer.ErrorRecords) == 0 {
			return nil
		}
		return answer
	})
	p := start(t, testConfig(c.ListenAddrs()))
	innocent, guilty := make(counter, 200), make(counter, 10)
	for i := range 200 {
		p.Produce(&Record{Topic: "t", Value: fmt.Appendf(nil, "fine %d", i), Owner: innocent})
		if i%20 == 7 {
			p.Produce(&Record{Topic: "t", Value: []byte("guilty"), Owner: guilty})
		}
	}
	for range 10 {
		require.ErrorIs(t, <-guilty, ErrInvalidRecord)
	}
	for range 200 {
		require.NoError(t, <-innocent)
	}
	mu.Lock()
	defer mu.Unlock()
	require.Less(t, requests, 2*10+10, "they are not looked for one by one")
}

// TestAChangedLimitIsBelievedAtOnce, lowered or raised.
func TestAChangedLimitIsBelievedAtOnce(t *testing.T) {
	c := fake(t)
	require.NoError(t, c.CreateTopic("t", 1, map[string]string{"max.message.bytes": "50000"}))
	p := start(t, testConfig(c.ListenAddrs()))
	done := make(counter, 100)
	produce := func(size int) error {
		p.Produce(&Record{Topic: "t", Key: []byte("k"), Value: noise(size), Owner: done})
		return <-done
	}
	require.NoError(t, produce(40000))
	setLimit(t, c, "t", 20000)
	for range 20 {
		p.Produce(&Record{Topic: "t", Key: []byte("k"), Value: noise(5000), Owner: done})
	}
	for range 20 {
		require.NoError(t, <-done, "batches were made by the limit as it was")
	}
	require.ErrorIs(t, produce(40000), ErrTooLarge)
	setLimit(t, c, "t", 90000)
	eventually(t, func() bool { return produce(80000) == nil }, "it is asked again")
}

func setLimit(t testing.TB, c *kfake.Cluster, topic string, limit int) {
	t.Helper()
	cl := client(t, c)
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	res := kmsg.NewIncrementalAlterConfigsRequestResource()
	res.ResourceType, res.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	set := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	set.Name, set.Value = "max.message.bytes", kmsg.StringPtr(strconv.Itoa(limit))
	res.Configs = append(res.Configs, set)
	req.Resources = append(req.Resources, res)
	resp, err := req.RequestWith(t.Context(), cl)
	require.NoError(t, err)
	require.NoError(t, kerr.ErrorForCode(resp.Resources[0].ErrorCode))
}

// TestNothingIsSentWhileKafkaThrottles: the pause is the broker's, and Kafka counts as up.
func TestNothingIsSentWhileKafkaThrottles(t *testing.T) {
	const pause = 400 * time.Millisecond
	c := fake(t, kfake.SeedTopics(1, "t"))
	var mu sync.Mutex
	var at []time.Time
	c.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		at = append(at, time.Now())
		preq := req.(*kmsg.ProduceRequest)
		resp := preq.ResponseKind().(*kmsg.ProduceResponse)
		resp.ThrottleMillis = int32(pause.Milliseconds())
		resp.Topics = []kmsg.ProduceResponseTopic{{Topic: "t", Partitions: []kmsg.ProduceResponseTopicPartition{{}}}}
		return resp, nil, true
	})
	p := start(t, testConfig(c.ListenAddrs()))
	done := make(counter, 1)
	for range 4 {
		p.Produce(&Record{Topic: "t", Value: []byte("v"), Owner: done})
		require.NoError(t, <-done)
	}
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, at, 4)
	for i := 1; i < len(at); i++ {
		require.GreaterOrEqual(t, at[i].Sub(at[i-1]), pause-5*time.Millisecond)
	}
	require.InDelta(t, 4*pause.Seconds(), testutil.ToFloat64(p.m.byBroker.throttled), .001)
}

// TestAPartitionWithSlowFollowersDelaysNoOtherForLong: a request is answered when its last partition is, so a partition
// that timed out goes to a connection of its own.
func TestAPartitionWithSlowFollowersDelaysNoOtherForLong(t *testing.T) {
	c := fake(t, kfake.SeedTopics(2, "t"))
	var mu sync.Mutex
	together, timeouts := 0, map[int32]bool{}
	slow := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "t", Partitions: []int32{0}, Err: kerr.RequestTimedOut, Count: -1, When: func(req kmsg.Request) bool {
		preq := req.(*kmsg.ProduceRequest)
		mu.Lock()
		defer mu.Unlock()
		for _, part := range preq.Topics[0].Partitions {
			if part.Partition == 0 {
				timeouts[preq.TimeoutMillis] = true
				together += len(preq.Topics[0].Partitions) - 1
			}
		}
		return true
	}})
	p := start(t, testConfig(c.ListenAddrs()))
	keys := keysOf(2)
	bad, good := newLedger(), newLedger()
	for i := range 200 {
		p.Produce(bad.record(i, "t", keys[0]))
		p.Produce(good.record(i, "t", keys[1]))
		if i%10 == 0 {
			before := good.count()
			eventually(t, func() bool { return good.count() > before }, "the other partition flows")
		}
	}
	eventually(t, func() bool { return good.count() == 200 }, "the other partition flows")
	eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(timeouts) == 2
	}, "first a short time-out, so that others wait no longer, then a longer one")
	mu.Lock()
	require.LessOrEqual(t, together, 1)
	mu.Unlock()
	slow.Remove()
	eventually(t, func() bool { return bad.count() == 200 }, "and the slow one, in the end")
	require.Zero(t, bad.errs()+good.errs())
	inOrder(t, read(t, c.ListenAddrs(), "t", 400))
}

func TestWithoutLingerARecordIsSentAtOnce(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t"))
	cfg := testConfig(c.ListenAddrs())
	cfg.Linger = 0
	p := start(t, cfg)
	slowCfg := testConfig(c.ListenAddrs())
	slowCfg.Linger = 200 * time.Millisecond
	slow := start(t, slowCfg)
	took := func(p *Producer) time.Duration {
		done := make(counter, 1)
		p.Produce(&Record{Topic: "t", Owner: done})
		require.NoError(t, <-done)
		begin := time.Now()
		p.Produce(&Record{Topic: "t", Owner: done})
		require.NoError(t, <-done)
		return time.Since(begin)
	}
	require.GreaterOrEqual(t, took(slow), 200*time.Millisecond)
	require.Eventually(t, func() bool { return took(p) < 200*time.Millisecond }, patience, time.Millisecond)
}
