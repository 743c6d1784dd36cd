package proxy

import (
	"context"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sluice/kafka"
	"sluice/mqtt"
	"sluice/proxy/config"
	"sluice/topicmap"
)

// inFlightShare is the part of the memory budget that one connection may hold.
const inFlightShare = 8

func mqttConfig(cfg *config.Config, log zerolog.Logger, reg prometheus.Registerer) mqtt.Config {
	out := mqtt.DefaultConfig()
	l := cfg.Limits
	out.MaxPacketSize = int(l.MaxPacketSize)
	out.ReceiveMaximum = l.ReceiveMaximum
	out.MaxInFlightBytes = max(int(cfg.Kafka.Producer.MaxInFlightBytes)/inFlightShare, int(l.MaxPacketSize)+mqtt.MessageOverhead)
	out.TopicAliasMaximum = l.TopicAliasMaximum
	out.KeepAliveMax = l.KeepAliveMax
	out.ConnectTimeout = l.ConnectTimeout
	out.SessionExpiryMax = cfg.Sessions.MaxExpiry
	out.MaxSubscriptions = l.Subscriptions
	out.SubscriptionMemory = int64(l.SubscriptionsMemory)
	out.CommandsInFlight = l.CommandsInFlight
	out.CommandsQueued = l.CommandsQueued
	out.CommandMemory = int64(l.CommandsMemory)
	out.MaxConnections = mostConnections(l.Connections)
	out.MaxConnectionsPerAddress = l.ConnectionsPerAddress
	out.ConnectsPerSecond = l.ConnectsPerSecond
	out.PublishesPerSecond = l.PublishesPerSecond
	out.PublishBytesPerSecond = int64(l.PublishBytesPerSecond)
	if l.OverRate == config.OverRateDisconnect {
		out.OverRate = mqtt.DisconnectClient
	}
	out.TopicLevels, out.UserProperties = l.TopicLevels, l.UserProperties
	out.Logger, out.Registerer = log, reg
	return out
}

// requiredTopics are the Kafka topics that the configuration names without a template.
func requiredTopics(cfg *config.Config, rules *topicmap.Map) []string {
	topics := slices.Clone(rules.Topics())
	add := func(topic string) {
		if topic != "" {
			topics = append(topics, topic)
		}
	}
	add(cfg.Unmatched.DeadLetter)
	add(cfg.Refused.DeadLetter)
	for _, c := range cfg.Commands {
		add(c.Topic)
		add(c.Receipts)
	}
	add(cfg.Presence.Topic)
	slices.Sort(topics)
	return slices.Compact(topics)
}

// RequiredTopics names the Kafka topics that must exist, or be creatable, before serving.
func RequiredTopics(cfg *config.Config) ([]string, error) {
	rules, err := cfg.Rules()
	if err != nil {
		return nil, err
	}
	return requiredTopics(cfg, rules), nil
}

// KafkaClient gives how a client that is not part of an instance reaches the cluster that cfg names.
func KafkaClient(cfg *config.Config) (kafka.Config, error) {
	access, err := newKafkaClients(cfg, zerolog.Nop())
	if err != nil {
		return kafka.Config{}, err
	}
	return access.config(nil), nil
}

// EnsureTopics creates the required topics that are missing, if the configuration says how.
func EnsureTopics(ctx context.Context, cfg *config.Config) (created, existing []string, err error) {
	topics, err := RequiredTopics(cfg)
	if err != nil {
		return nil, nil, err
	}
	access, err := newKafkaClients(cfg, zerolog.Nop())
	if err != nil {
		return nil, nil, err
	}
	state := stateTopics(cfg)
	created, err = ensureTopics(ctx, access.config(nil), topics, state, func(context.Context, *kafka.Admin) error { return nil })
	for _, t := range state {
		topics = append(topics, t.Name)
	}
	for _, t := range topics {
		if !slices.Contains(created, t) {
			existing = append(existing, t)
		}
	}
	return created, existing, err
}
