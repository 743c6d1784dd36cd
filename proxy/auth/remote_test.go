package auth

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/mqtt"
)

// An issuer serves a key set.
type issuer struct {
	*httptest.Server
	set   atomic.Pointer[string] // nil: it fails
	asked atomic.Int64
}

func newIssuer(t *testing.T, set string) *issuer {
	t.Helper()
	i := &issuer{}
	i.publish(set)
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		i.asked.Add(1)
		if set := i.set.Load(); set != nil {
			fmt.Fprint(w, *set)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) publish(set string) { i.set.Store(&set) }

func TestTokenIsCheckedWithTheKeysOfAURL(t *testing.T) {
	i := newIssuer(t, jwks(t, jwk(t, "1", ecKey(), nil)))
	b := newBench(t, 0, JWT{JWKS: i.URL}).start()
	for range 10 {
		b.accepts(bearer(sign(t, "ES256", ecKey(), claims(nil), kid("1"))), "dev1")
	}
	require.LessOrEqual(t, i.asked.Load(), int64(2))
}

func TestNewKeyOfTheIssuerIsFetchedWhenATokenNamesIt(t *testing.T) {
	i := newIssuer(t, jwks(t, jwk(t, "1", ecKey(), nil)))
	b := newBench(t, 0, JWT{JWKS: i.URL}).start()
	old := bearer(sign(t, "ES256", ecKey(), claims(nil), kid("1")))
	b.accepts(old, "dev1")
	i.publish(jwks(t, jwk(t, "1", ecKey(), nil), jwk(t, "2", otherEC(), nil)))
	fresh := bearer(sign(t, "ES256", otherEC(), claims(nil), kid("2")))
	b.accepts(fresh, "dev1")
	b.accepts(old, "dev1")
	i.publish(jwks(t, jwk(t, "2", otherEC(), nil)))
	_, err := b.decides(bearer(sign(t, "ES256", ecKey(), claims(nil), kid("3")))) // makes the set be read
	require.NoError(t, err)
	v, err := b.decides(old)
	require.NoError(t, err)
	require.Equal(t, refused, v.outcome, "its key was withdrawn")
	b.accepts(fresh, "dev1")
}

func TestUnknownKeyIDsDoNotDriveRequestsToTheIssuer(t *testing.T) {
	i := newIssuer(t, jwks(t, jwk(t, "1", ecKey(), nil)))
	b := newBench(t, 0, JWT{JWKS: i.URL}).start()
	b.accepts(bearer(sign(t, "ES256", ecKey(), claims(nil), kid("1"))), "dev1")
	before := i.asked.Load()
	done := make(chan error)
	for n := range 100 {
		go func() { // ends with its answer
			v, err := b.decides(bearer(sign(t, "ES256", ecKey(), claims(nil), kid(fmt.Sprint("made up ", n)))))
			if err == nil && v.outcome != refused {
				err = fmt.Errorf("outcome %v", v.outcome)
			}
			done <- err
		}()
	}
	for range 100 {
		require.NoError(t, <-done)
	}
	require.LessOrEqual(t, i.asked.Load()-before, int64(askedBurst))
	b.accepts(bearer(sign(t, "ES256", ecKey(), claims(nil), kid("1"))), "dev1")
}

func TestNobodyGetsInWithoutKeysAndThenTheyCome(t *testing.T) {
	i := newIssuer(t, "")
	i.set.Store(nil)
	b := newBench(t, 0, JWT{JWKS: i.URL}, usersFileOf(t, "whoever", "x")).start()
	token := bearer(sign(t, "ES256", ecKey(), claims(nil), kid("1")))
	b.refuses(token, mqtt.ServerUnavailable)
	i.publish(jwks(t, jwk(t, "1", ecKey(), nil)))
	eventually(t, func() bool { _, err := b.login(token); return err == nil })
}

func TestKeysStayWhenTheIssuerFails(t *testing.T) {
	i := newIssuer(t, jwks(t, jwk(t, "1", ecKey(), nil)))
	b := newBench(t, 0, JWT{JWKS: i.URL}).start()
	known := bearer(sign(t, "ES256", ecKey(), claims(nil), kid("1")))
	b.accepts(known, "dev1")
	for _, spoil := range []func(){
		func() { i.set.Store(nil) },
		func() { i.publish(strings.Repeat(" ", maxKeyFile+1)) },
	} {
		spoil()
		b.refuses(bearer(sign(t, "ES256", otherEC(), claims(nil), kid("2"))), mqtt.ServerUnavailable)
		b.accepts(known, "dev1")
	}
	require.Equal(t, 1, strings.Count(b.log.String(), "the key set cannot be read"), "told once")
}

func TestKeySetIsNotFetchedFromElsewhere(t *testing.T) {
	other := newIssuer(t, jwks(t, jwk(t, "1", ecKey(), nil)))
	here := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusFound))
	defer here.Close()
	b := newBench(t, 0, JWT{JWKS: here.URL}).start()
	b.refuses(bearer(sign(t, "ES256", ecKey(), claims(nil), kid("1"))), mqtt.ServerUnavailable)
	require.Zero(t, other.asked.Load())
}

func TestKeysThatAreNotForSignaturesAreLeftOut(t *testing.T) {
	private := map[string]any{"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "o"}
	set, err := parseJWKS([]byte(jwks(t,
		private, map[string]any{"kty": "new"}, map[string]any{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, map[string]any{"kty": 7},
		jwk(t, "enc", rsaKey(), map[string]any{"use": "enc"}), jwk(t, "ops", rsaKey(), map[string]any{"key_ops": []string{"encrypt"}}),
		jwk(t, "r", rsaKey(), map[string]any{"use": "sig", "x5u": "http://127.0.0.1:1/", "key_ops": []string{"verify"}}),
		jwk(t, "e", ecKey(), map[string]any{"d": "AA"}),
	)))
	require.NoError(t, err)
	require.Len(t, set, 2)
	require.Equal(t, rsaKey().Public(), set[0].public)
	require.Equal(t, ecKey().Public(), set[1].public)
	for _, bad := range []string{"", "{}", "[]", `{"keys":{}}`, `{"keys":[7]}`, jwks(t, private), `{"keys":[` + strings.Repeat("{},", maxKeys) + `{}]}`} {
		_, err := parseJWKS([]byte(bad))
		require.Error(t, err, bad)
	}
}

func FuzzKeySet(f *testing.F) {
	f.Add([]byte(jwks(f, jwk(f, "r", rsaKey(), nil), jwk(f, "e", ecKey(), nil), jwk(f, "d", edwardsKey(), nil))))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":""}]}`))
	f.Fuzz(func(t *testing.T, src []byte) {
		set, err := parseJWKS(src)
		if (err == nil) != (len(set) > 0) {
			t.Fatal("keys beside an error")
		}
		for _, k := range set {
			if _, secret := k.public.([]byte); secret || usable(k.public) != nil {
				t.Fatalf("%T was taken", k.public)
			}
		}
	})
}
