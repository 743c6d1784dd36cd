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

// TestAListingOfAFormerTopicIsNotBelieved: nor one that does not say which it is of.
func TestAListingOfAFormerTopicIsNotBelieved(t *testing.T) {
	p, _ := byHand(t, 1)
	state := p.topics["t"].state
	list := func(id byte) (now byte, epoch int16) {
		state.id = sarama.Uuid{id}
		p.apply([]topicState{state})
		p.mu.Lock()
		defer p.mu.Unlock()
		require.Equal(t, open, p.topics["t"].phase)
		require.Equal(t, "t", p.topics["t"].name)
		return p.topics["t"].state.id[0], p.topics["t"].parts[0].numbers.Ident.Epoch
	}
	number := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.topics["t"].parts[0].numbers.Ident = p.ident
	}
	number()
	for _, step := range []struct {
		id, now byte
		epoch   int16
	}{{1, 1, 0}, {0, 1, 0}, {2, 2, 1}, {1, 2, 1}, {0, 2, 1}, {3, 3, 2}, {2, 3, 2}, {1, 3, 2}, {3, 3, 2}} {
		now, epoch := list(step.id)
		require.Equal(t, step.now, now)
		require.Equal(t, step.epoch, epoch)
	}
}
