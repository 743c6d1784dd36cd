package tls

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// ClientConfig says how we connect to others: Kafka, or an HTTP server.
type ClientConfig struct {
	// CA is a PEM file with the CAs that may sign the server's certificate. Empty: those of the system. It is read once.
	CA string
	// Certificate is a PEM file: our certificate, then its intermediates. Empty: we show none.
	Certificate string
	// Key is a PEM file with the private key of Certificate. Both are read again for each handshake that asks for them.
	Key string
	// ServerName is the name that the server's certificate must have. Empty: the host that is dialed.
	ServerName string
	// Logger takes a line when a changed certificate is of no use.
	Logger zerolog.Logger
}

// NewClient reads all files and checks them; its error names each file that is not good, and why.
func NewClient(cfg ClientConfig) (*Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: cfg.ServerName}
	return config, errors.Join(cfg.trust(config), cfg.show(config))
}

func (cfg ClientConfig) trust(config *tls.Config) error {
	if cfg.CA == "" {
		return nil
	}
	f, err := readFile("CA", cfg.CA)
	if err != nil {
		return err
	}
	cas, err := parseCAs(f, time.Now())
	if err != nil {
		return err
	}
	config.RootCAs = poolOf(cas)
	return nil
}

func (cfg ClientConfig) show(config *tls.Config) error {
	switch {
	case cfg.Certificate == "" && cfg.Key == "":
		return nil
	case cfg.Certificate == "" || cfg.Key == "":
		return errors.New("a client certificate needs both certificate and key")
	}
	p := &pair{cfg: cfg}
	if err := p.load(time.Now()); err != nil {
		return err
	}
	config.GetClientCertificate = p.get
	return nil
}

// A pair is a client certificate that follows its files.
type pair struct {
	cfg ClientConfig

	mu     sync.Mutex // guards what follows
	cert   *tls.Certificate
	digest [sha256.Size]byte
	fault  string // why the files on disk aren't in use; empty: they are
}

// get answers a server that asks for our certificate, with the last that was good.
func (p *pair) get(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.load(time.Now())
	switch {
	case err == nil:
		p.fault = ""
	case err.Error() != p.fault:
		p.fault = err.Error()
		p.cfg.Logger.Error().Err(err).Msg("cannot take the changed client certificate, the old one stays in use")
	}
	return p.cert, nil
}

// load reads the files and takes them if they changed and are good.
func (p *pair) load(now time.Time) error {
	cert, err1 := readFile("certificate", p.cfg.Certificate)
	key, err2 := readFile("key", p.cfg.Key)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	d := digest(cert, key)
	if p.cert != nil && d == p.digest {
		return nil
	}
	loaded, err := parsePair(cert, key, now)
	if err != nil {
		return err
	}
	p.cert, p.digest = &loaded, d
	return nil
}
