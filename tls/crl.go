package tls

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// oidDelta marks a list that only says what changed since another.
var oidDelta = asn1.ObjectIdentifier{2, 5, 29, 27}

// revocations are the serial numbers that CAs revoked. A nil one revokes nothing.
type revocations struct {
	serials map[string]map[string]struct{} // by issuerKey
	next    time.Time                      // when the first list is due to be replaced; zero: never
	leftOut []string                       // issuers whose lists are of no use, as their certificates are not
	unknown map[string]bool                // their names as they stand in certificates: another with such a name is trusted for nothing
}

// issuerKey tells CAs apart. A CA that changed its key keeps its name, so the name alone won't do.
func issuerKey(ca *x509.Certificate) string {
	return string(ca.RawSubject) + string(ca.RawSubjectPublicKeyInfo)
}

// errNoIssuer is what is wrong with a list whose issuer has another name than all CAs.
var errNoIssuer = errors.New("its issuer is none of them")

// parseCRLs reads lists, each of which one of cas must have signed, and none of which may be past its next update. A list of one
// that is in caFile, but not in cas, is left out as well, and nothing that has its name as issuer is trusted: a device may show
// a better certificate of the same CA, that one in cas has signed.
func parseCRLs(f, caFile file, cas []*x509.Certificate, now time.Time) (*revocations, error) {
	ders := f.blocks(pemCRL)
	if len(ders) == 0 {
		if bytes.Contains(f.data, []byte("-----BEGIN")) {
			return nil, f.fault("it has no X509 CRL in PEM")
		}
		ders = [][]byte{f.data}
	}
	r := &revocations{serials: make(map[string]map[string]struct{}), unknown: make(map[string]bool)}
	var names [][]byte // also of the certificates that x509 can't read
	for _, der := range caFile.blocks(pemCertificate) {
		names = append(names, subjectOf(der))
	}
	for i, der := range ders {
		if err := r.add(der, cas, names, now); err != nil {
			return nil, f.fault("list %d: %w", i+1, err)
		}
	}
	return r, nil
}

// subjectOf gives the subject of a certificate, nil if there is none to be found.
func subjectOf(der []byte) []byte {
	var cert struct {
		TBS struct {
			Version                                      int `asn1:"optional,explicit,default:0,tag:0"`
			Serial, Algorithm, Issuer, Validity, Subject asn1.RawValue
		}
	}
	_, _ = asn1.Unmarshal(der, &cert)
	return cert.TBS.Subject.FullBytes
}

func (r *revocations) add(der []byte, cas []*x509.Certificate, names [][]byte, now time.Time) error {
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return err
	}
	ca, err := signer(list, cas)
	named := func(name []byte) bool { return bytes.Equal(name, list.RawIssuer) }
	if errors.Is(err, errNoIssuer) && slices.ContainsFunc(names, named) {
		r.leftOut = append(r.leftOut, list.Issuer.String())
		r.unknown[string(list.RawIssuer)] = true
		return nil
	}
	if err != nil {
		return err
	}
	if !list.NextUpdate.IsZero() && now.After(list.NextUpdate) {
		return fmt.Errorf("it was due to be replaced on %s", day(list.NextUpdate))
	}
	if slices.ContainsFunc(list.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidDelta) }) {
		return errors.New("it is a delta; give the complete list")
	}
	r.due(list.NextUpdate)
	return r.revoke(issuerKey(ca), list.RevokedCertificateEntries)
}

// signer is the CA that signed list.
func signer(list *x509.RevocationList, cas []*x509.Certificate) (*x509.Certificate, error) {
	err := errNoIssuer
	for _, ca := range cas {
		if bytes.Equal(ca.RawSubject, list.RawIssuer) {
			if err = list.CheckSignatureFrom(ca); err == nil {
				return ca, nil
			}
		}
	}
	return nil, fmt.Errorf("it is not signed by one of the client CAs: %w", err)
}

func (r *revocations) due(next time.Time) {
	if !next.IsZero() && (r.next.IsZero() || next.Before(r.next)) {
		r.next = next
	}
}

func (r *revocations) revoke(issuer string, entries []x509.RevocationListEntry) error {
	if r.serials[issuer] == nil {
		r.serials[issuer] = make(map[string]struct{}, len(entries))
	}
	for _, entry := range entries {
		// Such as one that says the entry is about another CA's certificate.
		if slices.ContainsFunc(entry.Extensions, func(e pkix.Extension) bool { return e.Critical }) {
			return fmt.Errorf("the entry of %s has an extension that is critical and not known here", entry.SerialNumber.Text(16))
		}
		r.serials[issuer][string(entry.SerialNumber.Bytes())] = struct{}{}
	}
	return nil
}

func (r *revocations) has(issuer *x509.Certificate, serial *big.Int) bool {
	_, revoked := r.serials[issuerKey(issuer)][string(serial.Bytes())]
	return revoked || r.unknown[string(issuer.RawSubject)]
}

// check passes a client certificate if one of its chains has no certificate that its issuer revoked.
func (r *revocations) check(found [][]*x509.Certificate) error {
	if r == nil || slices.ContainsFunc(chainsOf(found), r.good) {
		return nil
	}
	return ErrRevoked
}

func (r *revocations) good(c chain) bool {
	return r == nil || !slices.ContainsFunc(c.links, func(l link) bool { return r.has(l.issuer, l.serial) })
}

// trusted gives the CAs that none of the others revoked. Chains end at the first CA that is trusted, so a revoked
// one must not be.
func (r *revocations) trusted(cas []*x509.Certificate) []*x509.Certificate {
	if r == nil {
		return cas
	}
	return slices.DeleteFunc(slices.Clone(cas), func(ca *x509.Certificate) bool {
		return slices.ContainsFunc(cas, func(issuer *x509.Certificate) bool {
			return bytes.Equal(ca.RawIssuer, issuer.RawSubject) && r.has(issuer, ca.SerialNumber)
		})
	})
}

// unlisted gives the CAs without a list.
func (r *revocations) unlisted(cas []*x509.Certificate) []*x509.Certificate {
	if r == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(cas), func(ca *x509.Certificate) bool { return r.serials[issuerKey(ca)] != nil })
}
