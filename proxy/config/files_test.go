package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFilesAreRelativeToTheConfiguration: it means the same wherever the process is started.
func TestFilesAreRelativeToTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sluice.yaml")
	require.NoError(t, os.WriteFile(path, []byte(cluster(`  tls: {ca: ca.pem, certificate: /etc/c.pem, key: keys/c.key}
  identities: {a: {tls: {ca: ../a.pem}}}
auth:
  - file: users.yaml
  - jwt: {key: k.pem}
  - jwt: {jwks: keys.json}
  - jwt: {jwks: 'https://login.example/keys'}
  - http: {url: 'https://auth.example', tls: {ca: h.pem}}
`)), 0o600))
	cfg, err := Load(path, noEnv)
	require.NoError(t, err)
	here := func(name string) string { return filepath.Join(dir, name) }
	require.Equal(t, &ClientTLS{CA: here("ca.pem"), Certificate: "/etc/c.pem", Key: here("keys/c.key")}, cfg.Kafka.TLS)
	require.Equal(t, filepath.Join(filepath.Dir(dir), "a.pem"), cfg.Kafka.Identities["a"].TLS.CA)
	require.Equal(t, here("users.yaml"), cfg.Auth[0].File)
	require.Equal(t, here("k.pem"), cfg.Auth[1].JWT.Key)
	require.Equal(t, here("keys.json"), cfg.Auth[2].JWT.JWKS)
	require.Equal(t, "https://login.example/keys", cfg.Auth[3].JWT.JWKS)
	require.Equal(t, &ClientTLS{CA: here("h.pem")}, cfg.Auth[4].HTTP.TLS)

	require.NoError(t, os.WriteFile(path, []byte(listening(serverTLS+"      client_ca: ca.pem\n      client_auth: require\n      crl: crl.pem\n")), 0o600))
	cfg, err = Load(path, noEnv)
	require.NoError(t, err)
	require.Equal(t, ListenerTLS{here("s.pem"), here("s.key"), here("ca.pem"), "require", here("crl.pem"), "cn", "1.2"}, *cfg.Listeners[0].TLS)
}
