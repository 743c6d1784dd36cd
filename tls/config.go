package tls

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// Config is crypto/tls' configuration, so that others can pass one on without importing that package.
type Config = tls.Config

// What ServerConfig.ClientAuth says about certificates of devices.
const (
	// ClientAuthNone asks for none.
	ClientAuthNone = "none"
	// ClientAuthRequest asks for one; a device may have none, but one that it has must be good.
	ClientAuthRequest = "request"
	// ClientAuthRequire lets nobody in without one.
	ClientAuthRequire = "require"
)

// What of a client certificate ServerConfig.Identity makes the name of its device.
const (
	// IdentityCN is the common name of the subject.
	IdentityCN = "cn"
	// IdentityDNS is the first DNS name among the subject's alternative names.
	IdentityDNS = "san_dns"
	// IdentityEmail is the first e-mail address among them.
	IdentityEmail = "san_email"
	// IdentityURI is the first URI among them.
	IdentityURI = "san_uri"
)

// ServerConfig says how a listener proves itself and whether it asks devices for certificates. All files are read again
// when they change.
type ServerConfig struct {
	// Certificate is a PEM file: the listener's certificate, then its intermediates.
	Certificate string
	// Key is a PEM file with the private key of Certificate; it must not be encrypted.
	Key string
	// ClientCA is a PEM file with the CAs that sign the certificates of devices. Empty: devices aren't asked for one.
	ClientCA string
	// ClientAuth is none, request or require. Empty: require with a ClientCA, none without.
	ClientAuth string
	// CRL is a file with revocation lists of these CAs, PEM or one in DER. Empty: nothing is revoked. A list that is past its
	// next update is refused when the file is read; one that gets there later goes on to be used, with an error logged each
	// hour. Certificates of a CA that has no list in the file are not checked; a warning names it, and also a list that is left out
	// because its issuer is.
	CRL string
	// MinVersion is 1.2 or 1.3. Empty: 1.2.
	MinVersion string
	// Identity is cn, san_dns, san_email or san_uri. Empty: cn.
	Identity string
	// Listener tells listeners apart in logs and metrics, such as their address.
	Listener string
	// Logger takes a line for each reload, and for what is about to expire.
	Logger zerolog.Logger
	// Registerer takes the metrics; nil: none.
	Registerer prometheus.Registerer
}

// validate gives the configuration with its defaults, or all that is wrong with it.
func (c ServerConfig) validate() (ServerConfig, error) {
	c = c.withDefaults()
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(c.Certificate == "", "a listener with TLS needs a certificate")
	fault(c.Key == "", "a listener with TLS needs a key")
	fault(c.ClientAuth != ClientAuthNone && c.ClientCA == "", "client_auth %q needs client_ca", c.ClientAuth)
	fault(c.ClientAuth == ClientAuthNone && c.ClientCA != "", "client_ca has no use with client_auth none")
	fault(c.CRL != "" && c.ClientCA == "", "crl needs client_ca")
	faults = append(faults,
		oneOf("client_auth", c.ClientAuth, ClientAuthNone, ClientAuthRequest, ClientAuthRequire),
		oneOf("min_version", c.MinVersion, "1.2", "1.3"),
		oneOf("identity", c.Identity, IdentityCN, IdentityDNS, IdentityEmail, IdentityURI))
	return c, errors.Join(faults...)
}

func (c ServerConfig) withDefaults() ServerConfig {
	if c.ClientAuth == "" {
		c.ClientAuth = ClientAuthNone
		if c.ClientCA != "" {
			c.ClientAuth = ClientAuthRequire
		}
	}
	if c.MinVersion == "" {
		c.MinVersion = "1.2"
	}
	if c.Identity == "" {
		c.Identity = IdentityCN
	}
	return c
}

func oneOf(name, value string, allowed ...string) error {
	for _, a := range allowed {
		if value == a {
			return nil
		}
	}
	return fmt.Errorf("%s is %q, not one of %s", name, value, strings.Join(allowed, ", "))
}

// files are those that are watched.
func (c ServerConfig) files() []string {
	var names []string
	for _, name := range []string{c.Certificate, c.Key, c.ClientCA, c.CRL} {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

func (c ServerConfig) version() uint16 {
	if c.MinVersion == "1.3" {
		return tls.VersionTLS13
	}
	return tls.VersionTLS12
}

func (c ServerConfig) clientAuth() tls.ClientAuthType {
	switch c.ClientAuth {
	case ClientAuthRequire:
		return tls.RequireAndVerifyClientCert
	case ClientAuthRequest:
		return tls.VerifyClientCertIfGiven
	}
	return tls.NoClientCert
}
