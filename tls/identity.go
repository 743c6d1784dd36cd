package tls

import (
	"crypto/x509"
	"encoding/asn1"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// longestIdentity is the most bytes a name may have. It becomes part of topics and keys.
const longestIdentity = 1024

var oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// An Identity is who a client certificate says its holder is. It is the same for all of a connection.
type Identity struct {
	// Name is what ServerConfig.Identity chose: 1 to 1024 bytes of UTF-8 without control characters, + # and /.
	Name string
	// CommonName is that of the subject, under the same rules; empty if there is none, or one that breaks them.
	CommonName string
	// Serial is the certificate's serial number in lower case hexadecimal digits.
	Serial string
	// NotAfter is when the certificate expires. The connection outlives it unless somebody ends it.
	NotAfter time.Time

	standing *standing // nil: nobody can revoke it
}

// Revoked says whether the listener would not accept the certificate any more, by the revocation lists and the client
// CAs that it reads now. It may be called from any goroutine, and costs next to nothing while these files don't change.
func (id *Identity) Revoked() bool { return id.standing != nil && id.standing.lost() }

// identify gives the identity in cert, or an *IdentityError.
func identify(cert *x509.Certificate, kind string) (*Identity, error) {
	name := nameOf(cert, kind)
	if fault := NameFault(name); fault != "" {
		return nil, &IdentityError{Kind: kind, Fault: fault}
	}
	id := &Identity{Name: name, Serial: cert.SerialNumber.Text(16), NotAfter: cert.NotAfter}
	if cn := commonName(cert); NameFault(cn) == "" {
		id.CommonName = cn
	}
	return id, nil
}

func nameOf(cert *x509.Certificate, kind string) string {
	switch {
	case kind == IdentityCN:
		return commonName(cert)
	case kind == IdentityDNS && len(cert.DNSNames) > 0:
		return cert.DNSNames[0]
	case kind == IdentityEmail && len(cert.EmailAddresses) > 0:
		return cert.EmailAddresses[0]
	case kind == IdentityURI && len(cert.URIs) > 0:
		return cert.URIs[0].String()
	}
	return ""
}

// commonName is the first of the subject; x509 gives the last.
func commonName(cert *x509.Certificate) string {
	for _, attribute := range cert.Subject.Names {
		if attribute.Type.Equal(oidCommonName) {
			name, _ := attribute.Value.(string)
			return name
		}
	}
	return ""
}

// NameFault says why name can't be that of a device, whether a certificate, a token or a users file gives it; empty: it can.
func NameFault(name string) string {
	switch {
	case name == "":
		return "is missing or empty"
	case len(name) > longestIdentity:
		return "is longer than 1024 bytes"
	case !utf8.ValidString(name):
		return "is not valid UTF-8"
	case strings.ContainsAny(name, "+#/"):
		return "contains one of + # /"
	case strings.ContainsFunc(name, unicode.IsControl):
		return "contains a control character"
	}
	return ""
}
