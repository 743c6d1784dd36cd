package tlstest

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// CRL writes a list of revoked serial numbers into dir, valid for a day.
func (ca *CA) CRL(t testing.TB, dir string, serials ...int64) string {
	t.Helper()
	return ca.CRLUntil(t, dir, time.Now().Add(24*time.Hour), serials...)
}

// CRLUntil writes a list that expects its next update at a certain time.
func (ca *CA) CRLUntil(t testing.TB, dir string, next time.Time, revoked ...int64) string {
	t.Helper()
	path := filepath.Join(dir, fresh("crl"))
	WritePEM(t, path, "X509 CRL", ca.RevocationList(t, next, revoked...))
	return path
}

// RevocationList gives a list in DER.
func (ca *CA) RevocationList(t testing.TB, next time.Time, revoked ...int64) []byte {
	t.Helper()
	list := &x509.RevocationList{
		Number:     big.NewInt(serials.Add(1)),
		ThisUpdate: next.Add(-48 * time.Hour),
		NextUpdate: next,
	}
	for _, n := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: list.ThisUpdate})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, ca.Certificate, ca.key)
	require.NoError(t, err)
	return der
}

// WritePEM writes one block to path, in place of what was there, in one step.
func WritePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	Write(t, path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// Write puts data to path, in place of what was there, in one step.
func Write(t testing.TB, path string, data []byte) {
	t.Helper()
	temporary := path + ".new"
	require.NoError(t, os.WriteFile(temporary, data, 0o600))
	require.NoError(t, os.Rename(temporary, path))
}

// Copy puts the content of from to path, in place of what was there, in one step.
func Copy(t testing.TB, from, path string) {
	t.Helper()
	data, err := os.ReadFile(from)
	require.NoError(t, err)
	Write(t, path, data)
}

func fresh(kind string) string { return fmt.Sprintf("%s-%d.pem", kind, serials.Add(1)) }
