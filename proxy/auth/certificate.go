package auth

import (
	"context"

	"sluice/mqtt"
)

// certificates takes who has a certificate. The handshake has checked it.
type certificates struct{}

func (Certificate) build(*shared) (method, error) { return certificates{}, nil }

func (certificates) name() string { return "mtls" }

func (certificates) decide(_ context.Context, a *attempt) (verdict, error) {
	switch {
	case a.Certificate == nil:
		return verdict{}, nil
	case !ValidName(a.Certificate.Name):
		return verdict{outcome: refused, why: "the certificate has no usable name"}, nil
	}
	return verdict{outcome: accepted, identity: &mqtt.Identity{Name: a.Certificate.Name}}, nil
}

// confined gives the identity as it is on a connection with the certificate of l: with its common name, and no
// longer than it is valid and not revoked. Without a certificate it is id itself.
func confined(id *mqtt.Identity, l *mqtt.Login) *mqtt.Identity {
	if l.Certificate == nil {
		return id
	}
	own := *id
	own.CommonName = l.Certificate.CommonName
	if own.Until.IsZero() || l.Certificate.NotAfter.Before(own.Until) {
		own.Until = l.Certificate.NotAfter
	}
	own.Withdrawn = l.Certificate.Revoked
	if before := id.Withdrawn; before != nil {
		own.Withdrawn = func() bool { return before() || l.Certificate.Revoked() }
	}
	return &own
}
