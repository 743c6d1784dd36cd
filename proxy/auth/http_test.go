package auth

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/mqtt"
	"sluice/tls"
)

// A back is the service of a test.
type back struct {
	*httptest.Server
	asked atomic.Int64
}

// newBack serves what f says of a question.
func newBack(t *testing.T, f func(w http.ResponseWriter, q question)) *back {
	t.Helper()
	b := &back{}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.asked.Add(1)
		var q question
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || json.NewDecoder(r.Body).Decode(&q) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		f(w, q)
	}))
	t.Cleanup(b.Close)
	return b
}

// says answers every question alike.
func says(status int, body string) func(http.ResponseWriter, question) {
	return func(w http.ResponseWriter, _ question) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// knows answers as a service with one user does.
func knows(w http.ResponseWriter, q question) {
	switch {
	case q.Username == nil || *q.Username != "dev1":
		fmt.Fprint(w, `{"result":"ignore"}`)
	case q.Password == nil || *q.Password != "one":
		fmt.Fprint(w, `{"result":"deny"}`)
	default:
		fmt.Fprint(w, `{"result":"allow"}`)
	}
}

func TestServiceDecides(t *testing.T) {
	back := newBack(t, knows)
	b := newBench(t, 0, HTTP{URL: back.URL}, usersFileOf(t, "dev1", "two", "dev2", "two")).start()
	b.accepts(password("dev1", "one"), "dev1")
	b.accepts(password("dev2", "two"), "dev2") // ignored by the service
	v, err := b.decides(password("dev1", "two"))
	require.NoError(t, err)
	require.Equal(t, refused, v.outcome)
}

func TestServiceIsToldWhoAsks(t *testing.T) {
	var got question
	back := newBack(t, func(w http.ResponseWriter, q question) {
		got = q
		fmt.Fprint(w, `{"result":"allow","identity":"pump-7","expires_in":60,"more":[1]}`)
	})
	b := newBench(t, 0, HTTP{URL: back.URL}).start()
	l := password("dev1", "o\"ne")
	l.Certificate = &tls.Identity{Name: "n", CommonName: "c", Serial: "0a", NotAfter: time.Now().Add(time.Hour)}
	id := b.accepts(l, "pump-7")
	require.WithinDuration(t, time.Now().Add(time.Minute), id.Until, 30*time.Second)
	user, secret := "dev1", "o\"ne"
	require.Equal(t, question{"client-dev1", &user, &secret, "192.0.2.1", &questionCertificate{"n", "c", "0a"}}, got)
	b.accepts(&mqtt.Login{ClientID: "x", Remote: address("2001:db8::1")}, "pump-7")
	require.Equal(t, question{ClientID: "x", Address: "2001:db8::1"}, got)
}

// TestServiceThatFailsLetsNobodyIn also holds that no later method is asked, and that a failure is not remembered.
func TestServiceThatFailsLetsNobodyIn(t *testing.T) {
	var broken atomic.Pointer[func(http.ResponseWriter, question)]
	back := newBack(t, func(w http.ResponseWriter, q question) { (*broken.Load())(w, q) })
	cfg := HTTP{URL: back.URL, Cache: time.Hour, CacheRefused: time.Hour, Timeout: 30 * time.Second}
	b := newBench(t, 0, cfg, usersFileOf(t, "dev1", "one")).start()
	allow := `{"result":"allow"}`
	f := func(name string, answer func(http.ResponseWriter, question)) {
		t.Helper()
		broken.Store(&answer)
		id, err := b.login(password("dev1", "one"))
		require.Nil(t, id, name)
		var fault *mqtt.ProtocolFault
		require.ErrorAs(t, err, &fault, name)
		require.Equal(t, mqtt.ServerUnavailable, fault.Code, name)
	}
	for _, status := range []int{201, 202, 204, 206, 300, 301, 302, 307, 308, 400, 401, 403, 404, 429, 500, 502, 503} {
		body := allow
		if status == 204 {
			body = ""
		}
		f(fmt.Sprint(status), says(status, body))
	}
	for _, body := range []string{
		"", "allow", "null", "{}", "[]", `{"result":true}`, `{"result":"Allow"}`, `{"result":"allow "}`, `{"result":""}`, `{"result":"allow"`, allow + allow, allow + "x",
		`{"result":["allow"]}`, `{"result":"allow","identity":7}`, `{"result":"allow","identity":"a/b"}`, `{"result":"allow","identity":"a\u0000"}`,
		`{"result":"allow","expires_in":0}`, `{"result":"allow","expires_in":-1}`, `{"result":"allow","expires_in":"60"}`, `{"result":"allow","expires_in":1e99}`,
		`{"result":"allow","x":"` + strings.Repeat("x", maxAnswer) + `"}`,
	} {
		f(clip(body), says(200, body))
	}
	f("redirect", func(w http.ResponseWriter, _ question) {
		w.Header().Set("Location", back.URL+"/allow")
		w.WriteHeader(http.StatusFound)
	})
	f("cut off", func(w http.ResponseWriter, _ question) {
		w.Header().Set("Content-Length", "1000")
		fmt.Fprint(w, allow)
	})
	f("hangs up", func(http.ResponseWriter, question) { panic(http.ErrAbortHandler) })
	f("huge header", func(w http.ResponseWriter, _ question) {
		w.Header().Set("X", strings.Repeat("x", 1<<20))
		fmt.Fprint(w, allow)
	})
	back.Close()
	f("down", says(200, allow))
	require.NotContains(t, b.log.String(), `:"one"`)
}

func TestServiceThatHangsIsGivenUp(t *testing.T) {
	release := make(chan struct{})
	back := newBack(t, func(w http.ResponseWriter, _ question) {
		<-release
		fmt.Fprint(w, `{"result":"allow"}`)
	})
	defer close(release)
	b := newBench(t, 0, HTTP{URL: back.URL, Timeout: 20 * time.Millisecond}).start()
	_, err := b.login(password("dev1", "one"))
	require.Equal(t, mqtt.ServerUnavailable, err.(*mqtt.ProtocolFault).Code)
}

func TestQuestionsAreBounded(t *testing.T) {
	var now, most atomic.Int64
	back := newBack(t, func(w http.ResponseWriter, _ question) {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		fmt.Fprint(w, `{"result":"allow"}`)
	})
	b := newBench(t, 0, HTTP{URL: back.URL, MaxConcurrent: 3, Timeout: time.Minute}).start()
	done := make(chan error)
	for i := range 50 {
		go func() { // ends with its answer
			_, err := b.login(password(fmt.Sprint("dev", i), "x"))
			done <- err
		}()
	}
	for range 50 {
		require.NoError(t, <-done)
	}
	require.LessOrEqual(t, most.Load(), int64(3))
}

func TestLoginThatFindsNoTurnIsToldBusy(t *testing.T) {
	release := make(chan struct{})
	back := newBack(t, func(w http.ResponseWriter, _ question) { <-release })
	b := newBench(t, 0, HTTP{URL: back.URL, MaxConcurrent: 1, Timeout: 50 * time.Millisecond}).start()
	s := b.methods[0].(*service)
	s.slots <- struct{}{}
	_, err := b.login(password("dev1", "one"))
	require.Equal(t, mqtt.ServerBusy, err.(*mqtt.ProtocolFault).Code)
	require.Zero(t, back.asked.Load())
	<-s.slots
	close(release)
}

func TestAnswersAreRememberedAsLongAsTheyMay(t *testing.T) {
	back := newBack(t, knows)
	f := func(cfg HTTP, l *mqtt.Login, want int64) {
		t.Helper()
		cfg.URL = back.URL
		b := newBench(t, 0, cfg).start()
		before := back.asked.Load()
		for range 3 {
			_, err := b.decides(l)
			require.NoError(t, err)
		}
		require.Equal(t, want, back.asked.Load()-before)
	}
	for _, l := range []*mqtt.Login{password("dev1", "two"), password("other", "x")} {
		f(HTTP{CacheRefused: time.Hour}, l, 1)
		f(HTTP{Cache: time.Hour}, l, 3)
	}
	f(HTTP{Cache: time.Hour}, password("dev1", "one"), 1)
	f(HTTP{CacheRefused: time.Hour}, password("dev1", "one"), 3)
}

func TestAnswersAreForgottenInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := newAnswers(HTTP{Cache: time.Minute, CacheRefused: time.Second, CacheSize: 10})
		require.NoError(t, err)
		long, short, no := digest{1}, digest{2}, digest{3}
		c.add(long, verdict{outcome: accepted, identity: &mqtt.Identity{}})
		c.add(short, verdict{outcome: accepted, identity: &mqtt.Identity{Until: time.Now().Add(10 * time.Second)}})
		c.add(no, verdict{outcome: refused})
		has := func(key digest) bool { _, ok := c.get(key); return ok }
		require.True(t, has(long) && has(short) && has(no))
		time.Sleep(time.Second)
		require.True(t, has(long) && has(short) && !has(no))
		time.Sleep(9 * time.Second)
		require.True(t, has(long) && !has(short))
		time.Sleep(50 * time.Second)
		require.False(t, has(long))
		c.add(long, verdict{outcome: accepted, identity: &mqtt.Identity{}})
		for i := range 1000 {
			c.add(digest{4, byte(i), byte(i >> 8)}, verdict{outcome: refused})
		}
		require.True(t, has(long), "refusals push out no acceptance")
		require.Equal(t, 10, c.other.Len())
	})
}

