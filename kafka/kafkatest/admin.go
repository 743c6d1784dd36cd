// Package kafkatest gives tests of other rooms an independent client of Kafka, which they may not import themselves.
package kafkatest

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// What an Admin asks with and gives.
type (
	Admin        = kadm.Client
	ListedOffset = kadm.ListedOffset
	Offsets      = kadm.Offsets
)

// NewAdmin returns a client for topics, groups and offsets that ends with the test.
func NewAdmin(t testing.TB, brokers []string) *Admin {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return kadm.NewClient(c)
}
