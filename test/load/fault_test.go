package load

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/bench/wire"
)

// A puppet is the server's side of one device's connection, played by the test.
type puppet struct {
	*conn
	t *testing.T
	f *CommandFleet
}

// play starts a fleet of one device, MQTT 5, and answers its CONNECT and SUBSCRIBE.
func play(t *testing.T, qos byte) *puppet {
	t.Helper()
	ends := make(chan net.Conn, 10)
	f := &CommandFleet{Run: "p", QoS: qos, Reconnect: true, Keep: true}
	f.Dialer = func(context.Context, int) (net.Conn, error) {
		ours, theirs := net.Pipe()
		ends <- theirs
		return ours, nil
	}
	p := &puppet{t: t, f: f}
	started := make(chan error, 1)
	go func() { started <- f.Start(limited(t)) }() // ends with the SUBACK below
	p.greet(<-ends, false)
	require.NoError(t, <-started)
	t.Cleanup(func() {
		_ = p.nc.Close() // so that nobody waits for us to read
		f.Stop()
	})
	return p
}

func (p *puppet) greet(nc net.Conn, present bool) {
	p.t.Helper()
	require.NoError(p.t, nc.SetDeadline(time.Now().Add(30*time.Second)))
	p.conn = &conn{nc: nc, r: bufio.NewReader(nc), w: bufio.NewWriter(nc), version: 5}
	p.expect(0x10)
	flags := byte(0)
	if present {
		flags = 1
	}
	require.NoError(p.t, p.send(0x20, 3, flags, 0, 0))
	if !present {
		body := p.expect(0x82)
		require.NoError(p.t, p.send(0x90, 4, body[0], body[1], 0, p.f.QoS))
	}
}

// expect reads a packet of this kind.
func (p *puppet) expect(first byte) []byte {
	p.t.Helper()
	got, body, err := p.read()
	require.NoError(p.t, err)
	require.Equal(p.t, first, got)
	return body
}

// command sends the command seq of device with a packet identifier.
func (p *puppet) command(first byte, id uint16, device int, seq uint64) {
	p.t.Helper()
	b := wire.Text(nil, "devices/cmd-p-0/x")
	if first&6 != 0 {
		b = binary.BigEndian.AppendUint16(b, id)
	}
	b = append(b, 0)
	b = fmt.Appendf(b, "p %d %d %d x", device, seq, time.Now().UnixNano())
	require.NoError(p.t, p.send(wire.Packet(first, b)...))
}

// inStep waits until the device has handled all before: it answers a PUBREL in its turn.
func (p *puppet) inStep() {
	p.t.Helper()
	require.NoError(p.t, p.send(0x62, 2, 0xFF, 0xFF))
	require.Equal(p.t, []byte{0xFF, 0xFF}, p.expect(0x70))
}

func commands(seqs ...uint64) (cs []Command) {
	for _, seq := range seqs {
		cs = append(cs, Command{Seq: seq})
	}
	return cs
}

func TestReportFindsLossesRepeatsDisorderAndStrangers(t *testing.T) {
	p := play(t, 0)
	for _, seq := range []uint64{1, 3, 2, 3, 5} {
		p.command(0x30, 0, 0, seq)
	}
	p.command(0x30, 0, 7, 6) // for another device
	require.NoError(t, p.send(wire.Packet(0x30, append(wire.Text(nil, "x"), "\x00not of a stream"...))...))
	p.inStep()
	require.Equal(t, CommandReport{Written: 5, Received: 5, Lost: 1, Twice: 1, Disordered: 1, Strange: 1}, p.f.Report(commands(1, 2, 3, 4, 5)))
	require.Len(t, p.f.Latencies(), 4)
	require.Len(t, p.f.Messages(0), 7)
}

