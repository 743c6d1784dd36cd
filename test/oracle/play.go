package oracle

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// patience is how long anything may take. It is much, for a machine that is busy and an instance that died.
const patience = 40 * time.Second

// A play is a script that is being played. mu guards everything of it, the players too, so that the order of events is
// the one in which they were seen.
type play struct {
	w       *World
	ctx     context.Context
	begin   time.Time
	players [2]*player

	mu    sync.Mutex
	moved *sync.Cond // something was noted
	h     History
	quiet bool // nothing is noted any more of what devices do
	done  bool // nor of anything
}

func newPlay(ctx context.Context, w *World, id string) *play {
	p := &play{w: w, ctx: ctx, begin: time.Now(), h: History{ID: id}}
	p.moved = sync.NewCond(&p.mu)
	for i := range p.players {
		p.players[i] = &player{play: p, number: i, version: 5, name: string(rune('a' + i)), received: map[uint16]bool{}}
	}
	return p
}

func (p *play) clientID(dev int) string { return p.h.ID + p.players[dev].name }

// note adds an event that is not a device's.
func (p *play) note(e Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.add(e)
}

func (p *play) disturbed(what What) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.h.Crashed = p.h.Crashed || what == Crash
	p.h.Stalled = p.h.Stalled || what == Stall
	p.add(Event{What: what, Message: -1})
}

// add adds an event. mu is held.
func (p *play) add(e Event) {
	if p.done || p.quiet && e.What != Record && e.What != Receipt {
		return
	}
	e.At = time.Since(p.begin)
	p.h.Events = append(p.h.Events, e)
	p.moved.Broadcast()
}

// await waits until something holds. mu is held, and given up meanwhile.
func (p *play) await(limit time.Duration, holds func() bool) bool {
	late := false
	wake := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		late = true
		p.moved.Broadcast()
	}
	timer := time.AfterFunc(limit, wake)
	defer timer.Stop()
	stop := context.AfterFunc(p.ctx, wake)
	defer stop()
	for !holds() {
		if late || p.ctx.Err() != nil {
			return false
		}
		p.moved.Wait()
	}
	return true
}

// message makes a message and gives its number and payload. mu is held.
func (p *play) message(m Message) (number int, payload string) {
	number = len(p.h.Messages)
	p.h.Messages = append(p.h.Messages, m)
	if !m.Empty {
		payload = fmt.Sprintf("%s|%d|", p.h.ID, number)
	}
	return number, payload
}

