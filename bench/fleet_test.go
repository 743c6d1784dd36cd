package bench

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/bench/wire"
)

// A puppet is an MQTT server that the test plays: it answers CONNECT, PINGREQ and SUBSCRIBE, and gives every PUBLISH to
// the test.
type puppet struct {
	t        *testing.T
	listener net.Listener
	version  byte
	publish  func(nc net.Conn, connection int, m *wire.Message) bool // false: the connection is closed
	// subscribed is called with a connection that has subscribed, on a goroutine of its own.
	subscribed func(nc net.Conn)
	mute       bool // it answers no PINGREQ
	connack    []byte

	wg    sync.WaitGroup
	mu    sync.Mutex
	count int // of connections
}

func play(t *testing.T, p *puppet) Target {
	t.Helper()
	var err error
	p.listener, err = net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p.t = t
	if p.version == 0 {
		p.version = 4
	}
	p.wg.Go(func() { // ends with the listener
		for {
			nc, err := p.listener.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.count++
			n := p.count
			p.mu.Unlock()
			p.wg.Go(func() { p.serve(nc, n) }) // ends with the connection
		}
	})
	t.Cleanup(func() {
		_ = p.listener.Close()
		p.wg.Wait()
	})
	return Target{Addresses: []string{p.listener.Addr().String()}, Version: p.version, ClientID: "{run}-{device}", KeepAlive: time.Minute}
}

func (p *puppet) serve(nc net.Conn, n int) {
	defer nc.Close()
	in := make([]byte, 0, 1<<16)
	for {
		first, body, rest, ok, err := wire.Cut(in)
		if err != nil {
			return
		}
		if !ok {
			k, err := nc.Read(in[len(in):cap(in)])
			if err != nil {
				return
			}
			in = in[:len(in)+k]
			continue
		}
		if !p.answer(nc, n, first, body) {
			return
		}
		in = in[:copy(in[:cap(in)], rest)]
	}
}

func (p *puppet) answer(nc net.Conn, n int, first byte, body []byte) bool {
	switch first >> 4 {
	case 1:
		hello := []byte{0x20, 2, 0, 0}
		if p.connack != nil {
			hello = p.connack
		}
		_, _ = nc.Write(hello)
	case wire.PUBLISH:
		m, err := wire.ParsePublish(first, body, p.version)
		if err != nil {
			p.t.Error(err)
		}
		return p.publish(nc, n, m)
	case wire.PUBREL:
		_, _ = nc.Write([]byte{0x70, 2, body[0], body[1]})
	case 8:
		_, _ = nc.Write([]byte{0x90, 3, body[0], body[1], 1})
		if p.subscribed != nil {
			p.subscribed(nc)
		}
	case 12:
		if !p.mute {
			_, _ = nc.Write([]byte{0xD0, 0})
		}
	case 14:
		return false
	}
	return true
}

func acknowledge(nc net.Conn, kind byte, id uint16) bool {
	_, err := nc.Write(binary.BigEndian.AppendUint16([]byte{kind, 2}, id))
	return err == nil
}

// TestALostConnectionIsMadeAgainAndSaysWhatItRepeats: what was acknowledged before is not sent again.
func TestALostConnectionIsMadeAgainAndSaysWhatItRepeats(t *testing.T) {
	for _, qos := range []byte{1, 2} {
		v := newVerdict("r", 1)
		var mu sync.Mutex
		answered := 0
		ctx, enough := context.WithCancel(t.Context())
		target := play(t, &puppet{publish: func(nc net.Conn, connection int, m *wire.Message) bool {
			mu.Lock()
			defer mu.Unlock()
			v.record(place{"t", 0}, 0, m.Payload)
			if answered == 7 && connection == 1 {
				return false // one of the window was stored, the others are lost
			}
			answered++
			if connection > 1 && answered > 20 {
				enough()
			}
			return acknowledge(nc, 0x30+qos<<4, m.ID) // PUBACK or PUBREC
		}})
		r := Publish{Target: target, Run: "r", Connections: 1, QoS: qos, Window: 4, Size: 100, Topic: "t/{client_id}", Duration: time.Minute, Wait: time.Minute, Keep: true}.New()
		require.NoError(t, r.Connect(ctx))
		out := r.Publish(ctx)
		require.NoError(t, out.Err())
		require.Equal(t, 1, out.Connections.Lost)
		require.Equal(t, 1, out.Connections.Again)
		require.Equal(t, out.Sent, out.Acknowledged)
		require.Zero(t, out.Unacknowledged)
		require.Positive(t, out.Repeated)
		require.LessOrEqual(t, out.Repeated, 4)
		back := v.judge(out.ledger, qos)
		require.NoError(t, back.Err())
		require.Equal(t, 1, back.Repeats)
		require.Equal(t, out.Sent+1, back.Records)
	}
}