func TestQoS2IsDeliveredOnceUntilItsRelease(t *testing.T) {
	p := play(t, 2)
	p.command(0x34, 9, 0, 1)
	p.expect(0x50)
	p.command(0x3C, 9, 0, 1)
	p.expect(0x50)
	require.Equal(t, 1, p.f.Received(), "a repeat")
	require.NoError(t, p.send(0x62, 2, 0, 9))
	p.expect(0x70)
	p.command(0x34, 9, 0, 2)
	p.expect(0x50)
	p.inStep()
	require.Equal(t, CommandReport{Written: 2, Received: 2}, p.f.Report(commands(1, 2)))
	require.Equal(t, 1, p.f.MaxUnacked(0)-1, "the repeat counts as under way")
}

func TestABooksOfQoS2OutliveTheConnectionWithTheSession(t *testing.T) {
	for _, present := range []bool{true, false} {
		p := play(t, 2)
		ends := make(chan net.Conn, 1)
		p.command(0x34, 9, 0, 1)
		p.expect(0x50)
		p.f.Dialer = func(context.Context, int) (net.Conn, error) {
			ours, theirs := net.Pipe()
			ends <- theirs
			return ours, nil
		}
		require.NoError(t, p.nc.Close())
		p.greet(<-ends, present)
		p.command(0x3C, 9, 0, 1)
		p.expect(0x50)
		p.inStep()
		want := CommandReport{Written: 1, Received: 1}
		if !present {
			want = CommandReport{Written: 1, Received: 2, Twice: 1}
		}
		require.Equal(t, want, p.f.Report(commands(1)))
	}
}

func TestAConnectionIsLostAtAnAcknowledgement(t *testing.T) {
	acknowledged := map[bool]bool{}
	for range 40 {
		p := play(t, 2)
		p.f.CutOneIn = 1
		p.command(0x34, 9, 0, 1)
		_, _, err := p.read()
		acknowledged[err == nil] = true
		if err == nil {
			_, _, err = p.read()
		}
		require.ErrorIs(t, err, io.EOF)
		require.Equal(t, 1, p.f.Received())
	}
	require.Len(t, acknowledged, 2, "before it and after it")
}

func TestWhatAServerMayNotDoIsAFailure(t *testing.T) {
	f := func(want string, act func(*puppet)) {
		t.Helper()
		p := play(t, 2)
		act(p)
		require.Eventually(t, func() bool { return len(p.f.Failures()) > 0 }, 20*time.Second, time.Millisecond, want)
		require.ErrorContains(t, p.f.Failures()[0], want)
	}
	f("without DUP", func(p *puppet) {
		p.command(0x34, 9, 0, 1)
		p.expect(0x50)
		p.command(0x34, 9, 0, 1)
	})
	f("identifier 0", func(p *puppet) { p.command(0x32, 0, 0, 1) })
	f("cut short", func(p *puppet) { require.NoError(p.t, p.send(0x30, 4, 0, 1, 'a', 5)) })
	f("property 0x23", func(p *puppet) { require.NoError(p.t, p.send(0x30, 7, 0, 1, 'a', 3, 0x23, 0, 1)) })
	f("not under way", func(p *puppet) { require.NoError(p.t, p.send(0x40, 2, 0, 1)) })
	f("packet  10", func(p *puppet) { require.NoError(p.t, p.send(0x10, 0)) })
}

func TestReceiptReportFindsWhatIsMissingTwiceOrStrange(t *testing.T) {
	r := &Receipts{all: []Receipt{
		{Topic: "t", Offset: 1, ClientID: "a", Outcome: "delivered"}, {Topic: "t", Offset: 1, ClientID: "a", Outcome: "expired"},
		{Topic: "t", Offset: 2, ClientID: "b", Outcome: "delivered"}, {Topic: "t", Offset: 3, ClientID: "b", Outcome: "offline"},
	}}
	cs := []Command{{Key: "a", Topic: "t", Offset: 1}, {Key: "a", Topic: "t", Offset: 2}, {Key: "b", Topic: "t", Offset: 3}}
	require.Equal(t, ReceiptReport{Missing: 1, Twice: 1, Strange: 1, Outcomes: map[string]int{"delivered": 1, "offline": 1}}, r.Report(cs))
}
