package mqtt

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A drawn is a testing.TB for one check of rapid: it fails that check, and its cleanups run at the end of it.
type drawn struct {
	testing.TB
	rt *rapid.T
}

func (d drawn) Helper()                           {}
func (d drawn) Failed() bool                      { return d.rt.Failed() }
func (d drawn) FailNow()                          { d.rt.FailNow() }
func (d drawn) Errorf(format string, args ...any) { d.rt.Errorf(format, args...) }
func (d drawn) Fatalf(format string, args ...any) { d.rt.Fatalf(format, args...) }
func (d drawn) Fatal(args ...any)                 { d.rt.Fatal(args...) }
func (d drawn) Cleanup(f func())                  { d.rt.Cleanup(f) }

// A model is a server with some model devices, and commands the payloads of which are their numbers.
type model struct {
	*dispatcher
	devices []*modelDevice
	all     []*Command
}

// A modelDevice is a device that does what the specification says and no more, with the state of a receiver of
// QoS 2 and an application that is handed messages.
type modelDevice struct {
	m   *model
	id  string
	qos int // granted

	// Of the session.
	received map[uint16]bool // handed over, PUBREL has not come (section 4.3.3)
	log      []int           // numbers, as the application got them
	refused  map[int]bool    // numbers the device refused at least once

	// Of the connection.
	c      *client // nil: none
	window int
	last   int             // number of the last PUBLISH
	open   map[uint16]bool // packet identifiers of PUBLISH not completed
	owed   []owed
}

// An owed is an answer that a modelDevice has not given yet.
type owed struct {
	kind int // PUBACK, PUBREC or PUBCOMP
	id   uint16
	code Code
}

func (d *modelDevice) String() string { return d.id }

// TestCommandsAgainstAModel holds the whole delivery to its promises: whatever devices do, each sees commands in
// their order, its application gets QoS 2 exactly once, its window is kept, and each command has one fate at each
// device, which is true.
func TestCommandsAgainstAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(drawn{t, rt})
		rt.Repeat(map[string]func(*rapid.T){
			"connect":   func(rt *rapid.T) { m.device(rt).connect(rt) },
			"leave":     func(rt *rapid.T) { m.device(rt).leave(rt) },
			"read":      func(rt *rapid.T) { m.device(rt).read(rt) },
			"answer":    func(rt *rapid.T) { m.device(rt).answer(rt) },
			"send":      m.command,
			"send more": m.command,
			"cancel":    m.cancel,
			"sweep":     func(*rapid.T) { m.pass(1) },
		})
		for _, d := range m.devices {
			d.finish(rt)
		}
		m.settled()
		m.judge()
	})
}

func newModel(t drawn) *model {
	memory := rapid.SampledFrom([]int64{1 << 20, 100_000}).Draw(t.rt, "memory")
	m := &model{}
	m.dispatcher = newWorldOn(t, narrowListener(t), func(c *Config) {
		c.CommandsInFlight, c.CommandsQueued, c.CommandMemory = 5, 8, memory
	}).dispatcher()
	for i := range 3 {
		d := &modelDevice{m: m, id: fmt.Sprint("dev", i), qos: []int{2, 2, 1}[i], received: map[uint16]bool{}, refused: map[int]bool{}}
		m.devices = append(m.devices, d)
		d.connect(t.rt)
	}
	return m
}

func (m *model) device(rt *rapid.T) *modelDevice {
	return rapid.SampledFrom(m.devices).Draw(rt, "device")
}

