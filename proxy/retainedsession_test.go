package proxy

import (
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRetainedMessageInFlightIsSentAgain to a session that lasts, under its packet identifier [MQTT-4.4.0-1], by the same
// instance and by another one, also when another value has replaced it meanwhile.
func TestRetainedMessageInFlightIsSentAgain(t *testing.T) {
	t.Parallel()
	s := found(t, 3, "publish: [{match: \"#\", topic: t}]\n")
	all := []*instance{s.instance(), s.instance()}
	for _, in := range all {
		in.serve()
	}
	w := dial(t, all[0].addr, "writer", false)
	for from := range all {
		for to := range all {
			for qos := byte(1); qos <= 2; qos++ {
				for _, replaced := range []bool{false, true} {
					topic := fmt.Sprintf("keep/%d/%d/%d/%v", from, to, qos, replaced)
					require.Zero(t, w.retain(2, topic, "first"))
					id := lasting(fmt.Sprintf("d%d%d%d%v", from, to, qos, replaced))
					d := id.to(t, all[from].addr, false)
					d.subscribe(topic, qos)
					first := d.next()
					require.Equal(t, delivered{topic: topic, payload: "first", qos: qos, retain: true, id: first.id}, first)
					require.NoError(t, d.nc.Close())
					all[from].stored(id.id)
					if replaced {
						require.Zero(t, w.retain(2, topic, "second"))
					}
					d = id.to(t, all[to].addr, true)
					head, body := d.read()
					require.Equal(t, 0x39|qos<<1, head, "PUBLISH with DUP and RETAIN")
					require.Equal(t, first, decode(head, body))
					if qos == 1 {
						d.ack(first, 0)
					} else {
						d.complete(first)
					}
					d.leave()
					all[to].stored(id.id)
					d = id.to(t, all[from].addr, true)
					d.nothing()
					d.leave()
				}
			}
		}
	}
}

// TestRetainedMessageThatCannotBeReadKeepsNobodyOut: its partition has no leader. The device connects in time, takes part
// in all else, gets no PUBREL for what it never got, and is sent the message by who can read it.
func TestRetainedMessageThatCannotBeReadKeepsNobodyOut(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := found(t, 3, "publish: [{match: \"#\", topic: t}]\n"+toOne)
	well, cut := s.instance(), s.instance()
	cut.findAt("127.0.0.1:1") // where nobody answers
	well.serve()
	cut.serve()
	w := dial(t, well.addr, "writer", false)
	for qos := byte(1); qos <= 2; qos++ {
		topic := fmt.Sprint("keep/", qos)
		require.Zero(t, w.retain(2, topic, "x"))
		id := lasting(fmt.Sprint("d", qos))
		d := id.to(t, well.addr, false)
		d.subscribe(topic, qos)
		first := d.next()
		require.NoError(t, d.nc.Close())
		well.stored(id.id)

		began := time.Now()
		d = id.to(t, cut.addr, true)
		require.Less(t, time.Since(began), 2*retainedWait)
		d.subscribe("devices/+/x", 1)
		well.write(now("commands", id.id, "x", "name", "x"))
		m := d.next() // and no PUBREL before it
		require.NotEqual(t, first.id, m.id)
		d.ack(m, 0)
		d.leave()
		cut.stored(id.id)

		d = id.to(t, well.addr, true)
		head, body := d.read()
		require.Equal(t, 0x39|qos<<1, head, "PUBLISH with DUP and RETAIN")
		require.Equal(t, first, decode(head, body))
		if qos == 1 {
			d.ack(first, 0)
			d.leave()
			continue
		}
		d.send(0x50, []byte{byte(first.id >> 8), byte(first.id)})
		head, _ = d.read()
		require.Equal(t, byte(0x62), head, "PUBREL")
		_ = d.nc.Close()
		well.stored(id.id)
		began = time.Now()
		d = id.to(t, cut.addr, true)
		require.Less(t, time.Since(began), retainedWait, "PUBREL needs no message")
		head, body = d.read()
		require.Equal(t, []byte{0x62, byte(first.id >> 8), byte(first.id)}, append([]byte{head}, body[:2]...))
		d.send(0x70, body[:2])
		d.leave()
	}
}

// TestRetainedMessageIsSentAgainOnceItCanBeRead, on the connection that it could not be read for [MQTT-4.4.0-1].
func TestRetainedMessageIsSentAgainOnceItCanBeRead(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := found(t, 3, "publish: [{match: \"#\", topic: t}]\n")
	well, cut := s.instance(), s.instance()
	var open atomic.Bool
	cut.findAt(gateway(t, s.cluster.Brokers()[0], &open))
	well.serve()
	cut.serve()
	w := dial(t, well.addr, "writer", false)
	require.Zero(t, w.retain(2, "keep", "x"))
	var devices []*device
	var first []delivered
	for qos := byte(1); qos <= 2; qos++ {
		id := lasting(fmt.Sprint("d", qos))
		d := id.to(t, well.addr, false)
		d.subscribe("keep", qos)
		first = append(first, d.next())
		require.NoError(t, d.nc.Close())
		well.stored(id.id)
		devices = append(devices, id.to(t, cut.addr, true))
	}
	gone := lasting("gone").to(t, well.addr, false)
	gone.subscribe("keep", 1)
	gone.next()
	require.NoError(t, gone.nc.Close())
	well.stored("gone")
	lasting("gone").to(t, cut.addr, true).leave()
	cut.stored("gone")
	open.Store(true)
	for i, d := range devices {
		head, body := d.read()
		require.Equal(t, 0x39|first[i].qos<<1, head, "PUBLISH with DUP and RETAIN")
		require.Equal(t, first[i], decode(head, body))
		if first[i].qos == 1 {
			d.ack(first[i], 0)
		} else {
			d.complete(first[i])
		}
		d.nothing()
		d.leave()
	}
	require.Eventually(t, func() bool {
		cut.sessions.late.mu.Lock()
		defer cut.sessions.late.mu.Unlock()
		return len(cut.sessions.late.waiting) == 0
	}, patience, time.Millisecond)
}

// gateway leads to an address while it is open. It ends with the test.
func gateway(t *testing.T, to string, open *atomic.Bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() { // ends with the listener
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil || !open.Load() {
				_ = in.Close()
				if err == nil {
					_ = out.Close()
				}
				continue
			}
			for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
				go func() { // ends with either connection
					_, _ = io.Copy(way[0], way[1])
					_ = way[0].Close()
				}()
			}
		}
	}()
	return l.Addr().String()
}
