package tls

import (
	"context"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sClient runs openssl s_client against s, and gives the Conn and what one types.
func sClient(t *testing.T, w *world, s *Server, args ...string) (*socket, io.Writer) {
	t.Helper()
	program, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl here")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	args = append([]string{"s_client", "-connect", "127.0.0.1:" + strconv.Itoa(port), "-CAfile", w.ca.File(t, w.dir), "-servername", "localhost", "-verify_return_error"}, args...)
	cmd := exec.Command(program, args...)
	typed, err := cmd.StdinPipe()
	require.NoError(t, err)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	require.NoError(t, cmd.Start())
	nc, err := l.Accept()
	require.NoError(t, err)
	require.NoError(t, nc.SetDeadline(time.Now().Add(time.Minute)))
	t.Cleanup(func() {
		nc.Close()
		typed.Close()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	c, err := s.Accept(context.Background(), nc, nil, nil)
	require.NoError(t, err)
	return &socket{Conn: c, nc: nc, size: 100}, typed
}

// line types one and expects it here.
func line(t *testing.T, sock *socket, typed io.Writer, text string) {
	t.Helper()
	_, err := io.WriteString(typed, text+"\n")
	require.NoError(t, err)
	got := make([]byte, len(text)+1)
	_, err = io.ReadFull(sock, got)
	require.NoError(t, err)
	require.Equal(t, text+"\n", string(got))
}

// TestOpenSSLChangesKeys with a client that is not Go's.
func TestOpenSSLChangesKeys(t *testing.T) {
	w := newWorld(t).mutual(t)
	cert, key := w.devices.Client(t, w.dir, "pump")
	sock, typed := sClient(t, w, w.server(t), "-tls1_3", "-cert", cert, "-key", key)
	require.Equal(t, "pump", sock.Identity().Name)
	line(t, sock, typed, "before")
	_, err := io.WriteString(typed, "K\n") // s_client's word for a change of both keys
	require.NoError(t, err)
	buf := make([]byte, 100)
	for !sock.Owes() { // it looks at the beginning of what it reads only, so type no more until it came
		n, err := sock.nc.Read(buf)
		require.NoError(t, err)
		plain, err := sock.Open(buf[:n], nil)
		require.NoError(t, err)
		require.Empty(t, plain)
	}
	line(t, sock, typed, "after")
	_, err = sock.Write([]byte("under the new key\n"))
	require.NoError(t, err)
	line(t, sock, typed, "and again")
	_, err = io.WriteString(typed, "Q\n")
	require.NoError(t, err)
	_, err = sock.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
}

// TestOpenSSLMayNotRenegotiate.
func TestOpenSSLMayNotRenegotiate(t *testing.T) {
	w := newWorld(t)
	sock, typed := sClient(t, w, w.server(t), "-tls1_2")
	line(t, sock, typed, "before")
	_, err := io.WriteString(typed, "R\n") // s_client's word for a renegotiation
	require.NoError(t, err)
	_, err = sock.Read(make([]byte, 1))
	require.Error(t, err)
	require.NotEqual(t, io.EOF, err)
}
