package kafka

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestCloseFlushes(t *testing.T) {
	c := fake(t, kfake.SeedTopics(3, "t"))
	p := start(t, testConfig(c.ListenAddrs()))
	l := newLedger()
	const n = 10000
	for i := range n {
		p.Produce(l.record(i, "t", fmt.Sprint(i%5)))
	}
	require.NoError(t, p.Close(context.Background()))
	l.once(t, n)
	require.Zero(t, l.errs())
	p.Produce(l.record(n, "t", "k"))
	eventually(t, func() bool { return l.count() == n+1 }, "what comes later is answered too")
	require.ErrorIs(t, l.of(n)[0], ErrClosed)
	require.NoError(t, p.Close(context.Background()), "closing twice is no harm")
}

func TestCloseWithKafkaAwayEndsEveryRecordOnce(t *testing.T) {
	for _, outage := range []mode{down, swallows} {
		t.Run(fmt.Sprint(outage), func(t *testing.T) {
			c, g := gated(t, kfake.NumBrokers(2), kfake.SeedTopics(4, "t"))
			p := start(t, testConfig(c.ListenAddrs()))
			l := newLedger()
			for i := range 100 {
				p.Produce(l.record(i, "t", fmt.Sprint(i%5)))
			}
			eventually(t, func() bool { return l.count() == 100 }, "it flows")
			g.set(outage)
			const n = 10000
			for i := 100; i < n; i++ {
				p.Produce(l.record(i, "t", fmt.Sprint(i%5)))
			}
			p.Produce(l.record(n, "unknown", ""))
			ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
			defer cancel()
			require.ErrorContains(t, p.Close(ctx), fmt.Sprint(n+1-100))
			l.once(t, n+1)
			for i := 100; i <= n; i++ {
				require.ErrorIs(t, l.of(i)[0], ErrClosed)
			}
		})
	}
}

func TestCloseWhenKafkaWasNeverThere(t *testing.T) {
	p := start(t, testConfig([]string{"127.0.0.1:1"}))
	l := newLedger()
	for i := range 100 {
		p.Produce(l.record(i, fmt.Sprint("t", i%3), ""))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	require.Error(t, p.Close(ctx))
	l.once(t, 100)
}

func TestCloseBeforeRunAnswers(t *testing.T) {
	p, err := NewProducer(testConfig([]string{"127.0.0.1:1"}))
	require.NoError(t, err)
	l := newLedger()
	p.Produce(l.record(0, "t", ""))
	require.ErrorIs(t, p.Close(context.Background()), ErrClosed)
	l.once(t, 1)
	require.ErrorIs(t, l.of(0)[0], ErrClosed)
}

func TestEndOfRunsContextAnswersAll(t *testing.T) {
	c, g := gated(t, kfake.SeedTopics(2, "t"))
	p, err := NewProducer(testConfig(c.ListenAddrs()))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }() // ends with ctx
	l := newLedger()
	p.Produce(l.record(0, "t", ""))
	eventually(t, func() bool { return l.count() == 1 }, "it flows")
	g.set(down)
	for i := 1; i < 3000; i++ {
		p.Produce(l.record(i, "t", "k"))
	}
	cancel()
	require.NoError(t, <-done)
	l.once(t, 3000)
}

func TestProduceDuringCloseIsAnsweredOnce(t *testing.T) {
	for range 20 {
		c := fake(t, kfake.SeedTopics(2, "t"))
		p := start(t, testConfig(c.ListenAddrs()))
		l := newLedger()
		const n, senders = 2000, 4
		var wg sync.WaitGroup
		for s := range senders {
			wg.Go(func() {
				for i := s; i < n; i += senders {
					p.Produce(l.record(i, "t", "k"))
				}
			})
		}
		eventually(t, func() bool { return l.count() > 0 }, "it flows")
		require.NoError(t, p.Close(context.Background()))
		wg.Wait()
		eventually(t, func() bool { return l.count() == n }, "all are answered")
		l.once(t, n)
	}
}

// A deadLetter is refused, and its owner has it written to another topic then.
type deadLetter struct {
	p    *Producer
	done chan error
}

func (d *deadLetter) RecordDone(r *Record, err error) {
	if r.Topic == "t" && Final(err) {
		d.p.Produce(&Record{Topic: "dead", Value: []byte("small"), Owner: d})
		return
	}
	d.done <- err
}

// TestCloseWaitsForWhatAnOutcomeMakes: a record is refused when Close has begun, and its owner writes another in its place.
func TestCloseWaitsForWhatAnOutcomeMakes(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t", "dead"))
	p := start(t, testConfig(c.ListenAddrs()))
	asked, answers := make(chan struct{}), make(chan struct{})
	c.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		close(asked)
		c.SleepControl(func() { <-answers })
		resp := req.ResponseKind().(*kmsg.ProduceResponse)
		for _, of := range req.(*kmsg.ProduceRequest).Topics {
			topic := kmsg.NewProduceResponseTopic()
			topic.Topic, topic.TopicID = of.Topic, of.TopicID
			for _, part := range of.Partitions {
				answer := kmsg.NewProduceResponseTopicPartition()
				answer.Partition, answer.ErrorCode = part.Partition, kerr.MessageTooLarge.Code
				topic.Partitions = append(topic.Partitions, answer)
			}
			resp.Topics = append(resp.Topics, topic)
		}
		return resp, nil, true
	})
	d := &deadLetter{p, make(chan error, 1)}
	p.Produce(&Record{Topic: "t", Value: []byte("large"), Owner: d})
	<-asked
	closed := make(chan error, 1)
	go func() { closed <- p.Close(context.Background()) }() // ends when all are answered
	eventually(t, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.closing
	}, "it closes")
	close(answers)
	require.NoError(t, <-d.done)
	require.NoError(t, <-closed)
	require.Len(t, read(t, c.ListenAddrs(), "dead", 1), 1)
}
