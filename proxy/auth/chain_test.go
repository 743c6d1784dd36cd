package auth

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/mqtt"
	"sluice/tls"
)

// A scripted method says what it is told to, and counts.
type scripted struct {
	verdict verdict
	err     error
	asked   int
}

func (s *scripted) build(*shared) (method, error) { return s, nil }
func (s *scripted) name() string                  { return "scripted" }
func (s *scripted) decide(context.Context, *attempt) (verdict, error) {
	s.asked++
	return s.verdict, s.err
}

func TestFirstMethodThatKnowsTheUserDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		yes := verdict{outcome: accepted, identity: &mqtt.Identity{Name: "a"}}
		f := func(want mqtt.Code, first scripted) {
			t.Helper()
			second := &scripted{verdict: yes}
			b := newBench(t, 0, &first, second)
			if want == mqtt.Success {
				b.accepts(password("a", "b"), "a")
			} else {
				b.refuses(password("a", "b"), want)
			}
			passed := first.verdict.outcome == unknown && first.err == nil
			require.Equal(t, passed, second.asked == 1)
		}
		f(mqtt.Success, scripted{verdict: yes})
		f(mqtt.Success, scripted{})
		f(mqtt.BadUserNameOrPassword, scripted{verdict: verdict{outcome: refused}})
		f(mqtt.ServerBusy, scripted{verdict: verdict{outcome: throttled}})
		f(mqtt.ServerUnavailable, scripted{err: errors.New("x")})
		f(mqtt.ServerUnavailable, scripted{verdict: yes, err: errors.New("x")})
		f(mqtt.ServerBusy, scripted{err: errBusy})
	})
}

func TestFailureToAuthenticateAgainHasACodeOfDisconnect(t *testing.T) {
	b := newBench(t, 0, JWT{JWKS: "https://127.0.0.1:1/jwks"})
	l := &mqtt.Login{Method: "JWT", Data: []byte(good(t, "ES256", ecKey())), Remote: home, Again: &mqtt.Identity{Name: "dev1"}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.Authenticate(ctx, l)
	var fault *mqtt.ProtocolFault
	require.ErrorAs(t, err, &fault)
	require.Equal(t, mqtt.ServerBusy, fault.Code)
}

func TestCertificateIsTheIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 0, Certificate{}, usersFileOf(t, "dev1", "one"))
		end := time.Now().Add(time.Hour)
		l := password("dev1", "wrong")
		l.Certificate = &tls.Identity{Name: "pump-7", CommonName: "Pump 7", NotAfter: end}
		id := b.accepts(l, "pump-7")
		require.Equal(t, "Pump 7", id.CommonName)
		require.Equal(t, end, id.Until)
		for _, name := range []string{"", "a/b", "+"} {
			l.Certificate = &tls.Identity{Name: name}
			b.refuses(l, mqtt.BadUserNameOrPassword)
		}
		b.accepts(password("dev1", "one"), "dev1")
	})
}

func TestConnectionEndsWithTheFirstOfItsCredentials(t *testing.T) {
	soon, late := time.Now().Add(time.Minute), time.Now().Add(24*time.Hour)
	b := newBench(t, 0, JWT{Secret: secret})
	l := bearer(good(t, "HS256", []byte(secret)))
	expiry := b.accepts(l, "dev1").Until
	for end, want := range map[time.Time]time.Time{soon: soon, late: expiry} {
		l.Certificate = &tls.Identity{Name: "pump-7", CommonName: "Pump 7", NotAfter: end}
		id := b.accepts(l, "dev1")
		require.Equal(t, want, id.Until)
		require.Equal(t, "Pump 7", id.CommonName)
	}
}

func TestAllFaultsOfTheMethodsAreReportedAtOnce(t *testing.T) {
	dir := t.TempDir()
	notPEM := filepath.Join(dir, "public.pem")
	write(t, notPEM, "nothing")
	f := func(m Method, want ...string) {
		t.Helper()
		c, err := New(Config{Methods: []Method{m}})
		require.Nil(t, c)
		for _, w := range want {
			require.ErrorContains(t, err, w)
		}
		require.NotContains(t, err.Error(), "hunter2")
	}
	f(File{filepath.Join(dir, "none.yaml")}, "cannot read users file", "none.yaml")
	f(File{dir}, "cannot read users file")
	f(JWT{}, "exactly one of secret, key and jwks")
	f(JWT{Secret: "hunter2", Key: notPEM}, "exactly one of", "shorter than 32 bytes")
	f(JWT{Secret: "hunter2", From: "topic", Leeway: -1}, "shorter than 32", `from of jwt is "topic"`, "leeway")
	f(JWT{Key: notPEM}, "it is no PEM file")
	f(JWT{JWKS: notPEM}, "no JSON Web Key Set")
	f(JWT{Secret: secret, Algorithms: []string{"none"}}, `the algorithm "none"`)
	f(JWT{Secret: secret, Algorithms: []string{"HS256", "RS256"}}, `the algorithm "RS256"`)
	f(JWT{Key: keyFile(t, ecKey()), Algorithms: []string{"HS256"}}, `the algorithm "HS256"`)
	f(JWT{JWKS: "http://idp.example/jwks"}, "must begin with https://")
	f(JWT{JWKS: "https://u:hunter2@idp.example/jwks"}, "has a user or a password")
	f(JWT{JWKS: "ftp://127.0.0.1/jwks"}, "must begin with https://")
	f(JWT{JWKS: "https://idp.example/jwks", TLS: tls.ClientConfig{CA: notPEM}}, "public.pem")
	f(HTTP{URL: "http://10.0.0.1/auth"}, "must begin with https://")
	f(HTTP{URL: "://hunter2"}, "it is no URL")
	f(HTTP{URL: "https://"}, "names no host")
	f(HTTP{URL: "https://localhost.evil.example/"[:8]}, "names no host")
	f(HTTP{URL: "https://a/", Timeout: -1}, "negative")

	_, err := New(Config{Methods: []Method{JWT{}, HTTP{URL: "ftp://x"}, File{"/none"}}})
	for _, want := range []string{"exactly one of", "must begin with https://", "cannot read users file"} {
		require.ErrorContains(t, err, want)
	}
	_, err = New(Config{})
	require.ErrorContains(t, err, "at least one method")
	_, err = New(Config{Methods: []Method{Certificate{}}, FailedLogins: -1})
	require.Error(t, err)
}

