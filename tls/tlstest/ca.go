package tlstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/url"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// serials are the serial numbers given out, and the number in the name of each file.
var serials atomic.Int64

// A CA signs certificates.
type CA struct {
	Certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// An Option changes a certificate before it is signed.
type Option func(*x509.Certificate)

// Expired makes a certificate that was valid until an hour ago.
func Expired() Option { return Valid(-48*time.Hour, -time.Hour) }

// NotYet makes a certificate that becomes valid in an hour.
func NotYet() Option { return Valid(time.Hour, 48*time.Hour) }

// Valid makes a certificate valid between two moments seen from now.
func Valid(from, to time.Duration) Option {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to) }
}

// DNS gives alternative names that are DNS names.
func DNS(names ...string) Option { return func(c *x509.Certificate) { c.DNSNames = names } }

// Email gives alternative names that are e-mail addresses.
func Email(addresses ...string) Option {
	return func(c *x509.Certificate) { c.EmailAddresses = addresses }
}

// URI gives an alternative name that is a URI.
func URI(text string) Option {
	return func(c *x509.Certificate) {
		u, err := url.Parse(text)
		if err != nil {
			panic(err)
		}
		c.URIs = append(c.URIs, u)
	}
}

// Serial gives the serial number, by which a CRL names a certificate.
func Serial(n int64) Option { return func(c *x509.Certificate) { c.SerialNumber = big.NewInt(n) } }

// NewCA makes a CA with a key of its own.
func NewCA(t testing.TB, name string, opts ...Option) *CA {
	t.Helper()
	template := template(name, opts)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	key := newKey(t)
	return &CA{sign(t, template, template, key, key), key}
}

// Intermediate makes a CA that ca signed.
func (ca *CA) Intermediate(t testing.TB, name string) *CA {
	t.Helper()
	template := template(name, nil)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	key := newKey(t)
	return &CA{sign(t, template, ca.Certificate, key, ca.key), key}
}

// File writes the CA's certificate into dir.
func (ca *CA) File(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(dir, fresh("ca"))
	WritePEM(t, path, "CERTIFICATE", ca.Certificate.Raw)
	return path
}

// Version1 gives the CA's certificate as one of X.509 version 1, which has no extensions, so that nothing says that it is a CA's.
func (ca *CA) Version1(t testing.TB) []byte {
	t.Helper()
	var tbs struct {
		Version                                   int `asn1:"optional,explicit,default:0,tag:0"`
		Serial                                    *big.Int
		Algorithm, Issuer, Validity, Subject, Key asn1.RawValue
	}
	_, err := asn1.Unmarshal(ca.Certificate.RawTBSCertificate, &tbs)
	require.NoError(t, err)
	tbs.Version = 0
	raw, err := asn1.Marshal(tbs)
	require.NoError(t, err)
	hash := sha256.Sum256(raw)
	signature, err := ecdsa.SignASN1(rand.Reader, ca.key, hash[:])
	require.NoError(t, err)
	der, err := asn1.Marshal(struct {
		TBS, Algorithm asn1.RawValue
		Signature      asn1.BitString
	}{asn1.RawValue{FullBytes: raw}, tbs.Algorithm, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
	require.NoError(t, err)
	return der
}

// Server makes the certificate of a server for hosts, names or addresses, and writes it and its key into dir.
func (ca *CA) Server(t testing.TB, dir string, hosts ...string) (cert, key string) {
	t.Helper()
	return ca.Issue(t, dir, "server", forHosts(hosts))
}

// Client makes the certificate of a client with the common name cn, and writes it and its key into dir.
func (ca *CA) Client(t testing.TB, dir, cn string, opts ...Option) (cert, key string) {
	t.Helper()
	usage := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }
	return ca.Issue(t, dir, cn, append([]Option{usage}, opts...)...)
}

// Issue makes a certificate, good for servers unless an option says otherwise, and writes it and its key into dir.
func (ca *CA) Issue(t testing.TB, dir, cn string, opts ...Option) (cert, key string) {
	t.Helper()
	secret := newKey(t)
	made := sign(t, template(cn, opts), ca.Certificate, secret, ca.key)
	cert, key = filepath.Join(dir, fresh("cert")), filepath.Join(dir, fresh("key"))
	WritePEM(t, cert, "CERTIFICATE", made.Raw)
	der, err := x509.MarshalPKCS8PrivateKey(secret)
	require.NoError(t, err)
	WritePEM(t, key, "PRIVATE KEY", der)
	return cert, key
}

func forHosts(hosts []string) Option {
	return func(c *x509.Certificate) {
		for _, host := range hosts {
			if ip := net.ParseIP(host); ip != nil {
				c.IPAddresses = append(c.IPAddresses, ip)
			} else {
				c.DNSNames = append(c.DNSNames, host)
			}
		}
	}
}

func template(cn string, opts []Option) *x509.Certificate {
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serials.Add(1)),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if cn != "" {
		c.Subject = pkix.Name{CommonName: cn}
	}
	for _, opt := range opts {
		opt(c)
	}
	return c
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func sign(t testing.TB, template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	if template.IsCA {
		template.ExtKeyUsage = nil
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

func (ca *CA) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.Certificate)
	return pool
}
