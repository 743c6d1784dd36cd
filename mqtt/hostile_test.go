package mqtt

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/tls/tlstest"
)

func TestHalfSentPacketsCostWhatCame(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.MaxPacketSize = 268435460 })
		before := heap()
		for i := range 30 {
			c := w.device(v, fmt.Sprint(i))
			c.send(0x30, vbi(250_000_000), str("t"), strings.Repeat("x", 1000))
		}
		until(t, "all was read", func() bool { return count(w.s.m.bytesIn) > 30*1000 })
		w.device(v, "other").ping()
		require.Zero(t, w.s.partial.Load())
		require.Less(t, heap(), before+(16<<20), "not what their headers announce")
	})
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestIncompletePacketsAreBoundedOverAllConnections(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.MaxPacketSize, c.MaxPartialBytes = 1<<20, 300_000 })
		half := pub{topic: "t", payload: strings.Repeat("x", 130_000)}.packet(v)
		first := w.device(v, "first")
		first.send(half[:120_000])
		until(t, "counted", func() bool { return w.s.partial.Load() >= 120_000 })
		second := w.device(v, "second")
		second.send(half[:120_000])
		until(t, "counted", func() bool { return w.s.partial.Load() >= 240_000 })
		third := w.device(v, "third")
		_, _ = third.nc.Write(half[:120_000])
		third.goodbye(ServerBusy)
		require.LessOrEqual(t, w.s.partial.Load(), int64(300_000))
		first.send(half[120_000:])
		require.Len(t, w.next().Payload, 130_000)
		_ = second.nc.Close()
		until(t, "given back", func() bool { return w.s.partial.Load() == 0 })
		third = w.device(v, "third")
		third.send(half)
		require.Len(t, w.next().Payload, 130_000)
	})
}

// A stingy conn keeps what it is to send of its connection, and gives it when asked.
type stingy struct {
	*net.TCPConn
	keeps bool
	kept  []byte
}

func (s *stingy) Write(b []byte) (int, error) {
	if !s.keeps {
		return s.TCPConn.Write(b)
	}
	s.kept = append(s.kept, b...)
	return len(b), nil
}

func (s *stingy) give(n int) (err error) {
	n, err = s.TCPConn.Write(s.kept[:n])
	s.kept = s.kept[n:]
	return err
}

// TestHalfRecordsOfTLSAreCounted with the incomplete packets, whether they are to be refused or to become whole.
func TestHalfRecordsOfTLSAreCounted(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorldBehind(t, layers{tls: true}, func(c *Config) { c.MaxPartialBytes = 66_000 })
		w.gate.config.DynamicRecordSizingDisabled = true
		half := func(id string, n int) (*client, *stingy) {
			nc, err := net.Dial("tcp", w.addr)
			require.NoError(t, err)
			t.Cleanup(func() { _ = nc.Close() })
			s := &stingy{TCPConn: nc.(*net.TCPConn)}
			c := &client{t: t, nc: s.TCPConn, pipe: w.gate.pass(t, s), version: v}
			c.in = bufio.NewReader(c.pipe)
			c.send(hello{version: v, id: id}.packet())
			c.read()
			s.keeps = true
			c.publish(pub{topic: "t", payload: strings.Repeat("x", 16_000)})
			require.NoError(t, s.give(n))
			return c, s
		}
		var slow []*stingy
		for i := range 4 {
			_, s := half(fmt.Sprint(i), 13_000)
			until(t, "counted", func() bool { return w.s.partial.Load() >= int64(13_000*(i+1)) })
			slow = append(slow, s)
		}
		greedy, _ := half("greedy", 16_000)
		greedy.goodbye(ServerBusy)
		_, short := half("short", 900)
		require.NoError(t, short.give(len(short.kept)))
		require.Len(t, w.next().Payload, 16_000, "a little of a record is not counted")
		for _, s := range slow[:3] {
			require.NoError(t, s.give(len(s.kept)))
			require.Len(t, w.next().Payload, 16_000)
		}
		until(t, "the packets are whole", func() bool { return w.s.partial.Load() < 2*13_000 })
		require.NoError(t, slow[3].Close())
		until(t, "given back", func() bool { return w.s.partial.Load() == 0 })
	})
}

