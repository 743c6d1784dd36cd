package tls

import (
	"bytes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/tls/tlstest"
)

// The types of records.
const (
	typeAlert     = 21
	typeHandshake = tlstest.Handshake
	typeData      = tlstest.Data
)

type half = tlstest.Half

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
	up, down = tlstest.NewHalf(t, tlstest.Secret(t, log.String(), "CLIENT_TRAFFIC_SECRET_0")), tlstest.NewHalf(t, tlstest.Secret(t, log.String(), "SERVER_TRAFFIC_SECRET_0"))
	down.Seq = 1 // joined sent a byte
	return sock.Conn, up, down
}

// up12 is up for TLS 1.2.
type up12 struct {
	aead cipher.AEAD
	salt []byte
	seq  uint64
}

func (h *up12) Seal(kind byte, content []byte) []byte {
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
	c, err := w.server(t).Accept(t.Context(), ours, nil, nil)
	require.NoError(t, err)
	require.NoError(t, <-done)
	fields := strings.Fields(log.String())
	client, err := hex.DecodeString(fields[1])
	require.NoError(t, err)
	server := ear.all[11:43] // of the hello: behind the headers of its record and message, and the version
	keys := prf(tlstest.Secret(t, log.String(), "CLIENT_RANDOM"), append(append([]byte("key expansion"), server...), client...), 40)
	return c, &up12{aead: tlstest.GCM(t, keys[:16]), salt: keys[32:36], seq: 1} // Finished was the first
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
