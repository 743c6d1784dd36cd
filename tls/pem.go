package tls

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

const (
	pemCertificate = "CERTIFICATE"
	pemCRL         = "X509 CRL"
)

// A file is one that was read: what it is, where it was, and what was in it.
type file struct {
	kind, name string
	data       []byte
}

// byteOrderMark is what some editors write at the beginning, which is in the middle once files were joined. The PEM block
// behind it would not be found.
const byteOrderMark = "\xEF\xBB\xBF"

var (
	markedBlock = []byte(byteOrderMark + "-----BEGIN ")
	plainBlock  = []byte("-----BEGIN ")
)

func readFile(kind, name string) (file, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		var path *fs.PathError
		if errors.As(err, &path) { // says the name again
			err = path.Err
		}
		return file{}, fmt.Errorf("cannot read %s %q: %w", kind, name, err)
	}
	return file{kind, name, bytes.ReplaceAll(data, markedBlock, plainBlock)}, nil
}

// fault says what is wrong with the file.
func (f file) fault(format string, args ...any) error {
	return fmt.Errorf("cannot use %s %q: %w", f.kind, f.name, fmt.Errorf(format, args...))
}

// blocks gives the PEM blocks of one type.
func (f file) blocks(kind string) (all [][]byte) {
	for rest := f.data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return all
		}
		if block.Type == kind {
			all = append(all, block.Bytes)
		}
	}
}

// digest tells whether files changed.
func digest(files ...file) [sha256.Size]byte {
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%d ", len(f.data))
		h.Write(f.data)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// parsePair gives the certificate with its key, if they belong together and it is valid at now.
func parsePair(cert, key file, now time.Time) (tls.Certificate, error) {
	if len(cert.blocks(pemCertificate)) == 0 {
		return tls.Certificate{}, cert.fault("it has no CERTIFICATE in PEM")
	}
	if err := checkKey(key); err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(cert.data, key.data)
	if err != nil {
		return tls.Certificate{}, cert.fault("with key %q: %w", key.name, err)
	}
	return pair, checkDates(cert, pair.Leaf, now)
}

// checkKey finds what crypto/tls would call a missing key.
func checkKey(f file) error {
	if block, _ := pem.Decode(f.data); block == nil {
		return f.fault("it has nothing in PEM")
	}
	if bytes.Contains(f.data, []byte("ENCRYPTED")) { // in the type, or in Proc-Type
		return f.fault("it is encrypted; give one that is not")
	}
	if !bytes.Contains(f.data, []byte("PRIVATE KEY-----")) {
		return f.fault("it has no PRIVATE KEY in PEM")
	}
	return nil
}

func checkDates(f file, cert *x509.Certificate, now time.Time) error {
	switch {
	case now.After(cert.NotAfter):
		return f.fault("it expired on %s", day(cert.NotAfter))
	case now.Before(cert.NotBefore):
		return f.fault("it is not valid before %s", day(cert.NotBefore))
	}
	return nil
}

func day(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// parseCAs gives the CAs in a file, at least one of which is valid at now. What is none is left out, with a fault that
// names it: in a bundle of many one that we can't use must not take the others with it.
func parseCAs(f file, now time.Time) (cas []*x509.Certificate, leftOut []error, err error) {
	var invalid error
	valid := false
	blocks := f.blocks(pemCertificate)
	for i, der := range blocks {
		ca, err := x509.ParseCertificate(der)
		switch {
		case err != nil:
			leftOut = append(leftOut, f.fault("certificate %d: %w", i+1, err))
			continue
		case !ca.IsCA:
			leftOut = append(leftOut, f.fault("certificate %d, %q, is not that of a CA", i+1, ca.Subject))
			continue
		}
		if err := checkDates(f, ca, now); err != nil {
			invalid = err
		} else {
			valid = true
		}
		cas = append(cas, ca)
	}
	if broken := bytes.Count(f.data, []byte("-----BEGIN "+pemCertificate+"-----")) - len(blocks); broken > 0 {
		leftOut = append(leftOut, f.fault("%d of its certificates can't be read as PEM", broken))
	}
	switch {
	case valid:
		return cas, leftOut, nil
	case invalid != nil || len(leftOut) > 0:
		return nil, nil, errors.Join(append(leftOut, invalid)...)
	}
	return nil, nil, f.fault("it has no CERTIFICATE in PEM")
}

// warnOf says what was left out of a file of CAs.
func warnOf(log zerolog.Logger, leftOut []error) {
	for _, err := range leftOut {
		log.Warn().Err(err).Msg("left out a certificate among the CAs")
	}
}

func poolOf(cas []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, ca := range cas {
		pool.AddCert(ca)
	}
	return pool
}

func namesOf(cas []*x509.Certificate) string {
	names := make([]string, len(cas))
	for i, ca := range cas {
		names[i] = ca.Subject.String()
	}
	return strings.Join(names, "; ")
}
