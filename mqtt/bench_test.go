package mqtt

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// atOnce is a Handler that acknowledges inside Publish.
type atOnce struct{}

func (atOnce) Admit(*Message, func()) bool { return true }
func (atOnce) Release(*Message)            {}
func (atOnce) Publish(m *Message)          { m.Ack(Success) }

// benchConn gives an open connection that is fed by hand and writes to a loopback socket that somebody reads.
func benchConn(tb testing.TB, version byte) *Conn {
	tb.Helper()
	s, err := New(DefaultConfig(), atOnce{})
	check(tb, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(tb, err)
	far, err := net.Dial("tcp", l.Addr().String())
	check(tb, err)
	near, err := l.Accept()
	check(tb, err)
	check(tb, l.Close())
	raw, err := near.(*net.TCPConn).SyscallConn()
	check(tb, err)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, far)
	}()
	tb.Cleanup(func() {
		_ = near.Close()
		<-drained
		_ = far.Close()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
	})
	c := &Conn{srv: s, nc: near.(*net.TCPConn), raw: raw}
	check(tb, c.feed(hello{version: version, id: "dev"}.packet()))
	return c
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// batch is n messages of 256 bytes, as they come in one read; with QoS 2 each with its PUBREL.
func batch(version byte, qos, n int) []byte {
	var b []byte
	for i := range n {
		b = append(b, pub{topic: "devices/d1/telemetry", payload: strings.Repeat("x", 256), qos: qos, id: uint16(i + 1)}.packet(version)...)
		if qos == 2 && i%2 == 1 {
			b = append(b, cat(pubrel(uint16(i)), pubrel(uint16(i+1)))...)
		}
	}
	return b
}

func BenchmarkPublish(b *testing.B) {
	const n = 32
	for _, version := range []byte{4, 5} {
		for qos := range 3 {
			b.Run(fmt.Sprintf("version=%s/qos=%d", versionName(version), qos), func(b *testing.B) {
				c, packets := benchConn(b, version), batch(version, qos, n)
				b.ReportAllocs()
				b.SetBytes(int64(len(packets) / n))
				for i := 0; i < b.N; i += n {
					check(b, c.feed(packets))
					c.flush()
				}
			})
		}
	}
}

// BenchmarkRoundTrip is one device that waits for each PUBACK, through the poller.
func BenchmarkRoundTrip(b *testing.B) {
	w := newWorld(b, nil)
	w.answer = func(m *Message) { m.Ack(Success) }
	c := w.device(4, "dev")
	p := batch(4, 1, 1)
	in := make([]byte, 4)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.nc.Write(p); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c.in, in); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStream is one device that keeps a window of messages in flight.
func BenchmarkStream(b *testing.B) {
	const window = 64
	w := newWorld(b, nil)
	w.answer = func(m *Message) { m.Ack(Success) }
	c := w.device(4, "dev")
	p := batch(4, 1, window)
	in := make([]byte, 4*window)
	b.ReportAllocs()
	for i := 0; i < b.N; i += window {
		if _, err := c.nc.Write(p); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c.in, in); err != nil {
			b.Fatal(err)
		}
	}
}