// TestTheWindowIsWhatTheServerAllows, and no more is unacknowledged than the window.
func TestTheWindowIsWhatTheServerAllows(t *testing.T) {
	var mu sync.Mutex
	var held []uint16
	most, answered := 0, 0
	ctx, enough := context.WithCancel(t.Context())
	target := play(t, &puppet{version: 5, connack: []byte{0x20, 6, 0, 0, 3, 0x21, 0, 3}, publish: func(nc net.Conn, _ int, m *wire.Message) bool {
		mu.Lock()
		defer mu.Unlock()
		held = append(held, m.ID)
		most = max(most, len(held))
		if len(held) == 3 {
			for _, id := range held {
				acknowledge(nc, 0x40, id)
			}
			if answered += len(held); answered > 10 {
				enough()
			}
			held = nil
		}
		return true
	}})
	r := Publish{Target: target, Run: "r", Connections: 1, QoS: 1, Window: 10, Size: 100, Topic: "t", Duration: time.Minute, Wait: time.Second}.New()
	require.NoError(t, r.Connect(ctx))
	out := r.Publish(ctx)
	require.NoError(t, out.Err())
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, 3, most)
	require.Greater(t, out.Acknowledged, 10)
	require.Equal(t, out.Sent, out.Acknowledged+out.Unacknowledged)
}

// TestRefusedMessagesAreCountedApart, and are a fault only where nothing else came.
func TestRefusedMessagesAreCountedApart(t *testing.T) {
	target := play(t, &puppet{version: 5, connack: []byte{0x20, 3, 0, 0, 0}, publish: func(nc net.Conn, _ int, m *wire.Message) bool {
		_, err := nc.Write([]byte{0x40, 3, byte(m.ID >> 8), byte(m.ID), 0x87})
		return err == nil
	}})
	r := Publish{Target: target, Run: "r", Connections: 1, QoS: 1, Window: 10, Size: 100, Topic: "t", Duration: time.Second / 10, Wait: time.Minute}.New()
	require.NoError(t, r.Connect(t.Context()))
	out := r.Publish(t.Context())
	require.Equal(t, out.Sent, out.Refused)
	require.Equal(t, []string{"PUBACK 0x87"}, out.Refusals)
	require.ErrorContains(t, out.Err(), "no message was acknowledged: refused with PUBACK 0x87")
}

// TestAPacedLoadKeepsItsPaceAndCountsFromWhenAMessageWasDue: a server that answers nothing for a while shows in the times
// of all that should have been sent meanwhile.
func TestAPacedLoadKeepsItsPaceAndCountsFromWhenAMessageWasDue(t *testing.T) {
	const still = time.Second / 2
	var once sync.Once
	target := play(t, &puppet{publish: func(nc net.Conn, _ int, m *wire.Message) bool {
		once.Do(func() { time.Sleep(still) }) // the server stands still
		return acknowledge(nc, 0x40, m.ID)
	}})
	r := Publish{Target: target, Run: "r", Connections: 1, QoS: 1, Window: 100, Size: 100, Rate: 1000, Topic: "t", Duration: time.Second, Wait: time.Minute}.New()
	require.NoError(t, r.Connect(t.Context()))
	begin := time.Now()
	out := r.Publish(t.Context())
	require.NoError(t, out.Err())
	require.LessOrEqual(t, float64(out.Sent), time.Since(begin).Seconds()*1000+1)
	late := 0 // of the 500 or so that were due in that time, half waited for 250 ms and more; a hundred were sent in it
	for i := bucket(250_000); i < len(r.times.counts); i++ {
		late += int(r.times.counts[i].Load())
	}
	require.Greater(t, late, 200)
}

func TestAServerThatDoesNotAnswerItsPingIsNotAlive(t *testing.T) {
	target := play(t, &puppet{mute: true})
	r := Hold{Target: target, Run: "r", Connections: 3, Duration: time.Second / 10, Wait: time.Second / 5}.New()
	require.NoError(t, r.Connect(t.Context()))
	out := r.Hold(t.Context())
	require.Zero(t, out.Alive)
	require.ErrorContains(t, out.Err(), "3 connections did not answer a PINGREQ")
}

// TestWhoCannotConnectIsCountedWithTheReason.
func TestWhoCannotConnectIsCountedWithTheReason(t *testing.T) {
	f := func(connack []byte, version byte, want string) {
		t.Helper()
		target := play(t, &puppet{version: version, connack: connack})
		err := Hold{Target: target, Run: "r", Connections: 2, Duration: time.Second, Wait: time.Second}.New().Connect(t.Context())
		require.EqualError(t, err, "2 of 2 devices could not connect: "+want)
	}
	f([]byte{0x20, 2, 0, 5}, 4, "CONNACK 0x05")
	f([]byte{0x20, 6, 0, 0x87, 3, 0x1F, 0, 0}, 5, "CONNACK 0x87")
	f([]byte{0x20, 8, 0, 0x87, 5, 0x1F, 0, 2, 'n', 'o'}, 5, `CONNACK 0x87: "no"`)
	f([]byte{0x20, 3, 0, 0, 9}, 5, "CONNACK: a packet is cut short")
	f([]byte{0x30, 2, 0, 0}, 4, "the first packet of the server begins with 0x30 and is no CONNACK")
}

