package tls

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// ClientConfig says how we connect to others: Kafka, or an HTTP server.
type ClientConfig struct {
	// CA is a PEM file with the CAs that may sign the server's certificate. Empty: those of the system. It is read again for
	// each connection, see Fresh.
	CA string
	// Certificate is a PEM file: our certificate, then its intermediates. Empty: we show none.
	Certificate string
	// Key is a PEM file with the private key of Certificate. Both are read again for each handshake that asks for them.
	Key string
	// ServerName is the name that the server's certificate must have. Empty: the host that is dialed.
	ServerName string
	// Logger takes a line when a changed file is of no use, and for each certificate that is left out of the CAs.
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
	t := &trusted{cfg: cfg}
	if err := t.load(time.Now()); err != nil {
		return err
	}
	config.RootCAs = t.pool
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { // no client calls it; Fresh does
		fresh := config.Clone()
		fresh.RootCAs = t.get()
		return fresh, nil
	}
	return nil
}

// Fresh gives the configuration for the next connection: that of NewClient trusts the CAs that are in its file now, and
// any other is as it is.
func Fresh(config *Config) *Config {
	if config == nil || config.GetConfigForClient == nil {
		return config
	}
	fresh, _ := config.GetConfigForClient(nil) // never fails, see trust
	return fresh
}

// Secure makes TLS of conn, a connection to addr, and shakes hands. It closes conn if that fails.
func Secure(ctx context.Context, config *Config, conn net.Conn, addr string) (net.Conn, error) {
	if config = Fresh(config); config.ServerName == "" {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			host = addr
		}
		config = config.Clone()
		config.ServerName = host
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secure, nil
}

// Dialer gives what an http.Transport has as DialTLSContext.
func Dialer(config *Config) func(ctx context.Context, network, addr string) (net.Conn, error) {
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return Secure(ctx, config, conn, addr)
	}
}

// trusted are CAs that follow their file.
type trusted struct {
	cfg ClientConfig

	mu     sync.Mutex // guards what follows
	pool   *x509.CertPool
	digest [sha256.Size]byte
	fault  string // why the file on disk isn't in use; empty: it is
}

// get gives the CAs of the file, or the last that were good.
func (t *trusted) get() *x509.CertPool {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.load(time.Now())
	switch {
	case err == nil:
		t.fault = ""
	case err.Error() != t.fault:
		t.fault = err.Error()
		t.cfg.Logger.Error().Err(err).Msg("cannot take the changed CAs, the old ones stay in use")
	}
	return t.pool
}

// load reads the file and takes it if it changed and is good.
func (t *trusted) load(now time.Time) error {
	f, err := readFile("CA", t.cfg.CA)
	if err != nil {
		return err
	}
	d := digest(f)
	if t.pool != nil && d == t.digest {
		return nil
	}
	cas, leftOut, err := parseCAs(f, now)
	if err != nil {
		return err
	}
	warnOf(t.cfg.Logger, leftOut)
	if t.pool != nil {
		t.cfg.Logger.Info().Str("file", f.name).Str("subjects", namesOf(cas)).Msg("the CAs have changed")
	}
	t.pool, t.digest = poolOf(cas), d
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
