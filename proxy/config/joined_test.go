package config

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestHostAndPortInsideBracesAreOneText: a colon that no blank follows separates nothing.
func TestHostAndPortInsideBracesAreOneText(t *testing.T) {
	parse := func(kafka string) (*Config, error) {
		return Parse("f.yaml", []byte("listeners: [{address: 127.0.0.1:1883}]\nkafka: "+kafka+"\npublish: [{match: a, topic: t}]\n"), nil)
	}
	cfg, err := parse("{brokers: [kafka-1:9092, 127.0.0.1:9093, \"kafka-3:9094\"], producer: {linger: 1ms}}")
	require.NoError(t, err)
	require.Equal(t, []string{"kafka-1:9092", "127.0.0.1:9093", "kafka-3:9094"}, cfg.Kafka.Brokers)
	for _, mapping := range []string{"{brokers: [kafka-1: 9092]}", "{brokers: [{kafka-1: 9092}]}", "{brokers: [\"kafka-1\":9092]}"} {
		_, err = parse(mapping)
		require.ErrorContains(t, err, "must be a text, not a mapping", mapping)
	}
}
