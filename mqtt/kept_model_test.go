package mqtt

import (
	"fmt"
	"maps"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A keptModel is a model whose server crashes now and then and loses what was not saved. The devices go on.
type keptModel struct {
	*model
	w       *keptWorld
	change  func(*Config)
	pending map[string]keptSave // by client ID
	crashes int
}

// steps are what may happen to sessions and their store, with what a test has beside that.
func (m *keptModel) steps(more map[string]func(*rapid.T)) map[string]func(*rapid.T) {
	all := map[string]func(*rapid.T){
		"connect":       m.connect,
		"leave":         func(rt *rapid.T) { m.device(rt).leave(rt) },
		"read":          func(rt *rapid.T) { m.device(rt).read(rt) },
		"answer":        func(rt *rapid.T) { m.device(rt).answer(rt) },
		"exchange":      m.exchange,
		"exchange more": m.exchange,
		"snapshot":      func(rt *rapid.T) { m.take(m.device(rt)) },
		"store":         func(rt *rapid.T) { m.land(m.device(rt)) },
		"save":          m.save,
		"save more":     m.save,
		"crash":         func(*rapid.T) { m.crash() },
	}
	maps.Copy(all, more)
	return all
}

// A keptSave is a snapshot that is on its way to the store.
type keptSave struct {
	k *safe
	s Snapshot
}

// TestCrashesAgainstAModel: whenever the process dies and whatever was not stored then, the application of a device
// gets each QoS 2 command exactly once and each QoS 1 command at least once, in their order.
func TestCrashesAgainstAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newKeptModel(drawn{t, rt}, smallModel)
		rt.Repeat(m.steps(map[string]func(*rapid.T){
			"read more":    func(rt *rapid.T) { m.device(rt).read(rt) },
			"send":         m.command,
			"send more":    m.command,
			"replay":       func(rt *rapid.T) { m.replayTo(m.device(rt)) },
			"replay again": func(rt *rapid.T) { m.replayTo(m.device(rt)) },
		}))
		m.w.v.setPrompt(true)
		for _, d := range m.devices {
			m.finish(rt, d)
		}
		m.judge()
	})
}

func newKeptModel(t drawn, change func(*Config)) *keptModel {
	m := &keptModel{model: &model{}, change: change, pending: map[string]keptSave{}}
	m.w = keeping(t, change)
	m.dispatcher = m.w.dispatcher
	m.w.v.next[1] = 0 // the stream exists before the sessions
	m.w.v.setPrompt(true)
	for i := range 3 {
		d := &modelDevice{m: m.model, id: fmt.Sprint("dev", i), qos: []int{2, 2, 1}[i], received: map[uint16]bool{}, refused: map[int]bool{}}
		m.devices = append(m.devices, d)
		d.window = 5
		d.renew(persistent(5, d.id))
	}
	m.w.v.setPrompt(false)
	return m
}

func smallModel(c *Config) { c.CommandsInFlight, c.CommandsQueued = 5, 4 }

func (m *keptModel) connect(rt *rapid.T) {
	d := m.device(rt)
	h := persistent(rapid.SampledFrom([]byte{4, 5}).Draw(rt, "version"), d.id)
	d.window = 5
	if n := rapid.IntRange(0, 6).Draw(rt, "Receive Maximum"); h.version == 5 && n > 0 {
		h.props = cat(h.props, 0x21, uint16(n))
		d.window = min(d.window, n)
	}
	d.renew(h)
	require.True(rt, d.c.present())
}

// command appends a command to the stream.
func (m *keptModel) command(rt *rapid.T) {
	number := len(m.all)
	c := &Command{Topic: []byte("t"), Payload: []byte(strconv.Itoa(number)), QoS: byte(rapid.IntRange(0, 2).Draw(rt, "QoS")), Place: Place{1, int64(number)}}
	if rapid.IntRange(0, 3).Draw(rt, "to one") == 0 {
		c.To = m.device(rt).id
	}
	m.all = append(m.all, c)
	m.w.put(c)
}

// take takes a snapshot to be stored, unless one is on its way.
func (m *keptModel) take(d *modelDevice) {
	if _, under := m.pending[d.id]; !under {
		k := m.w.v.keeper(d.id)
		m.pending[d.id] = keptSave{k, k.snapshot()}
	}
}

// save stores every session.
func (m *keptModel) save(*rapid.T) {
	for _, d := range m.devices {
		m.take(d)
		m.land(d)
	}
}

// exchange lets a device read, give all its answers, and read what these call for.
func (m *keptModel) exchange(rt *rapid.T) {
	d := m.device(rt)
	d.read(rt)
	for len(d.owed) > 0 {
		d.answer(rt)
	}
	d.read(rt)
}

// land stores the snapshot that is on its way. If the connection has left, what that left is stored already.
func (m *keptModel) land(d *modelDevice) {
	p, under := m.pending[d.id]
	if !under {
		return
	}
	delete(m.pending, d.id)
	m.w.v.mu.Lock()
	if len(p.k.left) == 0 {
		p.k.put(p.s)
	}
	m.w.v.mu.Unlock()
	p.k.o.Session.Saved(p.s.Version)
}

func (m *keptModel) replayTo(d *modelDevice) {
	if d.c != nil {
		m.w.replayAll(d.id, 1, int64(len(m.all)))
	}
}

// crash starts another server, with what was stored.
func (m *keptModel) crash() {
	for _, d := range m.devices {
		if d.c != nil {
			d.c.lost()
		}
		d.c, d.owed = nil, nil
	}
	m.crashes++
	clear(m.pending)
	m.w = m.w.crash(m.change)
	m.dispatcher = m.w.dispatcher
}

// finish lets the device complete everything.
func (m *keptModel) finish(rt *rapid.T, d *modelDevice) {
	if d.c == nil {
		d.window = 5
		d.renew(persistent(4, d.id))
	}
	s := m.w.v.keeper(d.id).o.Session
	for check := enough(m.t); !m.outbox(d.id).idle() || len(d.owed) > 0 || len(s.Behind()) > 0; check() {
		m.replayTo(d)
		d.read(rt)
		for len(d.owed) > 0 {
			d.answer(rt)
		}
	}
	d.read(rt)
}

// judge holds what the applications got to the promises.
func (m *keptModel) judge() {
	for _, d := range m.devices {
		got, last := map[int]int{}, -1
		for _, number := range d.log {
			if got[number] == 0 && !d.refused[number] {
				require.Greater(m.t, number, last, "the order in which %s's application got them first: %v", d.id, d.log)
				last = number
			}
			got[number]++
		}
		for number, c := range m.all {
			switch qos := min(int(c.QoS), d.qos); {
			case c.To != "" && c.To != d.id:
				require.Zero(m.t, got[number])
			case qos == 0:
				require.LessOrEqual(m.t, got[number], 1+m.crashes)
			case d.refused[number]:
				require.True(m.t, qos == 1 || got[number] <= 1)
			case qos == 1:
				require.Positive(m.t, got[number], "%d with QoS 1 at %s: %v", number, d.id, d.log)
			default:
				require.Equal(m.t, 1, got[number], "%d with QoS 2 at %s: %v", number, d.id, d.log)
			}
		}
	}
}
