package kafka

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"sluice/kafka/produce"
)

// flow produces to topic until stop is closed, in keys 0 to 4.
func flow(p *Producer, l *ledger, topic string, stop chan struct{}) (sent int) {
	for ; ; sent++ {
		select {
		case <-stop:
			return sent
		default:
		}
		p.Produce(l.record(sent, topic, fmt.Sprint(sent%5)))
		if sent%50 == 0 {
			time.Sleep(time.Millisecond) // a pace, not a wait
		}
	}
}

func TestTopicDeletedInUseIsCreatedAgain(t *testing.T) {
	c := fake(t, kfake.SeedTopics(3, "free"))
	cfg := testConfig(c.ListenAddrs())
	cfg.CreateTopics = &CreateTopics{Partitions: 3}
	p := start(t, cfg)
	l, free := newLedger(), newLedger()
	stop, sent, sentFree := make(chan struct{}), make(chan int), make(chan int)
	go func() { sent <- flow(p, l, "doomed", stop) }()      // ends with stop
	go func() { sentFree <- flow(p, free, "free", stop) }() // ends with stop
	for range 3 {
		before := l.count()
		eventually(t, func() bool { return l.count() > before+200 }, "it flows")
		eventually(t, func() bool { return c.DeleteTopic("doomed") == nil }, "it is there again")
	}
	before := l.count()
	eventually(t, func() bool { return l.count() > before+200 }, "it flows again")
	close(stop)
	n, m := <-sent, <-sentFree
	eventually(t, func() bool { return l.count() == n && free.count() == m }, "all end")
	l.once(t, n)
	free.once(t, m)
	require.Zero(t, free.errs())
	for i := range n { // a batch on its way during the deletion may be left open; nothing is refused
		for _, err := range l.of(i) {
			require.False(t, Final(err))
		}
	}
	stored := 0
	for _, info := range c.PartitionInfos("doomed") {
		stored += int(info.HighWatermark)
	}
	inOrder(t, read(t, c.ListenAddrs(), "doomed", stored))
}

func TestRecordsOfADeletedTopicWaitAndDelayNoOther(t *testing.T) {
	c := fake(t, kfake.SeedTopics(3, "doomed", "free"))
	p := start(t, testConfig(c.ListenAddrs()))
	l, free := newLedger(), newLedger()
	p.Produce(l.record(0, "doomed", "k"))
	eventually(t, func() bool { return l.count() == 1 }, "it exists")
	require.NoError(t, c.DeleteTopic("doomed"))
	const n = 3 * mostRecords
	for i := 1; i < n; i++ {
		p.Produce(l.record(i, "doomed", fmt.Sprint(i%5)))
	}
	eventually(t, func() bool { return p.phases()[lost] == 1 }, "its end is noticed")
	for i := range n {
		p.Produce(free.record(i, "free", fmt.Sprint(i%5)))
	}
	eventually(t, func() bool { return free.count() == n }, "the other flows")
	require.Zero(t, free.errs())
	require.Equal(t, 1, l.count(), "nothing is refused")
	require.NoError(t, c.CreateTopic("doomed", 2, nil)) // fewer partitions than before
	eventually(t, func() bool { return l.count() == n }, "all are stored when it is there again")
	l.once(t, n)
	require.Zero(t, l.errs())
	inOrder(t, read(t, c.ListenAddrs(), "doomed", n-1))
}

// phases counts topics by phase.
func (p *Producer) phases() (n [phases]int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.topics {
		n[t.phase]++
	}
	return n
}

func TestNewPartitionsAreUsed(t *testing.T) {
	tp := &topic{phase: open, room: 1 << 20}
	require.Empty(t, tp.resize(2, false))
	waits := &Record{Key: []byte("key1")}
	waits.prepare(0)
	at := tp.place(waits)
	at.add(waits)
	require.Empty(t, tp.resize(5, false), "what waits stays with what was before it")
	require.Len(t, tp.parts, 5)
	require.Same(t, waits, at.waiting[0].records[0])
	for i := range 100 {
		r := &Record{Key: fmt.Append(nil, i)}
		r.prepare(0)
		require.Equal(t, PartitionOf(r.Key, 5), tp.place(r).id)
	}
	require.Equal(t, []*Record{waits}, tp.resize(1, true), "unless the topic was made anew")
	require.Zero(t, tp.held)
	require.False(t, tp.parts[0].gone)
	require.True(t, tp.parts[0] != at == at.gone)
}

func TestTopicsThatAreNotUsedAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := NewProducer(testConfig([]string{"127.0.0.1:1"}))
		require.NoError(t, err)
		for i := range 300 {
			p.Produce((&ledger{}).record(i, fmt.Sprint("t", i), ""))
		}
		p.mu.Lock()
		for name, tp := range p.topics {
			if name != "t0" {
				tp.waiting = nil // as if they were stored
			}
		}
		p.mu.Unlock()
		p.sweep()
		require.Len(t, p.topics, 300)
		time.Sleep(idleAfter + time.Second)
		p.sweep()
		require.Len(t, p.topics, 1, "the one with a record stays")
	})
}

// TestAForgottenTopicBeginsAboveWhatKafkaRemembers: or its first batch would be taken for one of before, and never stored.
func TestAForgottenTopicBeginsAboveWhatKafkaRemembers(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t"))
	p := start(t, testConfig(c.ListenAddrs()))
	l := newLedger()
	const n = 3
	for i := range n {
		p.Produce(l.record(i, "t", "k"))
		eventually(t, func() bool { return l.count() == i+1 }, "it flows")
		p.mu.Lock()
		p.topics["t"].used -= 2 * idleAfter
		p.mu.Unlock()
		p.sweep()
		require.Zero(t, p.phases()[open])
	}
	require.Zero(t, l.errs())
	for i, r := range read(t, c.ListenAddrs(), "t", n)[0] {
		require.Equal(t, i, number(t, r))
	}
}

// TestAListingWithFewerPartitionsIsNotBelieved: a topic never has fewer, unless it was made anew.
func TestAListingWithFewerPartitionsIsNotBelieved(t *testing.T) {
	p, _ := byHand(t, 3)
	p.mu.Lock()
	defer p.mu.Unlock()
	tp := p.topics["t"]
	fewer := tp.state
	fewer.id, fewer.partitions = sarama.Uuid{1}, 3
	p.openTopic(tp, fewer, true, 0)
	fewer.partitions = 1
	p.openTopic(tp, fewer, false, 0)
	require.Len(t, tp.parts, 3)
	tp.parts[2].numbers = produce.Partition{Ident: produce.Ident{ID: p.ident.ID, Epoch: 7}, Sequence: 3}
	fewer.id = sarama.Uuid{2}
	p.openTopic(tp, fewer, true, 0)
	require.Len(t, tp.parts, 1)
	require.Greater(t, p.ident.Epoch, int16(7), "a partition in its place begins above")
}
