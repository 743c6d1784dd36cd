package netem_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/test/netem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds waits that must end; only a broken test reaches it.
const patience = 20 * time.Second

// echo starts a server that sends back what it gets and returns its address.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() { // ends with the listener
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // ends with the connection
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	return l.Addr().String()
}

func proxy(t *testing.T, target string) *netem.Proxy {
	t.Helper()
	p, err := netem.New(target)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

func dial(t *testing.T, p *netem.Proxy) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", p.Addr(), patience)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

func send(t *testing.T, c net.Conn, s string) {
	t.Helper()
	_, err := c.Write([]byte(s))
	require.NoError(t, err)
}

// expect reads s from c.
func expect(t *testing.T, c net.Conn, s string) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
	b := make([]byte, len(s))
	_, err := io.ReadFull(c, b)
	require.NoError(t, err)
	require.Equal(t, s, string(b))
}

// expectSilence sees no byte and no end of the stream for a moment. It cannot
// fail by slowness, only by a byte that comes.
func expectSilence(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(150*time.Millisecond)))
	n, err := c.Read(make([]byte, 1))
	require.Zero(t, n)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

func expectReset(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET)
}

func TestPassMovesBytesAndTheEndOfTheStream(t *testing.T) {
	c := dial(t, proxy(t, echo(t)))
	send(t, c, "hello")
	expect(t, c, "hello")
	require.NoError(t, c.CloseWrite())
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

func TestRefuseResetsAndRefusesUntilHealed(t *testing.T) {
	p := proxy(t, echo(t))
	c := dial(t, p)
	send(t, c, "x")
	expect(t, c, "x")
	p.Refuse()
	expectReset(t, c)
	_, err := net.DialTimeout("tcp", p.Addr(), patience)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.NoError(t, p.Heal())
	c = dial(t, p)
	send(t, c, "again")
	expect(t, c, "again")
}

func TestSwallowHoldsBytesUntilHealed(t *testing.T) {
	p := proxy(t, echo(t))
	c := dial(t, p)
	send(t, c, "a")
	expect(t, c, "a")
	p.Swallow()
	send(t, c, "b")
	expectSilence(t, c)
	require.NoError(t, p.Heal())
	expect(t, c, "b")
}

func TestSwallowHidesTheEndOfTheStream(t *testing.T) {
	p := proxy(t, echo(t))
	c := dial(t, p)
	send(t, c, "a")
	expect(t, c, "a")
	p.Swallow()
	require.NoError(t, c.CloseWrite())
	expectSilence(t, c)
	require.NoError(t, p.Heal())
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

func TestSwallowLetsNewConnectionsHang(t *testing.T) {
	p := proxy(t, echo(t))
	p.Swallow()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := new(net.Dialer).DialContext(ctx, "tcp", p.Addr())
	var ne net.Error
	require.True(t, errors.As(err, &ne) && ne.Timeout(), "dial: %v", err)
	require.NoError(t, p.Heal())
	c := dial(t, p)
	send(t, c, "after")
	expect(t, c, "after")
}

func TestResetEndsConnectionsAndLetsNewOnesIn(t *testing.T) {
	p := proxy(t, echo(t))
	c := dial(t, p)
	send(t, c, "x")
	expect(t, c, "x")
	p.Reset()
	expectReset(t, c)
	c = dial(t, p)
	send(t, c, "y")
	expect(t, c, "y")
}

func TestModesFollowEachOtherInAnyOrder(t *testing.T) {
	p := proxy(t, echo(t))
	p.Swallow()
	p.Swallow()
	p.Refuse()
	p.Swallow()
	p.Refuse()
	require.NoError(t, p.Heal())
	require.NoError(t, p.Heal())
	c := dial(t, p)
	send(t, c, "z")
	expect(t, c, "z")
	p.Swallow()
	p.Refuse()
	expectReset(t, c)
}

func TestUnreachableTargetResetsTheClient(t *testing.T) {
	dead := proxy(t, "127.0.0.1:1")
	dead.Refuse() // a port that is taken and refuses
	c, err := net.DialTimeout("tcp", proxy(t, dead.Addr()).Addr(), patience)
	if err != nil { // the reset may come before connect has returned
		require.ErrorIs(t, err, syscall.ECONNRESET)
		return
	}
	defer c.Close()
	expectReset(t, c)
}
