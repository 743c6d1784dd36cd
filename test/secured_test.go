package test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/kafka"
	"sluice/test/cluster"
	"sluice/tls"
	"sluice/tls/tlstest"
)

// root may do everything in a secured cluster, whoever says so: it is a user of PLAIN and SCRAM, a client of the token
// endpoint and the name in a certificate. gadget has a password too, and no right but those that a test gives it.
const (
	root   = "root"
	gadget = "gadget"
)

// passwords are looked for in every log and error.
var passwords = map[string]string{root: "Correct-Horse-7", gadget: "Battery-Staple-9"}

// sessionLife is after how many milliseconds a client has to prove again who it is.
const sessionLife = 4000

// tokenLife is for how many seconds a token is good. Kafka wants a second at least between two proofs, so what is left of
// a token when a client uses it for the last time must be more.
const tokenLife = 15

// A secured is a Kafka that lets in only who proves who it is.
type secured struct {
	*cluster.Cluster
	ca     *tlstest.CA
	tokens *tokenServer
	admin  *kadm.Client // past all of it
}

// needSecured starts one.
func needSecured(t *testing.T) *secured {
	t.Helper()
	ca, tokens := tlstest.NewCA(t, "cluster-ca"), newTokenServer(t)
	cert, key := ca.Server(t, t.TempDir(), "127.0.0.1", "localhost")
	cfg, err := cluster.Secure{Certificate: cert, Key: key, ClientCA: ca.File(t, t.TempDir()), Users: passwords, JWKS: tokens.jwks.URL,
		Superusers: []string{root}, Session: sessionLife}.Config()
	require.NoError(t, err)
	s := &secured{Cluster: cluster.Need(t, cfg), ca: ca, tokens: tokens}
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.Direct()...))
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	s.admin = kadm.NewClient(cl)
	addScram(t, s, root, passwords[root])
	return s
}

// sasl is how root, or another with a password, comes in by a mechanism.
func (s *secured) sasl(t testing.TB, mechanism, user, password string) kafka.Config {
	sasl := &kafka.SASL{Mechanism: mechanism, Username: user, Password: password}
	if mechanism == kafka.OAuthBearer {
		sasl = &kafka.SASL{Mechanism: mechanism, TokenURL: s.tokens.endpoint.URL, ClientID: user, ClientSecret: password, Scopes: []string{"kafka"},
			TokenTLS: s.tokens.ca.ClientConfig(t, "127.0.0.1")}
	}
	return kafka.Config{Brokers: s.At(cluster.SASL), CreateTopics: &kafka.CreateTopics{Partitions: 3},
		Security: kafka.Security{TLS: s.client(t, tls.ClientConfig{}), SASL: sasl}}
}

// mutual is how a client with a certificate comes in.
func (s *secured) mutual(t testing.TB, cert, key string) kafka.Config {
	return kafka.Config{Brokers: s.At(cluster.Mutual), CreateTopics: &kafka.CreateTopics{Partitions: 3},
		Security: kafka.Security{TLS: s.client(t, tls.ClientConfig{Certificate: cert, Key: key})}}
}

// client trusts the cluster unless it is told to trust another CA.
func (s *secured) client(t testing.TB, c tls.ClientConfig) *tls.Config {
	t.Helper()
	if c.CA == "" {
		c.CA = s.ca.File(t, t.TempDir())
	}
	cfg, err := tls.NewClient(c)
	require.NoError(t, err)
	return cfg
}

// A tokenServer gives tokens to clients that know their secret, and tells Kafka the key they are signed with.
type tokenServer struct {
	ca       *tlstest.CA
	endpoint *httptest.Server
	jwks     *httptest.Server
	key      *rsa.PrivateKey
	life     time.Duration
	given    atomic.Int64
}

func newTokenServer(t testing.TB) *tokenServer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	s := &tokenServer{ca: tlstest.NewCA(t, "token-ca"), key: key, life: tokenLife * time.Second}
	s.endpoint = httptest.NewUnstartedServer(http.HandlerFunc(s.token))
	s.endpoint.TLS = s.ca.ServerConfig(t, "127.0.0.1")
	s.endpoint.StartTLS()
	s.jwks = httptest.NewServer(http.HandlerFunc(s.keys))
	t.Cleanup(s.endpoint.Close)
	t.Cleanup(s.jwks.Close)
	return s
}

func (s *tokenServer) token(w http.ResponseWriter, r *http.Request) {
	user, secret, _ := r.BasicAuth()
	w.Header().Set("Content-Type", "application/json")
	if r.FormValue("grant_type") != "client_credentials" || passwords[user] == "" || passwords[user] != secret {
		w.WriteHeader(http.StatusUnauthorized)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_client", "error_description": "not your secret: " + secret})
		return
	}
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{"sub": user, "aud": "kafka", "scope": r.FormValue("scope"),
		"iat": now.Unix(), "exp": now.Add(s.life).Unix()})
	token.Header["kid"] = "1"
	signed, err := token.SignedString(s.key)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	s.given.Add(1)
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": signed, "token_type": "Bearer", "expires_in": int(s.life.Seconds())})
}

func (s *tokenServer) keys(w http.ResponseWriter, _ *http.Request) {
	encode := base64.RawURLEncoding.EncodeToString
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"keys": []map[string]string{{"kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256",
		"n": encode(s.key.N.Bytes()), "e": encode(big.NewInt(int64(s.key.E)).Bytes())}}})
}
