package haproxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const file = "../../../deploy/haproxy.cfg"

func required() bool { return os.Getenv("SLUICE_TEST_CLIENTS") == "required" }

// TestTheConfigurationIsLegal: as users get it.
func TestTheConfigurationIsLegal(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), Look(t, required()), "-c", "-f", file).CombinedOutput()
	require.NoError(t, err, string(out))
	require.NotContains(t, string(out), "WARNING")
}

// A fake is what HAProxy sees of an instance: it repeats the first bytes of a connection, and gives a status.
type fake struct {
	Server
	status atomic.Int32
	admin  *httptest.Server
	l      net.Listener
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{}
	f.status.Store(http.StatusOK)
	f.admin = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.WriteHeader(int(f.status.Load()))
	}))
	t.Cleanup(f.admin.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	f.l = l
	t.Cleanup(func() { _ = l.Close() })
	go f.serve() // ends with the listener
	f.Server = Server{Address: l.Addr().String(), Admin: strings.TrimPrefix(f.admin.URL, "http://")}
	return f
}

func (f *fake) serve() {
	for {
		c, err := f.l.Accept()
		if err != nil {
			return
		}
		go func() { // ends with the connection
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}()
	}
}

// TestAnInstanceThatIsNotReadyKeepsItsDevicesAndGetsNoNewOnes, and the devices of one that is gone are cut, so that
// they go elsewhere.
func TestAnInstanceThatIsNotReadyKeepsItsDevicesAndGetsNoNewOnes(t *testing.T) {
	a, b := newFake(t), newFake(t)
	p := Start(t, required(), file, a.Server, b.Server)
	p.Await("UP", "UP")
	var conns []net.Conn
	for range 4 {
		conns = append(conns, dial(t, p))
	}
	require.Equal(t, []string{"2", "2"}, p.Sessions())

	a.status.Store(http.StatusServiceUnavailable)
	p.Await("NOLB", "UP")
	for range 3 {
		conns = append(conns, dial(t, p))
	}
	require.Equal(t, []string{"2", "5"}, p.Sessions())
	for i, c := range conns {
		say(t, c, i)
	}

	a.admin.Close()
	p.Await("DOWN", "UP")
	require.Eventually(t, func() bool {
		got, err := p.column("scur")
		return err == nil && got[0] == "0"
	}, time.Minute, 20*time.Millisecond)
	cut := 0
	for _, c := range conns {
		_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); err == io.EOF || err != nil && !err.(net.Error).Timeout() {
			cut++
		}
	}
	require.Equal(t, 2, cut)
}

// dial connects through HAProxy and takes the header that it sent, which the fake repeats.
func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	header := make([]byte, 28)
	_, err = io.ReadFull(c, header)
	require.NoError(t, err)
	require.Equal(t, "\r\n\r\n\x00\r\nQUIT\n", string(header[:12]), "PROXY protocol, version 2")
	return c
}

func say(t *testing.T, c net.Conn, i int) {
	t.Helper()
	_, err := fmt.Fprintf(c, "hello %d\n", i)
	require.NoError(t, err)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("hello %d\n", i), line)
}
