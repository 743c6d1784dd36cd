package kafka

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/IBM/sarama"
	"github.com/xdg-go/scram"

	"sluice/tls"
)

// The SASL mechanisms.
const (
	// Plain sends user and password as they are, so it is for use with TLS.
	Plain = sarama.SASLTypePlaintext
	// ScramSHA256 proves the password without sending it.
	ScramSHA256 = sarama.SASLTypeSCRAMSHA256
	// ScramSHA512 proves the password without sending it.
	ScramSHA512 = sarama.SASLTypeSCRAMSHA512
	// OAuthBearer sends a token that an OAuth 2 server gives for the client's own credentials.
	OAuthBearer = sarama.SASLTypeOAuth
)

// Security says how client and cluster prove to each other who they are. The zero value is no proof, in clear text.
type Security struct {
	// TLS encrypts the connections and checks the brokers' certificates. With a certificate of its own in it the
	// client can be known by that. nil: no TLS.
	TLS *tls.Config
	// SASL authenticates the client; nil: it does not.
	SASL *SASL
}

// SASL says who the client is. What is secret in it is in no log line and no error. One SASL may be used by many
// clients, which then share its tokens; it must not be changed or copied once one of them was made.
type SASL struct {
	// Mechanism is Plain, ScramSHA256, ScramSHA512 or OAuthBearer.
	Mechanism string
	// Username and Password, of all mechanisms but OAuthBearer.
	Username, Password string
	// TokenURL is the token endpoint of an OAuth 2 server that knows the grant "client credentials".
	TokenURL string
	// ClientID and ClientSecret are what TokenURL knows the client by.
	ClientID, ClientSecret string
	// Scopes to ask TokenURL for; may be empty.
	Scopes []string
	// TokenTLS checks the certificate of TokenURL; nil: with the system's roots.
	TokenTLS *tls.Config

	once   sync.Once // makes what follows
	proofs *scram.Client
	tokens *tokenSource
	fault  error
}

// ErrAuthentication: client and cluster do not accept each other. The password or token is wrong, the mechanism is not
// offered, or a certificate is not trusted, so that to try again without a change somewhere is of no use. It is no
// verdict about a record: an instance whose credentials are taken from it keeps what it has, and tries.
var ErrAuthentication = errors.New("client and cluster do not accept each other")

// A refusal is an ErrAuthentication.
type refusal struct {
	at  string // what could not be done, and where
	err error
}

// Error says what could not be done, where, and why.
func (r *refusal) Error() string { return r.at + ": " + r.err.Error() }

// Unwrap gives the reason.
func (r *refusal) Unwrap() error { return r.err }

// Is makes every refusal an ErrAuthentication.
func (r *refusal) Is(target error) bool { return target == ErrAuthentication }

// check gives what can't work.
func (s Security) check() error {
	if s.SASL == nil {
		return nil
	}
	return s.SASL.check()
}

func (s *SASL) check() error {
	s.once.Do(func() { s.fault = s.prepare() })
	return s.fault
}

// prepare makes what all connections of this identity share.
func (s *SASL) prepare() error {
	switch s.Mechanism {
	case Plain, ScramSHA256, ScramSHA512:
		if s.Username == "" || s.Password == "" {
			return fmt.Errorf("SASL %s needs a username and a password", s.Mechanism)
		}
	case OAuthBearer:
		return s.prepareTokens()
	default:
		return fmt.Errorf("unknown SASL mechanism %q", s.Mechanism)
	}
	if s.Mechanism == Plain {
		return nil
	}
	return s.prepareProofs()
}

// user is who the cluster is told the client is.
func (s *SASL) user() string {
	if s.Mechanism == OAuthBearer {
		return s.ClientID
	}
	return s.Username
}

// apply has sarama prove who the client is. TLS is the dialer's.
func (s Security) apply(to *sarama.Config) {
	if s.SASL == nil {
		return
	}
	n := &to.Net.SASL
	n.Enable, n.Handshake, n.Version = true, true, sarama.SASLHandshakeV1
	n.Mechanism = sarama.SASLMechanism(s.SASL.Mechanism)
	n.User, n.Password = s.SASL.Username, s.SASL.Password
	n.SCRAMClientGeneratorFunc = s.SASL.newProof
	if s.SASL.tokens != nil {
		n.TokenProvider = s.SASL.tokens
	}
}

// explain says what could not be done with the broker at addr: what, or if that is the reason, to prove who is who.
func (s Security) explain(what, addr string, err error) error {
	other := fmt.Errorf("%s %s: %w", what, addr, err)
	if errors.Is(err, ErrAuthentication) {
		return err
	}
	if s.TLS != nil && distrusted(err) {
		return &refusal{fmt.Sprintf("cannot agree with %s on TLS", addr), err}
	}
	if s.SASL == nil {
		return other
	}
	at := fmt.Sprintf("cannot authenticate at %s with %s as %q", addr, s.SASL.Mechanism, s.SASL.user())
	var no *noProof
	switch {
	case errors.Is(err, sarama.ErrSASLAuthenticationFailed):
		s.SASL.tokens.doubt()
	case errors.Is(err, sarama.ErrUnsupportedSASLMechanism), errors.Is(err, sarama.ErrIllegalSASLState):
	case errors.As(err, &no) && !no.final:
		return fmt.Errorf("%s: %w", at, err)
	case errors.As(err, &no):
	default:
		return other
	}
	return &refusal{at, err}
}

// distrusted says whether one side does not trust the other's certificate, or wants one that it was not given.
func distrusted(err error) bool {
	var (
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		host      x509.HostnameError
		remote    *net.OpError
	)
	return errors.As(err, &authority) || errors.As(err, &invalid) || errors.As(err, &host) ||
		errors.As(err, &remote) && remote.Op == "remote error" // so crypto/tls calls what the other side objects to
}

// A noProof is an error that kept the client from proving who it is.
type noProof struct {
	err   error
	final bool // to try again is of no use
}

// Error gives the reason.
func (e *noProof) Error() string { return e.err.Error() }

// Unwrap gives the reason.
func (e *noProof) Unwrap() error { return e.err }