func TestPlainHTTPIsForThisMachineAlone(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://a.example": true, "http://localhost:1": true, "http://127.0.0.1/x": true, "http://127.9.9.9": true, "http://[::1]:80/": true,
		"http://localhost.example": false, "http://127.0.0.1.example": false, "http://0.0.0.0": false, "http://[::]": false, "file:///etc/passwd": false,
		"": false, "localhost": false, "HTTP://127.0.0.1": true, "http://localhost@evil.example": false, "unix:///x": false,
	} {
		require.Equal(t, ok, checkURL(url) == nil, url)
	}
}

func TestLogHasNoSecretsAndIsSampled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 0, Certificate{})
		done := make(chan struct{})
		for range 500 {
			go func() { // ends after the delay
				b.login(password("dev1\n\x1b[31m", "hunter2"))
				done <- struct{}{}
			}()
		}
		for range 500 {
			<-done
		}
		text := b.log.String()
		require.NotContains(t, text, "hunter2")
		require.NotContains(t, text, "\x1b")
		require.Contains(t, text, `"client_id":"client-dev1\n`)
		require.Contains(t, text, `"address":"192.0.2.1"`)
		require.Less(t, strings.Count(text, "login failed"), 40)
		require.Equal(t, 500.0, testutil.ToFloat64(b.metrics.logins.WithLabelValues("none", "refused")))
	})
}

func TestLogLineIsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 0, Certificate{})
		long := password(strings.Repeat("u", 65535), "x")
		b.refuses(long, mqtt.BadUserNameOrPassword)
		require.Less(t, len(b.log.String()), 600)
	})
}

func TestDelayedAnswersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 0, Certificate{})
		for range maxDelayed {
			go b.login(password("a", "b")) // ends after the delay
		}
		synctest.Wait()
		require.Equal(t, maxDelayed, len(b.delays))
		begin := time.Now()
		b.refuses(password("a", "b"), mqtt.BadUserNameOrPassword)
		require.Zero(t, time.Since(begin))
		time.Sleep(2 * meanDelay)
		require.Empty(t, b.delays)

		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		begin = time.Now()
		_, err := b.Authenticate(ctx, password("a", "b"))
		require.Error(t, err)
		require.Equal(t, time.Millisecond, time.Since(begin))
	})
}

func TestMetricsAreWellNamed(t *testing.T) {
	b := newBench(t, 0, usersFileOf(t, "dev1", "one"))
	b.accepts(password("dev1", "one"), "dev1")
	b.accepts(password("dev1", "one"), "dev1")
	b.metrics.reload("users file", nil)
	faults, err := testutil.GatherAndLint(b.registry)
	require.NoError(t, err)
	require.Empty(t, faults)
	require.Equal(t, 2.0, testutil.ToFloat64(b.metrics.logins.WithLabelValues("file", "accepted")))
	require.Equal(t, 1.0, testutil.ToFloat64(b.metrics.lookups.WithLabelValues("file", "hit")))
	_, err = New(Config{Methods: []Method{Certificate{}}, Logger: zerolog.Nop(), Registerer: b.registry})
	require.ErrorAs(t, err, &prometheus.AlreadyRegisteredError{})
}

func TestOriginIsAnAddressOrANetworkOfIPv6(t *testing.T) {
	f := func(remote net.Addr, want string) {
		t.Helper()
		require.Equal(t, want, originOf(remote).String())
	}
	f(address("192.0.2.1"), "192.0.2.1")
	f(address("::ffff:192.0.2.1"), "192.0.2.1")
	f(address("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::")
	f(&net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}, "fe80::")
	f(nil, "invalid IP")
	f(&net.UnixAddr{Name: "x"}, "invalid IP")
	f((*net.TCPAddr)(nil), "invalid IP")
}
