package tls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
)

// ErrRevoked is the refusal of a client certificate that its CA revoked.
var ErrRevoked = errors.New("the client certificate is revoked")

// ErrNothing is the failure of a handshake with somebody who sent nothing and went away, as those do who look whether the
// port is open.
var ErrNothing = errors.New("the connection was closed before anything came")

// ErrLongFlight ends a handshake in which the device sends more than one needs: a huge hello, or chain of certificates.
var ErrLongFlight = errors.New("the device sent more than 16 KiB at once in its handshake")

// ErrLongChain is the refusal of a client certificate with more than 10 certificates, of each of which we would keep some KiB.
var ErrLongChain = errors.New("the client certificate comes in a chain of more than 10")

// ErrNoRoom ends a handshake for which who called Accept has no room.
var ErrNoRoom = errors.New("what TLS keeps for all connections takes too much memory")

// ErrStalled ends a connection whose records go on without carrying data, or ask for answers that it does not read.
var ErrStalled = errors.New("too much was sent that is no data")

// An IdentityError is the refusal of a client certificate whose name can't be that of a device.
type IdentityError struct {
	Kind  string // what ServerConfig.Identity asks for
	Fault string
}

// Error says which name of the certificate is wrong, and how; not the name, which may be anything.
func (e *IdentityError) Error() string {
	return "the client certificate gives no identity: its " + e.Kind + " " + e.Fault
}

// outcome gives a failed handshake one of few names, for the metric.
func outcome(err error) string {
	var header tls.RecordHeaderError
	var identity *IdentityError
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.Is(err, ErrRevoked):
		return "revoked"
	case errors.As(err, &identity):
		return "identity"
	case errors.Is(err, ErrLongFlight), errors.Is(err, ErrLongChain):
		return "too_long"
	case errors.Is(err, ErrNoRoom):
		return "no_room"
	case errors.As(err, &unknown):
		return "unknown_ca"
	case errors.As(err, &invalid):
		return invalidity(invalid)
	case errors.As(err, &header):
		return "not_tls"
	case gone(err):
		return "gone"
	}
	return "failed"
}

func invalidity(err x509.CertificateInvalidError) string {
	if err.Reason == x509.Expired {
		return "expired"
	}
	return "bad_certificate"
}

// gone reports whether the other side went away, or took too long.
func gone(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" { // an alert, not the network
		return false
	}
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &op) || isEOF(err)
}