func TestPacketsAboveTheMaximumPacketSizeAreRefusedByTheirHeader(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.MaxPacketSize = 1000 })
		c := w.device(v, "dev")
		fits := pub{topic: "t", payload: strings.Repeat("x", 990)}.packet(v)
		for len(fits) > 1000 {
			fits = pub{topic: "t", payload: strings.Repeat("x", 990-(len(fits)-1000))}.packet(v)
		}
		c.send(fits)
		w.next()
		c.send(0x30, vbi(998)) // 1001 with its header of 3
		c.goodbye(PacketTooLarge)
	})
}

func TestPanicOfTheHandlerCostsOnlyThatConnection(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		w.answer = func(m *Message) {
			if string(m.Topic) == "bug" {
				panic("a bug")
			}
			w.got <- m
		}
		other := w.device(v, "other")
		for qos := range 3 {
			c := w.stored(v, "dev")
			c.publish(pub{topic: "bug", qos: qos, id: uint16(qos)})
			c.goodbye(UnspecifiedError)
			require.Equal(t, qos+1, count(w.s.m.panics))
		}
		other.ping()
		c := w.stored(v, "dev")
		require.True(t, c.present())
		c.publish(pub{topic: "fine", qos: 2, id: 2}.again())
		require.Equal(t, "fine", string(w.next().Topic), "the packet id is not lost to a message nobody answers for")
	})
}

// A failing listener gives errors, then connections of the real one.
type failing struct {
	net.Listener
	mu   sync.Mutex
	errs []error
}

func (l *failing) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.errs) > 0 {
		err := l.errs[0]
		l.errs = l.errs[1:]
		return nil, err
	}
	l.mu.Unlock()
	defer l.mu.Lock()
	return l.Listener.Accept()
}

func TestEveryErrorOfAcceptIsSurvived(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	errs := []error{errors.New("accept4: too many open files"), net.ErrClosed, io.EOF, &net.OpError{Op: "accept", Err: errors.New("reset")}}
	w := newWorldOn(t, &failing{Listener: l, errs: errs}, nil)
	w.device(4, "dev").ping()
	require.Equal(t, len(errs), count(w.s.m.acceptErrors))
}

func TestConnectionsOfOtherKindsAreClosed(t *testing.T) {
	w := newWorld(t, nil)
	ours, theirs := net.Pipe()
	w.s.accept(ours, &Endpoint{})
	_ = theirs.SetReadDeadline(time.Now().Add(tooLong))
	_, err := theirs.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

func TestDeviceThatClosesInsideEverythingCostsNothing(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		stream := cat(hello{version: v, id: "dev", keep: 5}.packet(), pub{topic: "t", payload: "x", qos: 1, id: 1}.packet(v),
			pub{topic: "t", payload: "x", qos: 2, id: 2}.packet(v), pubrel(2), pingreq)
		for cut := range stream {
			c := w.dial(v)
			c.send(stream[:cut])
			_ = c.nc.Close()
		}
		_ = w.device(v, "last").nc.Close() // all before it are accepted
		w.ended()
		for len(w.got) > 0 {
			w.ack(w.next())
		}
		require.Zero(t, w.s.partial.Load())
		require.Zero(t, w.s.sessions.storedCount())
		require.Zero(t, count(w.s.m.panics))
		require.Zero(t, count(w.s.m.connections.WithLabelValues(versionName(v))))
	})
}

func TestConnectionsAreCountedByVersion(t *testing.T) {
	w := newWorld(t, nil)
	w.device(4, "a")
	w.device(5, "b")
	w.device(5, "c")
	w.dial(4)
	require.Equal(t, 1, count(w.s.m.connections.WithLabelValues("3.1.1")))
	require.Equal(t, 2, count(w.s.m.connections.WithLabelValues("5")))
}

// TestConnectIsNotKeptInMemory: what CONNECT said and nobody needs again, a password above all, is let go.
func TestConnectIsNotKeptInMemory(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		const devices, password = 60, 60_000
		w := newWorld(t, nil)
		before := heap()
		for i := range devices {
			h := persistent(v, fmt.Sprint(i))
			h.username, h.password = "u", strings.Repeat("p", password)
			if i%2 == 0 {
				h.will = &lastWill{topic: "w", payload: "gone"}
			}
			w.connect(h)
		}
		require.Less(t, heap(), before+devices*password/4)
	})
}

