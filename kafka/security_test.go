package kafka

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"sluice/tls"
	"sluice/tls/tlstest"
)

const secret = "Correct-Horse-7"

// secureFake starts a cluster with TLS in which the user sluice has a password for each mechanism.
func secureFake(t *testing.T) (addrs []string, trusted *tls.Config) {
	t.Helper()
	ca := tlstest.NewCA(t, "ca")
	opts := []kfake.Opt{kfake.NumBrokers(1), kfake.EnableSASL(), kfake.TLS(ca.ServerConfig(t, "127.0.0.1"))}
	for _, mechanism := range []string{Plain, ScramSHA256, ScramSHA512} {
		opts = append(opts, kfake.Superuser(mechanism, "sluice", secret))
	}
	c, err := kfake.NewCluster(opts...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c.ListenAddrs(), ca.ClientConfig(t, "127.0.0.1")
}

func ping(t *testing.T, addrs []string, s Security) error {
	t.Helper()
	a, err := NewAdmin(Config{Brokers: addrs, Security: s})
	require.NoError(t, err)
	defer func() { require.NoError(t, a.Close()) }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return a.Ping(ctx)
}

func TestAPasswordOpensThroughTLS(t *testing.T) {
	addrs, trusted := secureFake(t)
	for _, mechanism := range []string{Plain, ScramSHA256, ScramSHA512} {
		require.NoError(t, ping(t, addrs, Security{TLS: trusted, SASL: &SASL{Mechanism: mechanism, Username: "sluice", Password: secret}}))
	}
}

func TestABrokerThatIsNotTrustedIsToldFromOneThatIsAway(t *testing.T) {
	addrs, trusted := secureFake(t)
	sasl := &SASL{Mechanism: Plain, Username: "sluice", Password: secret}
	err := ping(t, addrs, Security{TLS: tlstest.NewCA(t, "other").ClientConfig(t, "127.0.0.1"), SASL: sasl})
	require.ErrorIs(t, err, ErrAuthentication)
	require.ErrorContains(t, err, "cannot agree with "+addrs[0]+" on TLS")
	err = ping(t, []string{"127.0.0.1:1"}, Security{TLS: trusted, SASL: sasl})
	require.Error(t, err)
	require.NotErrorIs(t, err, ErrAuthentication)
	require.ErrorContains(t, err, "cannot connect to 127.0.0.1:1")
}

func TestWhatCannotProveAnythingIsRefusedWithoutSecrets(t *testing.T) {
	f := func(s *SASL, want string) {
		t.Helper()
		_, err := NewAdmin(Config{Brokers: []string{"a:1"}, Security: Security{SASL: s}})
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), secret)
	}
	f(&SASL{Mechanism: "GSSAPI"}, `unknown SASL mechanism "GSSAPI"`)
	f(&SASL{Mechanism: Plain, Password: secret}, "needs a username and a password")
	f(&SASL{Mechanism: ScramSHA512, Username: "sluice"}, "needs a username and a password")
	f(&SASL{Mechanism: ScramSHA256, Username: "sluice", Password: secret + "\x00"}, "SASLprep")
	f(&SASL{Mechanism: OAuthBearer, ClientID: "c", ClientSecret: secret}, "URL of a token endpoint")
	f(&SASL{Mechanism: OAuthBearer, ClientID: "c", TokenURL: "ftp://x/" + secret}, "URL of a token endpoint")
	f(&SASL{Mechanism: OAuthBearer, TokenURL: "https://x/"}, "needs a client ID")
}

// A mint is a token endpoint as a transport, so that time can be a test's own.
type mint struct {
	asked  int
	answer func() (status int, body string)
}

func (m *mint) RoundTrip(*http.Request) (*http.Response, error) {
	m.asked++
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", "application/json")
	status, body := m.answer()
	w.WriteHeader(status)
	_, _ = w.WriteString(body)
	return w.Result(), nil
}

func minted(t *testing.T, m *mint) *tokenSource {
	t.Helper()
	s := &SASL{Mechanism: OAuthBearer, TokenURL: "https://login.example/token?key=" + secret, ClientID: "sluice", ClientSecret: secret}
	require.NoError(t, s.check())
	s.tokens.http.Transport = m
	s.tokens.ask.AuthStyle = 2 // in the header, which it would find out by asking twice
	return s.tokens
}

