package proxy

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sluice/proxy/config"
)

// A SetupError says what is wrong with files that the configuration names.
type SetupError struct{ error }

// Unwrap gives all that is wrong.
func (e SetupError) Unwrap() error { return e.error }

// A setup is what the files give that a configuration names: certificates, keys, users.
type setup struct {
	clients *kafkaClients
	gate    *gate // nil: whoever comes may do everything
	doors   []door
}

// newSetup reads all files, and says all that is wrong with them in a SetupError. It starts nothing and asks no network.
func newSetup(cfg *config.Config, log zerolog.Logger, reg prometheus.Registerer) (s setup, err error) {
	var faults [3]error
	s.clients, faults[0] = newKafkaClients(cfg, log)
	s.gate, faults[1] = newGate(cfg, log, reg)
	s.doors, faults[2] = newDoors(cfg, log, reg)
	if err := errors.Join(faults[:]...); err != nil {
		return setup{}, SetupError{err}
	}
	return s, nil
}

// Check reads what an instance with this configuration would read at start, certificates, keys and users, and says all
// that is wrong, in a SetupError. It asks no network.
func Check(cfg *config.Config) error {
	_, err := newSetup(cfg, zerolog.Nop(), prometheus.NewRegistry())
	return err
}