// TestTopicAliasesAreBounded: what ordinary devices need is never refused, a connection has a bound for more, and so have
// all together.
func TestTopicAliasesAreBounded(t *testing.T) {
	set := func(alias uint16, length int) pub {
		return pub{topic: strings.Repeat("x", length), props: cat(0x23, alias)}
	}
	w := newWorld(t, func(c *Config) { c.MaxExtraBytes = 100_000 })
	w.answer = func(m *Message) { m.Ack(Success) }
	ordinary := w.device(5, "ordinary")
	for round := range 3 {
		for alias := range uint16(16) {
			ordinary.publish(set(alias+1, 30+round))
		}
	}
	ordinary.ping()
	require.Zero(t, w.s.extra.used.Load())

	long := w.device(5, "long")
	for range 10 {
		long.publish(set(16, 60_000)) // in place of the one before
	}
	long.ping()
	require.EqualValues(t, 60_000+16*aliasOverhead-aliasesUncounted, w.s.extra.used.Load())
	other := w.device(5, "other")
	other.publish(set(1, 60_000))
	other.goodbye(QuotaExceeded)
	ordinary.publish(set(1, 20))
	ordinary.ping()
	long.publish(set(15, 6_000))
	long.goodbye(QuotaExceeded)
	until(t, "given back", func() bool { return w.s.extra.used.Load() == 0 })
	other = w.device(5, "other")
	other.publish(set(1, 60_000))
	other.publish(set(1, 100))
	other.ping()
	require.Zero(t, w.s.extra.used.Load(), "a shorter one takes less")
}

// TestWhatTLSKeepsOfLargeRecordsIsBounded over all connections: whoever has it keep more than there is room for is disconnected,
// and the others are served.
func TestWhatTLSKeepsOfLargeRecordsIsBounded(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorldBehind(t, layers{tls: true}, func(c *Config) { c.MaxRecordBytes = 22_000 })
		w.gate.config.DynamicRecordSizingDisabled = true
		large := pub{topic: "t", payload: strings.Repeat("x", 16_000)}
		var first []*client
		for i := range 2 {
			c := w.device(v, fmt.Sprint(i))
			for range 3 {
				c.publish(large)
				require.Len(t, w.next().Payload, 16_000)
			}
			first = append(first, c)
		}
		used := w.s.records.used.Load()
		require.Greater(t, used, int64(2*7_000), "as much as the largest of each")
		third := w.device(v, "third")
		third.publish(pub{topic: "t", payload: strings.Repeat("x", 3_000)})
		require.Len(t, w.next().Payload, 3_000)
		third.publish(large)
		require.Len(t, w.next().Payload, 16_000)
		third.goodbye(QuotaExceeded)
		first[0].publish(large)
		require.Len(t, w.next().Payload, 16_000)
		require.Equal(t, used, w.s.records.used.Load())
		_ = first[0].nc.Close()
		until(t, "given back", func() bool { return w.s.records.used.Load() == used/2 })
	})
}

// TestWhatAHandshakeMakesTLSKeepIsBounded over all connections, before any login: a long hello counts while the handshake lasts with what is
// parsed of it, then with what is kept. Whoever says a short one is let in.
func TestWhatAHandshakeMakesTLSKeepIsBounded(t *testing.T) {
	log := &safeBuffer{}
	w := newWorldBehind(t, layers{tls: true}, func(c *Config) { c.MaxRecordBytes, c.Logger = 170_000, zerolog.New(log) })
	short := w.gate.config
	long := short.Clone()
	for range 56 {
		long.NextProtos = append(long.NextProtos, strings.Repeat("x", 250))
	}
	w.gate.config = long
	first := w.device(5, "first")
	first.ping()
	used := w.s.records.used.Load()
	require.Greater(t, used, int64(14_000), "its buffers stay")
	require.Less(t, used, int64(20_000), "what was parsed does not")

	nc, err := net.Dial("tcp", w.addr)
	require.NoError(t, err)
	defer nc.Close()
	if secure, err := tlstest.Client(t.Context(), nc, long); err == nil { // it doesn't wait for the end of ours
		_, err = secure.Read(make([]byte, 1))
		require.Error(t, err)
	}
	until(t, "the line of the end", func() bool { return strings.Contains(log.String(), "too much memory") })
	require.Equal(t, used, w.s.records.used.Load())
	w.gate.config = short
	w.device(5, "short").ping()
	require.Equal(t, used, w.s.records.used.Load(), "it has nothing counted")

	_ = first.nc.Close()
	until(t, "given back", func() bool { return w.s.records.used.Load() == 0 })
	w.gate.config = long
	w.device(5, "again").ping()
}
