package mqtt

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// A sink is a socket that takes everything at once: what is measured with it is ours and not the kernel's.
type sink struct{ fd uintptr }

func (s sink) Control(f func(uintptr)) error    { f(s.fd); return nil }
func (s sink) Read(f func(uintptr) bool) error  { f(s.fd); return nil }
func (s sink) Write(f func(uintptr) bool) error { f(s.fd); return nil }

// A fleet is a server with devices that are fed by hand and write to a sink. Each is subscribed to a topic of its
// own and to one of all.
type fleet struct {
	s     *Server
	conns []*Conn
}

func newFleet(b *testing.B, n int, version byte, qos int) *fleet {
	b.Helper()
	cfg := DefaultConfig()
	cfg.CommandMemory = 1 << 30
	s, err := New(cfg, atOnce{})
	check(b, err)
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	check(b, err)
	b.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
		check(b, null.Close())
	})
	f := &fleet{s: s}
	l, err := net.Listen("tcp", "127.0.0.1:0") // for an address to log, once for all
	check(b, err)
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	check(b, err)
	b.Cleanup(func() { _ = far.Close() })
	for i := range n {
		c := &Conn{srv: s, nc: far.(*net.TCPConn), raw: sink{null.Fd()}}
		check(b, c.feed(hello{version: version, id: fmt.Sprintf("dev-%05d", i)}.packet()))
		var none []byte
		if version == 5 {
			none = props()
		}
		check(b, c.feed(packet(0x82, uint16(1), none, str(fmt.Sprintf("fleet/dev-%05d/#", i)), qos, str("all/#"), qos)))
		f.conns = append(f.conns, c)
	}
	f.flush()
	return f
}

// flush is what the flusher does after Flush.
func (f *fleet) flush() {
	fl := &f.s.flusher
	fl.mu.Lock()
	list := fl.dirty
	fl.dirty = fl.spare[:0]
	fl.mu.Unlock()
	for i, c := range list {
		c.flushListed()
		list[i] = nil
	}
	fl.spare = list[:0]
}

// ack has device i acknowledge all it was sent.
func (f *fleet) ack(b *testing.B, i int, packets []byte) []byte {
	c := f.conns[i]
	o := c.session.outbox.Load()
	packets = packets[:0]
	for _, d := range o.flight {
		packets = binary.BigEndian.AppendUint16(append(packets, 0x40, 2), d.id)
	}
	check(b, c.feed(packets))
	return packets
}

// BenchmarkSend is commands for one device each, of 10 000, from Send to the write, and with QoS 1 to the PUBACK.
// 64 of them are flushed together.
func BenchmarkSend(b *testing.B) {
	const devices, batch = 10_000, 64
	for _, version := range []byte{4, 5} {
		for qos := range 2 {
			f := newFleet(b, devices, version, qos)
			topics := make([][]byte, devices)
			for i := range topics {
				topics[i] = fmt.Appendf(nil, "fleet/dev-%05d/set", i)
			}
			payload := []byte(strings.Repeat("x", 256))
			run := func(name string, to bool) {
				b.Run(fmt.Sprintf("version=%s/qos=%d/%s", versionName(version), qos, name), func(b *testing.B) {
					b.ReportAllocs()
					var acks []byte
					for i := 0; i < b.N; i += batch {
						for j := range batch {
							at := (i + j) * 7919 % devices
							c := &Command{Topic: topics[at], Payload: payload, QoS: byte(qos), Owner: unowned{}}
							if to {
								c.To = f.conns[at].session.clientID
							}
							if n := f.s.Send(c).Devices; n != 1 {
								b.Fatal("nobody gets it")
							}
						}
						f.flush()
						for j := 0; j < batch && qos > 0; j++ {
							acks = f.ack(b, (i+j)*7919%devices, acks)
						}
					}
				})
			}
			run("topic", false)
			run("client", true)
		}
	}
}

// BenchmarkSendToAll is one command for 10 000 devices; the figures are for each device.
func BenchmarkSendToAll(b *testing.B) {
	const devices = 10_000
	for _, version := range []byte{4, 5} {
		for qos := range 2 {
			f := newFleet(b, devices, version, qos)
			payload := []byte(strings.Repeat("x", 256))
			b.Run(fmt.Sprintf("version=%s/qos=%d", versionName(version), qos), func(b *testing.B) {
				b.ReportAllocs()
				var acks []byte
				for i := 0; i < b.N; i += devices {
					c := &Command{Topic: []byte("all/now"), Payload: payload, QoS: byte(qos), Owner: unowned{}}
					if n := f.s.Send(c).Devices; n != devices {
						b.Fatal("somebody does not get it")
					}
					f.flush()
					for j := 0; j < devices && qos > 0; j++ {
						acks = f.ack(b, j, acks)
					}
				}
			})
		}
	}
}

// BenchmarkCommandRoundTrip is one device that acknowledges each command before the next is sent, over loopback.
func BenchmarkCommandRoundTrip(b *testing.B) {
	w := newWorld(b, nil)
	c := w.device(4, "dev")
	c.subscribe("t", 1)
	payload := []byte(strings.Repeat("x", 256))
	in := make([]byte, len(pub{topic: "t", payload: string(payload), qos: 1}.packet(4)))
	b.ReportAllocs()
	for b.Loop() {
		w.s.Send(&Command{Topic: []byte("t"), Payload: payload, QoS: 1, Owner: unowned{}})
		w.s.Flush()
		if _, err := io.ReadFull(c.in, in); err != nil {
			b.Fatal(err)
		}
		if _, err := c.nc.Write([]byte{0x40, 2, in[6], in[7]}); err != nil { // behind the topic
			b.Fatal(err)
		}
	}
}

// BenchmarkIdleDevice is the memory of connections over loopback, heap and stacks, the client's side of it
// included: past CONNACK, with a subscription, and after a command with QoS 1.
func BenchmarkIdleDevice(b *testing.B) {
	const devices = 4000
	for b.Loop() {
		w := newWorld(b, nil)
		base := inUse()
		clients := make([]*net.TCPConn, devices)
		exchange := func(i int, p []byte, answer int) {
			_ = clients[i].SetDeadline(time.Now().Add(tooLong))
			_, err := clients[i].Write(p)
			check(b, err)
			_, err = io.ReadFull(clients[i], make([]byte, answer))
			check(b, err)
		}
		for i := range clients {
			nc, err := net.Dial("tcp", w.addr)
			check(b, err)
			clients[i] = nc.(*net.TCPConn)
			exchange(i, hello{version: 4, id: fmt.Sprintf("dev-%05d", i), persist: true}.packet(), 4)
		}
		report := func(what string) {
			if runtime.GOOS == "linux" {
				w.allParked(devices)
			}
			b.ReportMetric(float64(inUse()-base)/devices, what)
		}
		report("B/connected")
		for i := range clients {
			exchange(i, packet(0x82, uint16(1), str(fmt.Sprintf("fleet/dev-%05d/#", i)), 1), 5)
		}
		report("B/subscribed")
		for i := range clients {
			w.s.Send(&Command{Topic: fmt.Appendf(nil, "fleet/dev-%05d/set", i), QoS: 1, Owner: unowned{}})
			w.s.Flush()
			_, err := io.ReadFull(clients[i], make([]byte, 2+2+19+2))
			check(b, err)
			exchange(i, cat(puback(1), pingreq), 2)
		}
		report("B/commanded")
		for _, nc := range clients {
			_ = nc.Close()
		}
		w.ended()
	}
}

// inUse is the memory of heap and stacks.
func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