func TestAnswerIsForTheSameDeviceAndCredentialsAlone(t *testing.T) {
	s := &service{sealer: newSealer()}
	base := func() *mqtt.Login { return password("ab", "c") }
	seen := map[digest]bool{s.key(&attempt{Login: base()}): true}
	for _, change := range []func(l *mqtt.Login){
		func(l *mqtt.Login) { l.Username, l.Password = "a", []byte("bc") },
		func(l *mqtt.Login) { l.ClientID = "other" },
		func(l *mqtt.Login) { l.Password = []byte("d") },
		func(l *mqtt.Login) { l.Password, l.HasPassword = nil, false },
		func(l *mqtt.Login) { l.Password = nil },
		func(l *mqtt.Login) { l.Username = "" },
		func(l *mqtt.Login) { l.Username, l.HasUsername = "", false },
		func(l *mqtt.Login) { l.Remote = address("192.0.2.2") },
		func(l *mqtt.Login) { l.Certificate = &tls.Identity{} },
		func(l *mqtt.Login) { l.Certificate = &tls.Identity{Serial: "1"} },
	} {
		l := base()
		change(l)
		key := s.key(&attempt{Login: l})
		require.False(t, seen[key])
		seen[key] = true
	}
	l := base()
	l.Remote = address("192.0.2.1")
	require.True(t, seen[s.key(&attempt{Login: l})])
	require.NotEqual(t, s.key(&attempt{Login: l}), (&service{sealer: newSealer()}).key(&attempt{Login: l}))
}

