package tls

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The types of records.
const (
	typeAlert     = 21
	typeHandshake = 22
	typeData      = 23
)

// late calls before ahead of its second write, which is the one with the certificate.
type late struct {
	net.Conn
	writes int
	before func()
}

func (l *late) Write(p []byte) (int, error) {
	if l.writes++; l.writes == 2 {
		l.before()
	}
	return l.Conn.Write(p)
}

// heard keeps what was read from a connection.
type heard struct {
	net.Conn
	all []byte
}

func (h *heard) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	h.all = append(h.all, p[:n]...)
	return n, err
}

// A half makes or opens the records of one direction of TLS 1.3, of any type and with any padding, as crypto/tls' own
// client can't.
type half struct {
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

func expand(t testing.TB, secret []byte, label string, n int) []byte {
	t.Helper()
	label = "tls13 " + label
	info := append(binary.BigEndian.AppendUint16(nil, uint16(n)), byte(len(label)))
	out, err := hkdf.Expand(sha256.New, secret, string(append(append(info, label...), 0)), n)
	require.NoError(t, err)
	return out
}

func newHalf(t testing.TB, secret []byte) *half {
	t.Helper()
	return &half{secret: secret, aead: gcm(t, expand(t, secret, "key", 16)), iv: expand(t, secret, "iv", 12)}
}

func gcm(t testing.TB, key []byte) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(key)
	require.NoError(t, err)
	aead, err := cipher.NewGCM(block)
	require.NoError(t, err)
	return aead
}

// next is the half after a change of keys.
func (h *half) next(t testing.TB) *half {
	t.Helper()
	return newHalf(t, expand(t, h.secret, "traffic upd", sha256.Size))
}

func (h *half) nonce() []byte {
	nonce := bytes.Clone(h.iv)
	for i, b := range binary.BigEndian.AppendUint64(nil, h.seq) {
		nonce[4+i] ^= b
	}
	h.seq++
	return nonce
}

func (h *half) seal(kind byte, content []byte, padding int) []byte {
	inner := append(append(bytes.Clone(content), kind), make([]byte, padding)...)
	header := binary.BigEndian.AppendUint16([]byte{typeData, 3, 3}, uint16(len(inner)+h.aead.Overhead()))
	return h.aead.Seal(header, h.nonce(), inner, header)
}

// open takes one record, and gives its type and what follows it.
func (h *half) open(t testing.TB, b []byte) (kind byte, content, rest []byte) {
	t.Helper()
	require.GreaterOrEqual(t, len(b), 5)
	n := 5 + int(binary.BigEndian.Uint16(b[3:]))
	inner, err := h.aead.Open(nil, h.nonce(), b[5:n], b[:5])
	require.NoError(t, err)
	inner = bytes.TrimRight(inner, "\x00")
	return inner[len(inner)-1], inner[:len(inner)-1], b[n:]
}

// secrets reads a key log.
func secrets(t testing.TB, log, label string) []byte {
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

// laboratory gives a Conn and the records of its device: those that up seals, and what down opens.
func laboratory(t testing.TB) (c *Conn, up, down *half) {
	t.Helper()
	w := newWorld(t)
	cfg := w.client(t, "")
	var log bytes.Buffer
	cfg.KeyLogWriter = &log
	sock, client := joined(t, w.server(t), cfg)
	if client.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skip("the machine prefers another cipher than AES-128-GCM")
	}
	up, down = newHalf(t, secrets(t, log.String(), "CLIENT_TRAFFIC_SECRET_0")), newHalf(t, secrets(t, log.String(), "SERVER_TRAFFIC_SECRET_0"))
	down.seq = 1 // joined sent a byte
	return sock.Conn, up, down
}

// up12 is up for TLS 1.2.
type up12 struct {
	aead cipher.AEAD
	salt []byte
	seq  uint64
}

func (h *up12) seal(kind byte, content []byte) []byte {
	nonce := binary.BigEndian.AppendUint64(nil, h.seq)
	header := binary.BigEndian.AppendUint16([]byte{kind, 3, 3}, uint16(8+len(content)+h.aead.Overhead()))
	extra := binary.BigEndian.AppendUint16(append(bytes.Clone(nonce), kind, 3, 3), uint16(len(content)))
	h.seq++
	return h.aead.Seal(append(header, nonce...), append(bytes.Clone(h.salt), nonce...), content, extra)
}

// laboratory12 is laboratory for TLS 1.2.
func laboratory12(t testing.TB) (*Conn, *up12) {
	t.Helper()
	w := newWorld(t)
	cfg := w.client(t, "")
	var log bytes.Buffer
	cfg.KeyLogWriter = &log
	cfg.MaxVersion, cfg.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	ours, theirs := sockets(t)
	ear := &heard{Conn: theirs}
	done := make(chan error, 1)
	go func() { done <- tls.Client(ear, cfg).Handshake() }() // ends with the handshake
	c, err := w.server(t).Accept(t.Context(), ours, nil)
	require.NoError(t, err)
	require.NoError(t, <-done)
	fields := strings.Fields(log.String())
	client, err := hex.DecodeString(fields[1])
	require.NoError(t, err)
	server := ear.all[11:43] // of the hello: behind the headers of its record and message, and the version
	keys := prf(secrets(t, log.String(), "CLIENT_RANDOM"), append(append([]byte("key expansion"), server...), client...), 40)
	return c, &up12{aead: gcm(t, keys[:16]), salt: keys[32:36], seq: 1} // Finished was the first
}

func prf(secret, seed []byte, n int) (out []byte) {
	mac := func(parts ...[]byte) []byte {
		h := hmac.New(sha256.New, secret)
		for _, part := range parts {
			h.Write(part)
		}
		return h.Sum(nil)
	}
	for a := mac(seed); len(out) < n; a = mac(a) {
		out = append(out, mac(a, seed)...)
	}
	return out[:n]
}
