package kafka

import (
	"testing"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
)

// TestOneListingWithoutATopicRefusesNoRecord: a broker that lags does not know it yet, and who may not create topics is
// refused when it tries.
func TestOneListingWithoutATopicRefusesNoRecord(t *testing.T) {
	cfg := testConfig([]string{"127.0.0.1:1"})
	cfg.CreateTopics = &CreateTopics{Partitions: 1}
	p, err := NewProducer(cfg)
	require.NoError(t, err)
	l := newLedger()
	p.Produce(l.record(0, "t", "k"))
	missing := []topicState{{name: "t", missing: true}}
	answer := map[string]error{"t": sarama.ErrTopicAuthorizationFailed}
	require.Equal(t, []string{"t"}, p.apply(missing))
	p.applyCreation(answer)
	require.Equal(t, 1, p.phases()[asking])
	p.mu.Lock()
	require.LessOrEqual(t, p.topics["t"].due, p.now()+missingAgain)
	p.mu.Unlock()
	p.apply(missing)
	p.applyCreation(answer)
	require.Equal(t, 1, p.phases()[refused])
	p.finish()
	require.ErrorIs(t, l.of(0)[0], ErrNotAuthorized)
}
