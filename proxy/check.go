package proxy

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sluice/proxy/config"
)

// Check reads what an instance with this configuration would read at start, certificates, keys and users, and says all
// that is wrong. It asks no network.
func Check(cfg *config.Config) error {
	clients, err := newKafkaClients(cfg, zerolog.Nop())
	faults := []error{err}
	for name := range cfg.Kafka.Identities {
		if clients != nil {
			_, err := clients.as(name, prometheus.NewRegistry())
			faults = append(faults, err)
		}
	}
	_, err = newGate(cfg, zerolog.Nop(), prometheus.NewRegistry())
	faults = append(faults, err)
	_, err = newDoors(cfg, zerolog.Nop(), prometheus.NewRegistry())
	return errors.Join(append(faults, err)...)
}
