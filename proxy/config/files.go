package config

import (
	"path/filepath"
	"strings"
)

// resolve makes the names of files that are relative to dir, the folder of the configuration, relative to the folder
// of the process.
func (c *Config) resolve(dir string) {
	for _, name := range c.files() {
		if *name != "" && !filepath.IsAbs(*name) {
			*name = filepath.Join(dir, *name)
		}
	}
}

// files gives every field that names a file.
func (c *Config) files() (names []*string) {
	for i := range c.Listeners {
		if t := c.Listeners[i].TLS; t != nil {
			names = append(names, &t.Certificate, &t.Key, &t.ClientCA, &t.CRL)
		}
	}
	names = append(append(names, c.Kafka.TLS.files()...), c.Kafka.SASL.files()...)
	for _, identity := range c.Kafka.Identities {
		names = append(append(names, identity.TLS.files()...), identity.SASL.files()...)
	}
	for i := range c.Auth {
		names = append(names, c.Auth[i].files()...)
	}
	return names
}

func (t *ClientTLS) files() []*string {
	if t == nil {
		return nil
	}
	return []*string{&t.CA, &t.Certificate, &t.Key}
}

func (s *SASL) files() []*string {
	if s == nil {
		return nil
	}
	return s.TokenTLS.files()
}

func (m *AuthMethod) files() []*string {
	names := []*string{&m.File}
	if m.JWT != nil {
		names = append(append(names, &m.JWT.Key), m.JWT.TLS.files()...)
		if !strings.Contains(m.JWT.JWKS, "://") {
			names = append(names, &m.JWT.JWKS)
		}
	}
	if m.HTTP != nil {
		names = append(names, m.HTTP.TLS.files()...)
	}
	return names
}
