package tlstest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The types of records.
const (
	Handshake = 22
	Data      = 23
)

// KeyUpdate is the message that changes the keys; 1 asks the other side to change its own.
func KeyUpdate(request byte) []byte { return []byte{24, 0, 0, 1, request} }

// A Half makes or opens the records of one direction of TLS 1.3 with AES-128-GCM, of any type and with any padding, as
// crypto/tls' own client can't.
type Half struct {
	Seq uint64 // of the next record

	secret []byte
	aead   cipher.AEAD
	iv     []byte
}

func expand(t testing.TB, secret []byte, label string, n int) []byte {
	t.Helper()
	label = "tls13 " + label
	info := append(binary.BigEndian.AppendUint16(nil, uint16(n)), byte(len(label)))
	out, err := hkdf.Expand(sha256.New, secret, string(append(append(info, label...), 0)), n)
	require.NoError(t, err)
	return out
}

// NewHalf makes one of a traffic secret.
func NewHalf(t testing.TB, secret []byte) *Half {
	t.Helper()
	return &Half{secret: secret, aead: GCM(t, expand(t, secret, "key", 16)), iv: expand(t, secret, "iv", 12)}
}

// GCM is AES-GCM with a key.
func GCM(t testing.TB, key []byte) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(key)
	require.NoError(t, err)
	aead, err := cipher.NewGCM(block)
	require.NoError(t, err)
	return aead
}

// Next is the half after a change of keys.
func (h *Half) Next(t testing.TB) *Half {
	t.Helper()
	return NewHalf(t, expand(t, h.secret, "traffic upd", sha256.Size))
}

func (h *Half) nonce() []byte {
	nonce := bytes.Clone(h.iv)
	for i, b := range binary.BigEndian.AppendUint64(nil, h.Seq) {
		nonce[4+i] ^= b
	}
	h.Seq++
	return nonce
}

// Seal makes a record.
func (h *Half) Seal(kind byte, content []byte, padding int) []byte {
	inner := append(append(bytes.Clone(content), kind), make([]byte, padding)...)
	header := binary.BigEndian.AppendUint16([]byte{Data, 3, 3}, uint16(len(inner)+h.aead.Overhead()))
	return h.aead.Seal(header, h.nonce(), inner, header)
}

// Open takes one record, and gives its type and what follows it.
func (h *Half) Open(t testing.TB, b []byte) (kind byte, content, rest []byte) {
	t.Helper()
	require.GreaterOrEqual(t, len(b), 5)
	n := 5 + int(binary.BigEndian.Uint16(b[3:]))
	inner, err := h.aead.Open(nil, h.nonce(), b[5:n], b[:5])
	require.NoError(t, err)
	inner = bytes.TrimRight(inner, "\x00")
	return inner[len(inner)-1], inner[:len(inner)-1], b[n:]
}

// Secret reads a key log.
func Secret(t testing.TB, log, label string) []byte {
	t.Helper()
	for line := range strings.Lines(log) {
		if fields := strings.Fields(line); fields[0] == label {
			secret, err := hex.DecodeString(fields[2])
			require.NoError(t, err)
			return secret
		}
	}
	t.Fatal("no " + label + " in the key log")
	return nil
}