func (m *model) command(rt *rapid.T) {
	c := &Command{Topic: []byte("t"), QoS: byte(rapid.IntRange(0, 2).Draw(rt, "QoS"))}
	payload := strconv.Itoa(len(m.all)) + "|"
	if rapid.IntRange(0, 5).Draw(rt, "large") == 5 {
		payload += strings.Repeat("x", rapid.SampledFrom([]int{5000, commandBytes, 60_000}).Draw(rt, "bytes"))
	}
	c.Payload = []byte(payload)
	switch rapid.IntRange(0, 5).Draw(rt, "expiry") {
	case 0:
		c.Expires = past()
	case 1:
		c.Expires = time.Now().Add(time.Duration(rapid.IntRange(0, 3).Draw(rt, "milliseconds")) * time.Millisecond)
	case 2:
		c.Expires = late
	}
	c.Connected = rapid.IntRange(0, 3).Draw(rt, "connected") == 0
	if rapid.Bool().Draw(rt, "to one") {
		c.To = m.device(rt).id
	}
	m.all = append(m.all, c)
	m.send(c)
}

func (m *model) cancel(rt *rapid.T) {
	if len(m.all) > 0 {
		rapid.SampledFrom(m.all).Draw(rt, "command").Cancel()
	}
}

func (d *modelDevice) connect(rt *rapid.T) {
	h := persistent(rapid.SampledFrom([]byte{4, 5}).Draw(rt, "version"), d.id)
	d.window = 5
	if n := rapid.IntRange(0, 6).Draw(rt, "Receive Maximum"); h.version == 5 && n > 0 {
		h.props = cat(h.props, 0x21, uint16(n))
		d.window = min(d.window, n)
	}
	h.persist = rapid.IntRange(0, 4).Draw(rt, "clean") > 0
	d.renew(h)
}

// renew connects, perhaps while an older connection of the device is open.
func (d *modelDevice) renew(h hello) {
	old := d.c
	d.c = d.m.connect(h)
	if old != nil {
		_ = old.nc.Close()
	}
	_ = d.c.nc.SetReadBuffer(16 << 10)
	d.last, d.open, d.owed = -1, map[uint16]bool{}, nil
	if !d.c.present() {
		d.received = map[uint16]bool{}
		d.c.subscribe("t", d.qos)
	}
}

func (d *modelDevice) leave(rt *rapid.T) {
	if d.c == nil {
		return
	}
	switch rapid.SampledFrom([]string{"DISCONNECT", "reset", "close"}).Draw(rt, "how") {
	case "DISCONNECT":
		d.c.send(packet(0xE0))
	case "reset":
		_ = d.c.nc.SetLinger(0)
	}
	_ = d.c.nc.Close()
	if rapid.Bool().Draw(rt, "noticed") {
		d.m.left(d.id)
	}
	d.c, d.owed = nil, nil
}

// read takes all that the server has for the device now.
func (d *modelDevice) read(rt *rapid.T) {
	if d.c == nil {
		return
	}
	d.c.send(pingreq)
	for {
		first, body := d.c.read()
		switch first >> 4 {
		case typePublish:
			reject := d.c.version == 5 && rapid.IntRange(0, 9).Draw(rt, "reject") == 0
			d.publish(first, body, reject)
		case typePubrel:
			id := binary.BigEndian.Uint16(body)
			delete(d.received, id)
			d.owed = append(d.owed, owed{0x70, id, Success})
		default:
			require.Equal(d.m.t, byte(0xD0), first, "what the server sends")
			return
		}
	}
}

func (d *modelDevice) publish(first byte, body []byte, reject bool) {
	t := d.m.t
	qos, again := int(first>>1&3), first&8 != 0
	body = body[3:] // the topic
	id := uint16(0)
	if qos > 0 {
		id, body = binary.BigEndian.Uint16(body), body[2:]
	}
	if d.c.version == 5 {
		r := cursor{b: body}
		r.take(r.varint())
		body = r.b
	}
	digits, _, _ := strings.Cut(string(body), "|")
	number, err := strconv.Atoi(digits)
	require.NoError(t, err)
	require.Equal(t, min(d.qos, int(d.m.all[number].QoS)), qos)
	require.Greater(t, number, d.last, "the order of commands on a connection")
	d.last = number
	if qos == 0 {
		require.False(t, again)
		d.log = append(d.log, number)
		return
	}
	require.NotZero(t, id)
	require.NotContains(t, d.open, id, "a packet identifier in use")
	if !again {
		require.NotContains(t, d.received, id, "a packet identifier in use")
	}
	d.open[id] = true
	require.LessOrEqual(t, len(d.open), d.window, "the window")
	d.take(number, qos, id, reject)
}