func good(token string) func() (int, string) {
	return func() (int, string) {
		return http.StatusOK, `{"access_token":"` + token + `","token_type":"Bearer","expires_in":100}`
	}
}

func TestATokenIsSharedUntilMostOfItsLifeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &mint{answer: good("one")}
		source := minted(t, m)
		is := func(want string) {
			t.Helper()
			token, err := source.Token()
			require.NoError(t, err)
			require.Equal(t, want, token.Token)
		}
		is("one")
		time.Sleep(79 * time.Second)
		m.answer = good("two")
		is("one")
		require.Equal(t, 1, m.asked)
		time.Sleep(2 * time.Second)
		m.answer = func() (int, string) { return http.StatusServiceUnavailable, "" }
		is("one")
		is("one")
		require.Equal(t, 2, m.asked, "not again at once")
		time.Sleep(tokenPause)
		m.answer = good("two")
		is("two")
		source.doubt()
		m.answer = good("three")
		is("two")
		time.Sleep(tokenPause)
		is("three")
		m.answer = func() (int, string) { return http.StatusUnauthorized, "" }
		time.Sleep(101 * time.Second)
		_, err := source.Token()
		require.ErrorContains(t, err, "no token from https://login.example/token: 401 Unauthorized")
	})
}

func TestTheTokenEndpointsWordsAreNotRepeated(t *testing.T) {
	f := func(status int, body, want string, final bool) {
		t.Helper()
		_, err := minted(t, &mint{answer: func() (int, string) { return status, body }}).Token()
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), secret)
		s := Security{SASL: &SASL{Mechanism: OAuthBearer, ClientID: "sluice"}}
		told := s.explain("cannot connect to", "k:1", err)
		require.ErrorContains(t, told, `cannot authenticate at k:1 with OAUTHBEARER as "sluice": no token from`)
		if final {
			require.ErrorIs(t, told, ErrAuthentication)
		} else {
			require.NotErrorIs(t, told, ErrAuthentication)
		}
	}
	f(401, `{"error":"invalid_client","error_description":"not `+secret+`"}`, `401 Unauthorized "invalid_client"`, true)
	f(400, `{"error":"`+secret+`"}`, `400 Bad Request ""`, true)
	f(302, secret, "302 Found", true)
	f(403, secret, "403 Forbidden", true)
	f(500, secret, "500 Internal Server Error", false)
	f(429, secret, "429 Too Many Requests", false)
	f(200, secret, "its answer can't be read", true)
	f(200, `{"token_type":"`+secret+`"}`, "its answer can't be read", true)
}

// TestTheSecretDoesNotFollowARedirect: it is for the endpoint that is configured.
func TestTheSecretDoesNotFollowARedirect(t *testing.T) {
	var asked atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer other.Close()
	endpoint := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer endpoint.Close()
	s := &SASL{Mechanism: OAuthBearer, TokenURL: endpoint.URL, ClientID: "sluice", ClientSecret: secret}
	require.NoError(t, s.check())
	_, err := s.tokens.Token()
	require.ErrorContains(t, err, "307")
	require.Zero(t, asked.Load())
}

func TestAnEndpointThatIsAwayIsNoRefusal(t *testing.T) {
	s := Security{SASL: &SASL{Mechanism: OAuthBearer, TokenURL: "http://127.0.0.1:1/", ClientID: "sluice", ClientSecret: secret}}
	require.NoError(t, s.check())
	_, err := s.SASL.tokens.Token()
	told := s.explain("cannot connect to", "k:1", err)
	require.ErrorContains(t, told, "no token from http://127.0.0.1:1/")
	require.NotErrorIs(t, told, ErrAuthentication)
}

func TestProducersThatShareABudgetRegisterItOnce(t *testing.T) {
	first, err := NewProducer(Config{Brokers: []string{"a:1"}, MaxInFlightBytes: 10})
	require.NoError(t, err)
	second, err := NewProducer(Config{Brokers: []string{"a:1"}, Budget: first.Budget()})
	require.NoError(t, err)
	require.Same(t, first.Budget(), second.Budget())
	require.Len(t, second.m.all, len(first.m.all)-3)
}
