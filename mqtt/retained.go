package mqtt

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A RetainedMessage is the message that is retained for a topic (section 3.3.1.3).
type RetainedMessage struct {
	Topic   []byte // a legal topic name
	Payload []byte // not empty
	// The properties of MQTT 5; nil means absent. None is longer than 65 535 bytes.
	ContentType, ResponseTopic, CorrelationData []byte
	User                                        []Property
	PayloadFormat                               PayloadFormat
	QoS                                         byte // each subscription may lower it
	Expires                                     time.Time
	ClientID                                    string // who published it, for No Local; "" if no device did
	Place                                       Place  // where what is in flight of it is found again
}

// A RetainedConfig is what a Retained needs.
type RetainedConfig struct {
	// Messages and Bytes are how many retained messages there may be and the memory for them. Reserve refuses what is
	// more.
	Messages int
	Bytes    int64
	// CatchUp returns when all messages that filters match have been set which, before the call, were acknowledged, given
	// to a subscriber, or handed over from the connection that subscribes; attached is what the Handler keeps of that. It
	// is called before a subscription is served; many calls may be under way. Its error means that ctx has ended, with the
	// session or the process. nil: they always have been.
	CatchUp    func(ctx context.Context, filters []string, attached any) error
	Registerer prometheus.Registerer
}

// Retained holds the retained messages of all topics, and hands them out to those who subscribe. Any number of
// goroutines may use it.
//
// It is filled from outside. A Server with it in its Config says that retained messages are available, passes RETAIN on
// to its Handler in Message.Retain, and reads here at each SUBSCRIBE.
type Retained struct {
	cfg   RetainedConfig
	m     *retainedMetrics
	wake  chan struct{} // somebody is in turns
	turns turns
	work  work // of those who catch up

	mu       sync.RWMutex // guards all below; taken after outbox.mu
	rows     rows
	bytes    int64  // of rows
	expiring int    // rows with an expiry
	swept    string // the topic at which the search for expired ones goes on
	pending  struct {
		messages int
		bytes    int64
	}
}

// NewRetained makes a Retained without messages. Run starts it.
func NewRetained(cfg RetainedConfig) (*Retained, error) {
	if cfg.Messages < 1 || cfg.Bytes < 1 {
		return nil, fmt.Errorf("cannot keep %d retained messages of %d bytes: both must be 1 at least", cfg.Messages, cfg.Bytes)
	}
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.NewRegistry()
	}
	if cfg.CatchUp == nil {
		cfg.CatchUp = func(context.Context, []string, any) error { return nil }
	}
	x := &Retained{cfg: cfg, wake: make(chan struct{}, 1)}
	x.work.ctx, x.work.stop = context.WithCancel(context.Background())
	var err error
	if x.m, err = newRetainedMetrics(cfg.Registerer, x); err != nil {
		return nil, fmt.Errorf("cannot register the metrics of retained messages: %w", err)
	}
	return x, nil
}

// ErrNoRetainedTopic is the error of Set for a message that can't be kept under any topic.
var ErrNoRetainedTopic = errors.New("a retained message needs a topic of 1 to 65535 bytes")

// Set makes m the message of its topic, in place of the one before. It copies all of m. Set takes what is beyond the
// limits too: it was accepted elsewhere. A message that has expired, or has no payload, only ends the one before.
func (x *Retained) Set(m *RetainedMessage) error {
	if len(m.Topic) == 0 || len(m.Topic) > math.MaxUint16 {
		return ErrNoRetainedTopic
	}
	if len(m.Payload) == 0 || !m.Expires.IsZero() && !time.Now().Before(m.Expires) {
		x.Delete(m.Topic)
		return nil
	}
	r := m.row()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.forget(x.rows.put(r))
	x.bytes += r.memory()
	if r.expires() != 0 {
		x.expiring++
	}
	return nil
}

// Delete ends the message of a topic, if there is one.
func (x *Retained) Delete(topic []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.forget(x.rows.remove(string(topic)))
}

// forget takes a row that is no more out of the books; "" is none. mu is held.
func (x *Retained) forget(old row) {
	if old == "" {
		return
	}
	x.bytes -= old.memory()
	if old.expires() != 0 {
		x.expiring--
	}
}

// Len is the number of messages.
func (x *Retained) Len() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.rows.n
}

// Bytes is their memory.
func (x *Retained) Bytes() int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.bytes
}

// Reserve says whether there is room for a message that is to be stored, and keeps that room until Release is called
// with the same number of bytes. The message that it takes the place of makes room.
func (x *Retained) Reserve(topic []byte, bytes int) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	n, b := x.rows.n+x.pending.messages+1, x.bytes+x.pending.bytes+int64(bytes)
	if old, ok := x.rows.get(string(topic)); ok {
		n--
		b -= old.memory()
	}
	if n > x.cfg.Messages || b > x.cfg.Bytes {
		return false
	}
	x.pending.messages++
	x.pending.bytes += int64(bytes)
	return true
}

// Release gives back what Reserve kept.
func (x *Retained) Release(bytes int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.pending.messages--
	x.pending.bytes -= int64(bytes)
}

// Run hands messages out and forgets those that expired, until ctx ends.
func (x *Retained) Run(ctx context.Context) error {
	defer x.work.end()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-x.wake:
			x.takeTurns(ctx)
		case now := <-second.C:
			x.sweep(now)
			x.unpark()
		}
	}
}

// How many messages a sweep looks at, and how many of them while nobody else can.
const (
	sweepRows  = 20_000
	sweepBatch = 512
)

// sweep forgets expired messages. One of them is not handed out any more, so it may take many sweeps to come to it.
func (x *Retained) sweep(now time.Time) {
	for range sweepRows / sweepBatch {
		x.mu.Lock()
		if x.expiring == 0 {
			x.mu.Unlock()
			return
		}
		over := x.sweepOnce(now.UnixMilli())
		x.mu.Unlock()
		if over {
			return
		}
	}
}

// sweepOnce looks at the next batch, and says whether it came to the end. mu is held.
func (x *Retained) sweepOnce(now int64) (end bool) {
	var expired []string
	at := x.rows.seek(x.swept)
	for range sweepBatch {
		r, ok := x.rows.at(at)
		if !ok {
			break
		}
		if r.expired(now) {
			expired = append(expired, r.topic())
		}
		at = x.rows.after(at)
	}
	r, more := x.rows.at(at)
	x.swept = ""
	if more {
		x.swept = r.topic()
	}
	for _, topic := range expired {
		x.forget(x.rows.remove(topic))
	}
	x.m.expired.Add(float64(len(expired)))
	return !more
}
