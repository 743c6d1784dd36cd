package proxy

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/proxy/config"
	"sluice/tls"
	"sluice/tls/tlstest"
)

// TestPrivateAuthoritiesAreForTokensAndKeysToo: their files are read at start, and a bad one says which it is.
func TestPrivateAuthoritiesAreForTokensAndKeysToo(t *testing.T) {
	dir := t.TempDir()
	good, missing := tlstest.NewCA(t, "login").File(t, dir), filepath.Join(dir, "missing.pem")
	kafkaOf := func(ca string) error {
		cfg := parse(t, rulesForTests, "")
		cfg.Kafka.SASL = &config.SASL{Mechanism: config.MechanismOAuthBearer, TokenURL: "https://login.example/", TokenTLS: &config.ClientTLS{CA: ca}}
		c, err := newKafkaClients(cfg, zerolog.Nop())
		if err == nil {
			require.NotNil(t, c.security.SASL.TokenTLS.RootCAs)
		}
		return err
	}
	gateOf := func(ca string) error {
		_, err := newGate(parse(t, rulesForTests, fmt.Sprintf("auth: {jwt: {jwks: 'https://login.example/', tls: {ca: %q}}}\n", ca)), zerolog.Nop(), prometheus.NewRegistry())
		return err
	}
	require.NoError(t, kafkaOf(good))
	require.ErrorContains(t, kafkaOf(missing), "kafka.sasl.token_tls: cannot read CA")
	require.NoError(t, gateOf(good))
	require.ErrorContains(t, gateOf(missing), "missing.pem")
}

// TestAClientCertificateThatCannotBeReadAgainIsTold, and the old one stays in use.
func TestAClientCertificateThatCannotBeReadAgainIsTold(t *testing.T) {
	cert, key := tlstest.NewCA(t, "brokers").Client(t, t.TempDir(), "sluice")
	own := &config.ClientTLS{Certificate: cert, Key: key}
	cfg := parse(t, rulesForTests, "")
	cfg.Kafka.TLS = own
	cfg.Kafka.Identities = map[string]config.KafkaIdentity{"plants": {TLS: own}}
	var log bytes.Buffer
	c, err := newKafkaClients(cfg, zerolog.New(&log))
	require.NoError(t, err)
	plants := c.as("plants", prometheus.NewRegistry())
	tlstest.Write(t, key, nil)
	for i, shown := range []*tls.Config{c.security.TLS, plants.Security.TLS} {
		pair, err := shown.GetClientCertificate(nil)
		require.NoError(t, err)
		require.NotEmpty(t, pair.Certificate)
		require.Equal(t, i+1, bytes.Count(log.Bytes(), []byte("the old one stays in use")), log.String())
	}
}