// take hands the message over unless it was before, and owes the answer.
func (d *modelDevice) take(number, qos int, id uint16, reject bool) {
	answer := owed{0x40, id, Success}
	if qos == 2 {
		answer.kind = 0x50
	}
	switch {
	case qos == 2 && d.received[id]:
	case reject:
		answer.code = QuotaExceeded
		d.refused[number] = true
	default:
		d.log = append(d.log, number)
		if qos == 2 {
			d.received[id] = true
		}
	}
	d.owed = append(d.owed, answer)
}

// answer gives one of the answers, in any order.
func (d *modelDevice) answer(rt *rapid.T) {
	if len(d.owed) == 0 {
		return
	}
	i := 0
	if rapid.IntRange(0, 3).Draw(rt, "out of order") == 0 {
		i = rapid.IntRange(0, len(d.owed)-1).Draw(rt, "which")
	}
	a := d.owed[i]
	d.owed = append(d.owed[:i:i], d.owed[i+1:]...)
	if a.code != Success {
		d.c.send(packet(a.kind, a.id, a.code))
	} else {
		d.c.send(packet(a.kind, a.id))
	}
	if a.kind != 0x50 || a.code != Success {
		delete(d.open, a.id)
	}
}

// finish lets the device complete everything, and ends its session.
func (d *modelDevice) finish(rt *rapid.T) {
	if d.c == nil {
		d.window = 5
		d.renew(persistent(4, d.id))
	}
	o := d.m.outbox(d.id)
	for check := enough(d.m.t); !o.idle() || len(d.owed) > 0; check() {
		d.read(rt)
		for len(d.owed) > 0 {
			d.answer(rt)
		}
	}
	d.read(rt)
	d.c.send(packet(0xE0))
	require.NoError(d.m.t, d.c.nc.Close())
	d.c = d.m.connect(hello{version: 4, id: d.id})
	require.NoError(d.m.t, d.c.nc.Close())
}

func (o *outbox) idle() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.queue) == 0 && len(o.flight) == 0 && len(o.handouts) == 0
}

// judge holds the fates to what the applications got.
func (m *model) judge() {
	for _, d := range m.devices {
		got := map[int]int{}
		last := -1
		for _, number := range d.log {
			if got[number] == 0 && !d.refused[number] { // it may change its mind when it is asked again
				require.Greater(m.t, number, last, "the order in which %s's application got them first: %v", d.id, d.log)
				last = number
			}
			got[number]++
		}
		for number, c := range m.all {
			for _, f := range m.fates[c] {
				if f.client == d.id {
					m.judgeOne(f, got[number], min(int(c.QoS), d.qos))
				}
			}
		}
	}
}

func (m *model) judgeOne(f fated, got, qos int) {
	if qos != 1 {
		require.LessOrEqual(m.t, got, 1, "%v with QoS %d", f, qos)
	}
	switch f.fate {
	case Delivered:
		require.NotZero(m.t, qos)
		require.Positive(m.t, got, "%v with QoS %d", f, qos)
	case Sent:
		require.Zero(m.t, qos)
	case Cancelled, Dropped:
		require.Zero(m.t, got, "%v with QoS %d", f, qos)
	case Expired:
		require.True(m.t, qos == 1 || got == 0, "%v with QoS %d", f, qos) // QoS 1 may expire before it is sent again
	case Rejected:
		require.True(m.t, qos == 1 || got == 0, "%v with QoS %d", f, qos)
	}
}