func (p *play) step(s Step) {
	d := p.players[s.Dev]
	switch s.Do {
	case DoCommand:
		p.produce(s, Message{From: Backend, Kafka: Commands, Topic: "cmd/" + p.h.ID + "/" + d.name, QoS: s.QoS, To: s.Dev})
		return
	case DoNotice:
		p.produce(s, Message{From: Backend, Kafka: Notices, Topic: "all/" + p.h.ID + "/1", QoS: s.QoS, To: -1})
		return
	case DoJob:
		p.produce(s, Message{From: Backend, Kafka: Notices, Topic: "job/" + p.h.ID + "/1", QoS: s.QoS, To: -1, Job: true})
		return
	case DoPause:
		select {
		case <-time.After(time.Duration(s.N) * time.Millisecond): // the script's own
		case <-p.ctx.Done():
		}
		return
	case DoConnect:
		d.connect(s)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !d.online() {
		return
	}
	switch s.Do {
	case DoDisconnect:
		d.disconnect(s)
	case DoCut:
		d.cut(s.N%2 == 0)
	case DoFuse:
		d.conn.fuse = s.N
	case DoPublish:
		t := topics[s.Topic]
		d.publish(Message{From: d.number, Kafka: t.kafka, Topic: fmt.Sprintf(t.name, p.h.ID, d.name), QoS: s.QoS, Keep: t.retain, Empty: s.Empty, To: -1}, s.Wait)
	case DoAgain:
		d.again()
	case DoSubscribe:
		d.subscribe(Filter{Name: d.filter(s.Topic), QoS: s.QoS, NoLocal: s.NoLocal, Rap: s.Rap, Handling: s.Handling})
	case DoShare:
		d.subscribe(Filter{Name: d.named(sharing), QoS: s.QoS})
	case DoUnsubscribe:
		d.unsubscribe(d.filter(s.Topic))
	case DoHold:
		d.hold = true
	case DoRelease:
		d.release()
	}
}

// produce lets the back end write a record.
func (p *play) produce(s Step, m Message) {
	p.mu.Lock()
	n, payload := p.message(m)
	p.add(Event{What: Written, Message: n, Dev: max(m.To, 0)})
	p.mu.Unlock()
	key := p.h.ID
	if m.To >= 0 {
		key = p.clientID(m.To)
	}
	r := &kgo.Record{Topic: p.w.topic(m.Kafka), Key: []byte(key), Value: []byte(payload), Headers: []kgo.RecordHeader{
		{Key: "topic", Value: []byte(m.Topic)}, {Key: "mqtt.qos", Value: []byte{'0' + m.QoS}}, {Key: "mqtt.correlation_data", Value: []byte(payload)}}}
	stored := make(chan struct{})
	p.w.producer.Produce(p.ctx, r, func(_ *kgo.Record, err error) {
		if err == nil {
			p.note(Event{What: Stored, Message: n, Dev: max(m.To, 0)})
		}
		close(stored)
	})
	if s.Wait {
		<-stored
	}
}

// finale lets both devices come back with their sessions, and publish and subscribe to what tells that all before it has
// been dealt with. No script has its filter of retained messages, or these would come for it that an earlier SUBSCRIBE owes.
func (p *play) finale() {
	p.note(Event{What: Finale, Message: -1})
	for i, d := range p.players {
		d.connect(Step{Dev: i, V: d.version, Expiry: 3600, At: (i + len(p.h.ID)) % len(p.w.instances)})
		p.mu.Lock()
		d.release()
		if d.online() {
			for _, name := range []string{"say/" + p.h.ID + "/+/end", "cmd/" + p.h.ID + "/" + d.name + "/end", "all/" + p.h.ID + "/end", "keep/" + p.h.ID + "/#"} {
				d.subscribe(Filter{Name: name, QoS: 1})
			}
		}
		p.mu.Unlock()
	}
	for i, d := range p.players {
		p.mu.Lock()
		for _, t := range []topic{{name: "up/%s/%s/end", kafka: Plain}, {name: "once/%s/%s/end", kafka: Once}, {name: "say/%s/%s/end", kafka: Loop}} {
			if d.online() {
				d.publish(Message{From: i, Kafka: t.kafka, Topic: fmt.Sprintf(t.name, p.h.ID, d.name), QoS: 1, To: -1, Last: true}, false)
			}
		}
		p.mu.Unlock()
		p.produce(Step{Wait: true}, Message{From: Backend, Kafka: Commands, Topic: "cmd/" + p.h.ID + "/" + d.name + "/end", QoS: 1, To: i, Last: true})
	}
	p.produce(Step{Wait: true}, Message{From: Backend, Kafka: Notices, Topic: "all/" + p.h.ID + "/end", QoS: 1, To: -1, Last: true})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.await(time.Duration(p.w.settle.Load()), p.arrived)
	p.add(Event{What: Over, Message: -1})
}

// arrived says that all messages that end a history came to whom they are for. mu is held.
func (p *play) arrived() bool {
	if p.lost() != nil {
		return true // which the model will judge
	}
	got := map[[2]int]bool{}
	for _, e := range p.h.Events {
		if e.What == GotPublish {
			got[[2]int{e.Dev, e.Message}] = true
		}
	}
	for n, m := range p.h.Messages {
		if !m.Last || m.Kafka == Plain || m.Kafka == Once {
			continue
		}
		for i := range p.players {
			if (m.To < 0 || m.To == i) && !got[[2]int{i, n}] {
				return false
			}
		}
	}
	return true
}

// settle judges until nothing is missing, or for good. A device whose connection an instance took with it comes back. The
// last word is said when every record is noted: that a device sent something again, and has it twice, is seen before the
// second record may be.
func (p *play) settle() (found []Violation) {
	for end := time.Now().Add(time.Duration(p.w.settle.Load())); ; {
		p.mu.Lock()
		seen := -1
		missing := func() bool {
			return slices.ContainsFunc(found, func(v Violation) bool { return v.Missing })
		}
		over := p.await(time.Until(end), func() bool {
			if seen != len(p.h.Events) {
				seen = len(p.h.Events)
				found = Judge(&p.h)
			}
			return !missing() || p.h.Crashed && p.lost() != nil
		})
		lost := p.lost()
		if !over || !missing() || lost == nil {
			p.quiet = true
			p.mu.Unlock()
			ctx, cancel := context.WithTimeout(p.ctx, time.Duration(p.w.settle.Load()))
			p.w.catchUp(ctx)
			cancel()
			p.mu.Lock()
			defer p.mu.Unlock()
			return Judge(&p.h)
		}
		p.mu.Unlock()
		lost.connect(Step{Dev: lost.number, V: lost.version, Expiry: 3600, At: lost.number % len(p.w.instances)})
	}
}

// lost gives a device that has no connection. mu is held.
func (p *play) lost() *player {
	for _, d := range p.players {
		if !d.online() {
			return d
		}
	}
	return nil
}

// leave ends the sessions and the retained messages.
func (p *play) leave() {
	p.mu.Lock()
	p.done = true
	p.mu.Unlock()
	for i, d := range p.players {
		d.connect(Step{Dev: i, V: 4, Clean: true, At: i % len(p.w.instances)})
		p.mu.Lock()
		if d.online() {
			if slices.ContainsFunc(p.h.Messages, func(m Message) bool { return m.Keep && m.From == i }) {
				d.publish(Message{From: i, Kafka: Loop, Topic: "keep/" + p.h.ID + "/" + d.name, QoS: 1, Keep: true, Empty: true}, true)
			}
			if d.online() {
				d.disconnect(Step{Expiry: -1})
			}
		}
		for _, c := range d.links {
			c.closed = true
			_ = c.nc.Close()
		}
		p.mu.Unlock()
	}
}

// dial connects from one of several loopback addresses, each of which has ports of its own.
func (p *play) dial(instance int) (*net.TCPConn, error) {
	from := net.IPv4(127, 0, byte(40+p.w.count.Load()/200%50), byte(1+p.w.count.Load()%200))
	nc, err := (&net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: from}}).DialContext(p.ctx, "tcp", p.w.instances[instance])
	if err != nil {
		return nil, err
	}
	return nc.(*net.TCPConn), nil
}
