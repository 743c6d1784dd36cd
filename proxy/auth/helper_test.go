package auth

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"sluice/mqtt"
)

// A journal is a log that several goroutines write.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// A bench is a chain under test.
type bench struct {
	*Chain
	t        *testing.T
	log      *journal
	registry *prometheus.Registry
}

// newBench makes a chain that does not run.
func newBench(t *testing.T, failedLogins int, methods ...Method) *bench {
	t.Helper()
	b := &bench{t: t, log: &journal{}, registry: prometheus.NewPedanticRegistry()}
	var err error
	b.Chain, err = New(Config{Methods: methods, FailedLogins: failedLogins, Logger: zerolog.New(b.log), Registerer: b.registry})
	require.NoError(t, err)
	return b
}

// start runs the chain until the test ends.
func (b *bench) start() *bench {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }() // ends with ctx
	b.t.Cleanup(func() {
		cancel()
		require.NoError(b.t, <-done)
	})
	return b
}

// login asks the chain as mqtt does.
func (b *bench) login(l *mqtt.Login) (*mqtt.Identity, error) {
	return b.Authenticate(context.Background(), l)
}

// accepts checks that l gets in, under that name.
func (b *bench) accepts(l *mqtt.Login, name string) *mqtt.Identity {
	b.t.Helper()
	id, err := b.login(l)
	require.NoError(b.t, err)
	require.Equal(b.t, name, id.Name)
	require.Nil(b.t, id.Access)
	return id
}

// refuses checks that l does not get in, and the code it is told.
func (b *bench) refuses(l *mqtt.Login, code mqtt.Code) {
	b.t.Helper()
	id, err := b.login(l)
	require.Nil(b.t, id)
	var fault *mqtt.ProtocolFault
	require.ErrorAs(b.t, err, &fault)
	require.Equal(b.t, code.String(), fault.Code.String(), "%s", b.log)
}

// decides gives the verdict alone, without the delay of a refusal.
func (b *bench) decides(l *mqtt.Login) (verdict, error) {
	_, v, err := b.ask(context.Background(), b.attempt(l))
	return v, err
}

func (b *bench) attempt(l *mqtt.Login) *attempt {
	return &attempt{Login: l, from: originOf(l.Remote), limits: b.limits}
}

var home = address("192.0.2.1")

func address(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 1883} }

// password is a login from home.
func password(user, secret string) *mqtt.Login {
	return &mqtt.Login{
		ClientID: "client-" + user, Username: user, HasUsername: true, Password: []byte(secret), HasPassword: true, Remote: home,
	}
}

func passwordFrom(ip, user, secret string) *mqtt.Login {
	l := password(user, secret)
	l.Remote = address(ip)
	return l
}

// write puts a file into a folder of the test, whole at once.
func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

func quickHash(t testing.TB, secret string) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.MinCost)
	require.NoError(t, err)
	return string(h)
}

// usersText gives the text of a users file of names and passwords in turn.
func usersText(t testing.TB, pairs ...string) string {
	t.Helper()
	var text strings.Builder
	text.WriteString("users:\n")
	for i := 0; i < len(pairs); i += 2 {
		text.WriteString("  - name: " + pairs[i] + "\n    password: \"" + quickHash(t, pairs[i+1]) + "\"\n")
	}
	return text.String()
}

// usersFileOf writes a users file.
func usersFileOf(t *testing.T, pairs ...string) File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users.yaml")
	write(t, path, usersText(t, pairs...))
	return File{Path: path}
}

// eventually waits for something that another goroutine does.
func eventually(t *testing.T, f func() bool) {
	t.Helper()
	require.Eventually(t, f, 20*time.Second, 5*time.Millisecond)
}

// strangers are logins with names that nobody has.
func strangers(i int) *mqtt.Login { return password(fmt.Sprint("stranger", i), "x") }

// exhaust fails until a login was checked that used up what had become free since others were not: for some seconds
// then nothing is.
func (b *bench) exhaust(login func(i int) *mqtt.Login) {
	b.t.Helper()
	for i, busy := 0, false; ; i++ {
		_, err := b.login(login(i))
		var fault *mqtt.ProtocolFault
		require.ErrorAs(b.t, err, &fault)
		if fault.Code != mqtt.ServerBusy && busy {
			return
		}
		busy = busy || fault.Code == mqtt.ServerBusy
	}
}