// TestAReceiverFindsWhatCameAgainOrOutOfOrder and what is not its own.
func TestAReceiverFindsWhatCameAgainOrOutOfOrder(t *testing.T) {
	r, err := Commands{Target: Target{Version: 4}, Run: "r", Connections: 1, QoS: 2}.New(testKafka)
	require.NoError(t, err)
	d, c := r.receivers[0], &conn{}
	send := func(seq uint64, first byte, id uint16) {
		body := binary.BigEndian.AppendUint16(wire.Text(nil, "t"), id)
		require.NoError(t, d.packet(c, first, append(body, value("r", 0, seq)...)))
	}
	send(1, 0x34, 1)
	send(1, 0x3C, 1) // a repeat of QoS 2 that is not released is no delivery
	require.Equal(t, []byte{0x50, 2, 0, 1, 0x50, 2, 0, 1}, c.out)
	require.NoError(t, d.packet(c, 0x62, []byte{0, 1}))
	send(3, 0x34, 1)
	send(2, 0x32, 2)
	send(3, 0x32, 3)
	d.deliver([]byte("not of this run"))
	d.deliver(value("r", 1, 1))
	r.acked[0] = runs{{1, 4}}
	r.written.Store(4)
	d.subscribed, d.m.left = true, true
	var out CommandsResult
	r.judge(&out)
	require.Equal(t, [5]int{3, 1, 1, 1, 2}, [5]int{out.Received, out.Lost, out.Doubled, out.Disordered, out.Strange})
	for _, want := range []string{"1 commands did not come", "1 commands came again", "1 commands came out of order"} {
		require.ErrorContains(t, out.Err(), want)
	}
}

// TestWhatWasNotPromisedIsNotLost: with QoS 0, and what was written while a device was not subscribed, or was on its way then.
func TestWhatWasNotPromisedIsNotLost(t *testing.T) {
	f := func(lost, not int, then func(d *receiver, c *conn, send func(first byte, seqs ...uint64), suback func())) {
		t.Helper()
		r, err := Commands{Target: Target{Version: 4}, Run: "r", Connections: 1, QoS: 1}.New(testKafka)
		require.NoError(t, err)
		d, c := r.receivers[0], &conn{}
		suback := func() { require.NoError(t, d.packet(c, 0x90, []byte{0, 1, 1})) }
		d.connected(c)
		suback()
		d.m.left = true
		then(d, c, func(first byte, seqs ...uint64) {
			for _, seq := range seqs {
				body := wire.Text(nil, "t")
				if first > 0x30 {
					body = append(body, 0, 1)
				}
				require.NoError(t, d.packet(c, first, append(body, value("r", 0, seq)...)))
			}
		}, suback)
		r.acked[0] = runs{{1, r.seq[0].Load()}}
		var out CommandsResult
		r.judge(&out)
		require.Equal(t, [2]int{lost, not}, [2]int{out.Lost, out.NotReceived})
	}
	write := func(d *receiver, n uint64) { d.r.seq[0].Add(n) }
	f(2, 0, func(d *receiver, _ *conn, send func(byte, ...uint64), _ func()) {
		write(d, 5)
		send(0x32, 1, 2, 4)
	})
	f(0, 2, func(d *receiver, _ *conn, send func(byte, ...uint64), _ func()) {
		write(d, 5)
		send(0x30, 1, 2, 4)
	})
	f(2, 3, func(d *receiver, c *conn, send func(byte, ...uint64), suback func()) {
		write(d, 4)
		send(0x32, 1, 3) // 2 is lost, 4 was on its way
		d.connected(c)
		write(d, 2)
		suback()
		write(d, 2)
		send(0x32, 8) // 7 is lost
	})
	f(0, 2, func(d *receiver, _ *conn, send func(byte, ...uint64), _ func()) {
		write(d, 3)
		send(0x32, 1)
		d.m.left = false // the connection was lost at the end
	})
}

// TestWhatWaitsForKafkaIsBounded: what is due while it is away is counted and not kept.
func TestWhatWaitsForKafkaIsBounded(t *testing.T) {
	r, err := Commands{Target: Target{Version: 4}, Run: "r", Connections: 3, QoS: 1, Size: MinCommand, Rate: 1000}.New(testKafka)
	require.NoError(t, err)
	ctx, enough := context.WithCancel(t.Context())
	full := mostOpen - mostOpen%r.weight() - r.weight()
	r.open.Store(full)
	var pacing sync.WaitGroup
	pacing.Go(func() { r.pace(ctx) }) // ends with ctx
	require.Eventually(t, func() bool { return r.late.Load() > 0 }, time.Minute, time.Millisecond)
	enough()
	pacing.Wait()
	var given uint64
	for i := range r.seq {
		given += r.seq[i].Load()
	}
	require.EqualValues(t, 2, given)
	var out CommandsResult
	r.judge(&out)
	require.Equal(t, r.due-2, out.Late)
	require.Positive(t, out.Late)
}
