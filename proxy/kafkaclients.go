package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sluice/kafka"
	"sluice/proxy/config"
	"sluice/tls"
)

// kafkaClients are how the parts of an instance reach Kafka.
type kafkaClients struct {
	cfg      *config.Config
	log      zerolog.Logger
	security kafka.Security            // one for all, so that they share tokens
	others   map[string]kafka.Security // by identity
	patience context.Context           // of a stop
	hurry    context.CancelFunc        // ends patience
}

// newKafkaClients reads the files that TLS needs, and says all that is wrong with them.
func newKafkaClients(cfg *config.Config, log zerolog.Logger) (*kafkaClients, error) {
	c := &kafkaClients{cfg: cfg, log: log, others: make(map[string]kafka.Security)}
	c.patience, c.hurry = context.WithCancel(context.Background())
	var faults []error
	var err error
	if c.security, err = securityOf(cfg.Kafka.TLS, cfg.Kafka.SASL, log); err != nil {
		faults = append(faults, fmt.Errorf("cannot use kafka.%w", err))
	}
	for name, id := range cfg.Kafka.Identities {
		own, err := securityOf(id.TLS, id.SASL, log)
		if err != nil {
			faults = append(faults, fmt.Errorf("cannot use kafka.identities.%s.%w", name, err))
		}
		own.TLS, own.SASL = cmp.Or(own.TLS, c.security.TLS), cmp.Or(own.SASL, c.security.SASL)
		c.others[name] = own
	}
	return c, errors.Join(faults...)
}

// config gives what a client of the cluster needs. Metrics go to reg, if it is not nil.
func (c *kafkaClients) config(reg prometheus.Registerer) kafka.Config {
	k := c.cfg.Kafka
	out := kafka.Config{
		Brokers:          k.Brokers,
		ClientID:         k.ClientID,
		Security:         c.security,
		Linger:           k.Producer.Linger,
		Compression:      k.Producer.Compression,
		MaxInFlightBytes: int64(k.Producer.MaxInFlightBytes),
		Patience:         c.patience,
		Logger:           c.log,
		Registerer:       reg,
	}
	if c := k.CreateTopics; c != nil {
		out.CreateTopics = &kafka.CreateTopics{Partitions: c.Partitions, Replication: c.Replication}
	}
	return out
}

// labelled registers metrics of the producer of an identity.
func labelled(reg prometheus.Registerer, identity string) prometheus.Registerer {
	return prometheus.WrapRegistererWith(prometheus.Labels{"identity": identity}, reg)
}

// hasIdentities says whether a rule writes as another.
func (c *kafkaClients) hasIdentities() bool {
	return slices.ContainsFunc(c.cfg.Publish, func(r config.Rule) bool { return r.Identity != "" })
}

// as gives the configuration of a producer under one of the identities. What such a producer counts is its own, so
// it has the identity's name as a label.
func (c *kafkaClients) as(name string, reg prometheus.Registerer) kafka.Config {
	out := c.config(labelled(reg, name))
	out.ClientID = cmp.Or(c.cfg.Kafka.Identities[name].ClientID, out.ClientID)
	out.Security = c.others[name]
	return out
}

// securityOf reads the files that TLS needs.
func securityOf(t *config.ClientTLS, s *config.SASL, log zerolog.Logger) (out kafka.Security, err error) {
	if out.TLS, err = newTLS(t, log); err != nil {
		return out, fmt.Errorf("tls: %w", err)
	}
	if s == nil {
		return out, nil
	}
	out.SASL = &kafka.SASL{
		Mechanism: s.Mechanism, Username: s.Username, Password: string(s.Password),
		TokenURL: s.TokenURL, ClientID: s.ClientID, ClientSecret: string(s.ClientSecret), Scopes: s.Scopes,
	}
	if out.SASL.TokenTLS, err = newTLS(s.TokenTLS, log); err != nil {
		return out, fmt.Errorf("sasl.token_tls: %w", err)
	}
	return out, nil
}

// newTLS gives nil where the file has no such section.
func newTLS(t *config.ClientTLS, log zerolog.Logger) (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	return tls.NewClient(clientTLS(t, log))
}

func clientTLS(t *config.ClientTLS, log zerolog.Logger) tls.ClientConfig {
	if t == nil {
		return tls.ClientConfig{}
	}
	return tls.ClientConfig{CA: t.CA, Certificate: t.Certificate, Key: t.Key, ServerName: t.ServerName, Logger: log}
}