func TestPasswordThatIsNoTextIsNotAskedFor(t *testing.T) {
	back := newBack(t, says(200, `{"result":"allow"}`))
	b := newBench(t, 0, HTTP{URL: back.URL}).start()
	v, err := b.decides(password("dev1", "\xff\xfe"))
	require.NoError(t, err)
	require.Equal(t, refused, v.outcome)
	v, err = b.decides(password("a/b", "x"))
	require.NoError(t, err)
	require.Equal(t, refused, v.outcome, "a user name that is no name")
	require.Equal(t, int64(1), back.asked.Load())
}

func TestSuspectAddressDoesNotReachTheService(t *testing.T) {
	back := newBack(t, knows)
	b := newBench(t, 2, HTTP{URL: back.URL, Cache: time.Hour}).start()
	b.accepts(password("dev1", "one"), "dev1")
	for range 5 {
		b.limits.failed(b.attempt(password("other", "x")), refused)
	}
	b.accepts(password("dev1", "one"), "dev1")
	v, err := b.decides(password("dev1", "two"))
	require.NoError(t, err)
	require.Equal(t, throttled, v.outcome)
	require.Equal(t, int64(1), back.asked.Load())
	v, err = b.decides(passwordFrom("192.0.2.9", "dev1", "two"))
	require.NoError(t, err)
	require.Equal(t, refused, v.outcome)
}

func TestServiceIsAskedOverTLSOfItsCAAlone(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"result":"allow"}`) }))
	defer server.Close()
	server.Config.ErrorLog = nil
	ca := filepath.Join(t.TempDir(), "ca.pem")
	write(t, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	newBench(t, 0, HTTP{URL: server.URL, TLS: tls.ClientConfig{CA: ca}}).start().accepts(password("dev1", "one"), "dev1")
	_, err := newBench(t, 0, HTTP{URL: server.URL}).start().login(password("dev1", "one"))
	require.Equal(t, mqtt.ServerUnavailable, err.(*mqtt.ProtocolFault).Code)
}

func FuzzReply(f *testing.F) {
	for _, seed := range []string{`{"result":"allow"}`, `{"result":"deny"}`, `{"result":"allow","identity":"a","expires_in":9223372036854775807}`, `{"Result":"allow"}`, "null"} {
		f.Add([]byte(seed), "dev1")
	}
	f.Fuzz(func(t *testing.T, text []byte, user string) {
		v, err := judge(text, user)
		if (v.outcome == accepted && err == nil) != (v.identity != nil) {
			t.Fatalf("%+v %v", v, err)
		}
		if v.identity == nil {
			return
		}
		if !ValidName(v.identity.Name) || !v.identity.Until.IsZero() && !v.identity.Until.After(time.Now()) || !strings.Contains(string(text), "llow") && !strings.Contains(string(text), `\u`) {
			t.Fatalf("%s let %+v in", text, v.identity)
		}
	})
}
