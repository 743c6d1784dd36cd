package kafka

import (
	"errors"
	"fmt"

	"github.com/IBM/sarama"
	"github.com/xdg-go/scram"
)

// prepareProofs makes what derives keys from the password, and keeps them: it takes milliseconds by design.
func (s *SASL) prepareProofs() (err error) {
	hash := scram.SHA256
	if s.Mechanism == ScramSHA512 {
		hash = scram.SHA512
	}
	if s.proofs, err = hash.NewClient(s.Username, s.Password, ""); err != nil {
		// err has characters of the password.
		return errors.New("the username or the password of SASL " + s.Mechanism + " has characters that SASLprep (RFC 4013) does not allow")
	}
	return nil
}

// newProof gives what talks to one broker. sarama calls it for each connection.
func (s *SASL) newProof() sarama.SCRAMClient { return &scramProof{client: s.proofs} }

// A scramProof is one exchange with a broker, at whose end the broker has proven too that it knows the password.
type scramProof struct {
	client   *scram.Client
	exchange *scram.ClientConversation
}

// Begin starts the exchange; the client knows who it is for.
func (p *scramProof) Begin(string, string, string) error {
	p.exchange = p.client.NewConversation()
	return nil
}

// Step answers the broker.
func (p *scramProof) Step(challenge string) (string, error) {
	answer, err := p.exchange.Step(challenge)
	if err != nil {
		return "", &noProof{fmt.Errorf("the broker does not keep to SCRAM: %w", err), true}
	}
	return answer, nil
}

// Done says whether the exchange is over.
func (p *scramProof) Done() bool { return p.exchange.Done() }
