package oracle

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A World is instances and a Kafka in which any number of scripts are played at a time.
type World struct {
	instances []string
	suffix    string
	producer  *kgo.Client
	reader    *kgo.Client
	plays     sync.Map // history ID: *play
	ended     chan struct{}
	count     atomic.Int64
	crashed   atomic.Int64 // how often an instance was killed
	stalled   atomic.Int64
	settle    atomic.Int64 // nanoseconds that a history is given for what is missing at its end

	mu   sync.Mutex // guards next
	next kadm.Offsets
	read *sync.Cond // next changed
}

// Config is the rules and commands of an instance for a World whose Kafka topics have a suffix.
func Config(suffix string) string {
	name := func(topic string) string { return strconv.Quote(topic + "-" + suffix) }
	return fmt.Sprintf(`publish:
  - match: up/#
    topic: %s
  - match: once/#
    topic: %s
    exactly_once: true
  - match: "#"
    topic: %s
commands:
  - topic: %s
    publish: "{header.mqtt.topic}"
  - topic: %s
    publish: "{header.topic}"
    client: "{key}"
    receipts: %s
  - topic: %s
    publish: "{header.topic}"
`, name(Plain), name(Once), name(Loop), name(Loop), name(Commands), name(Receipts), name(Notices))
}

// KafkaTopics are the topics that Config names, which must be there.
func KafkaTopics(suffix string) (names []string) {
	for _, topic := range []string{Plain, Once, Loop, Commands, Notices, Receipts} {
		names = append(names, topic+"-"+suffix)
	}
	return names
}

// NewWorld makes a World of instances, given by the addresses of their listeners, that have Config. Close ends it.
func NewWorld(brokers, instances []string, suffix string) (*World, error) {
	w := &World{instances: instances, suffix: suffix, ended: make(chan struct{})}
	w.settle.Store(int64(patience))
	w.read = sync.NewCond(&w.mu)
	var err error
	if w.producer, err = kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ProducerLinger(0)); err != nil {
		return nil, err
	}
	w.reader, err = kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(100*time.Millisecond),
		kgo.KeepControlRecords(), // or it is not known where the reader is behind a transaction
		kgo.ConsumeTopics(w.topics()...))
	if err != nil {
		w.producer.Close()
		return nil, err
	}
	go w.follow() // ends with the reader
	return w, nil
}

func (w *World) topic(name string) string { return name + "-" + w.suffix }

// topics are those that are read.
func (w *World) topics() []string {
	return []string{w.topic(Plain), w.topic(Once), w.topic(Loop), w.topic(Receipts)}
}

// Close ends what NewWorld began.
func (w *World) Close() {
	w.reader.Close()
	<-w.ended
	w.producer.Close()
}

// Crashed and Stalled tell the histories of this moment that an instance was killed, that one or Kafka was stopped.
func (w *World) Crashed() { w.crashed.Add(1); w.tell(Crash) }

// Stalled is Crashed for a stop.
func (w *World) Stalled() { w.stalled.Add(1); w.tell(Stall) }

func (w *World) tell(what What) {
	w.plays.Range(func(_, p any) bool {
		p.(*play).disturbed(what)
		return true
	})
}

func (w *World) follow() {
	defer close(w.ended)
	for {
		fetches := w.reader.PollFetches(context.Background())
		if fetches.IsClientClosed() {
			return
		}
		fetches.EachRecord(func(r *kgo.Record) {
			switch {
			case r.Attrs.IsControl():
			case r.Topic == w.topic(Receipts):
				w.receipt(r)
			default:
				w.record(r)
			}
			w.mu.Lock()
			w.next.AddOffset(r.Topic, r.Partition, r.Offset+1, -1)
			w.mu.Unlock()
		})
		w.read.Broadcast()
	}
}

// catchUp waits until all records that Kafka has now are noted, or ctx ends.
func (w *World) catchUp(ctx context.Context) {
	ends, err := kadm.NewClient(w.producer).ListCommittedOffsets(ctx, w.topics()...)
	if err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.read.Broadcast()
	})
	defer stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	ends.Each(func(end kadm.ListedOffset) {
		for ctx.Err() == nil && w.next[end.Topic][end.Partition].At < end.Offset {
			w.read.Wait()
		}
	})
}

// token finds whose a payload is.
func (w *World) token(text string) (p *play, message int) {
	id, rest, _ := strings.Cut(text, "|")
	number, _, _ := strings.Cut(rest, "|")
	n, err := strconv.Atoi(number)
	if err != nil {
		return nil, -1
	}
	found, ok := w.plays.Load(id)
	if !ok {
		return nil, -1
	}
	return found.(*play), n
}

func (w *World) record(r *kgo.Record) {
	p, n := w.token(string(r.Value))
	if p == nil {
		return
	}
	e := Event{What: Record, Message: n, Kafka: strings.TrimSuffix(r.Topic, "-"+w.suffix), Partition: r.Partition, Offset: r.Offset}
	for _, h := range r.Headers {
		switch h.Key {
		case "mqtt.topic":
			e.Topic = string(h.Value)
		case "mqtt.qos":
			e.QoS = h.Value[0] - '0'
		}
	}
	p.note(e)
}

func (w *World) receipt(r *kgo.Record) {
	var v struct {
		Correlation string `json:"correlation_data"`
		Outcome     string `json:"outcome"`
		Reason      string `json:"reason"`
		Instance    string `json:"instance"`
	}
	if err := json.Unmarshal(r.Value, &v); err != nil {
		return
	}
	if p, n := w.token(v.Correlation); p != nil {
		p.note(Event{What: Receipt, Message: n, Outcome: strings.TrimSpace(v.Outcome + " " + v.Reason), Instance: v.Instance})
	}
}

// Play plays a script and gives what was seen and what of it the model does not allow. ctx bounds it.
func (w *World) Play(ctx context.Context, s Script) (*History, []Violation) {
	p := newPlay(ctx, w, fmt.Sprintf("%s-%d", w.suffix, w.count.Add(1)))
	w.plays.Store(p.h.ID, p)
	defer w.plays.Delete(p.h.ID)
	crashed, stalled := w.crashed.Load(), w.stalled.Load()
	for _, step := range s {
		if ctx.Err() != nil {
			break
		}
		p.step(step)
	}
	p.finale()
	found := p.settle()
	p.leave()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.h.Crashed = p.h.Crashed || crashed != w.crashed.Load()
	p.h.Stalled = p.h.Stalled || stalled != w.stalled.Load()
	return &p.h, found
}
