package proxy

import (
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/kafka"
	"sluice/mqtt"
	"sluice/proxy/config"
)

// An outcomeOf takes the outcome of a record.
type outcomeOf chan error

func (o outcomeOf) RecordDone(_ *kafka.Record, err error) { o <- err }

// TestRoomThatWasWaitedForIsGivenBackWhereItWasTaken, also when the topic has shown its partitions meanwhile, so that the
// message is bound for another destination than the one it waited for.
func TestRoomThatWasWaitedForIsGivenBackWhereItWasTaken(t *testing.T) {
	k := keepingWorld(t, plenty, config.Unmatched{})
	whole := int(k.budget.Max())
	m := &mqtt.Message{Topic: []byte("up/x"), ClientID: "c", QoS: 1, Reserved: whole}
	before := k.routed(m)
	require.Equal(t, kafka.Destination{Topic: "up", Partition: kafka.AnyPartition}, before.room)
	topic := before.room
	before.free()

	fill(k.budget)
	woken := make(chan struct{})
	require.False(t, k.Admit(m, func() { close(woken) }))
	stored := make(outcomeOf, 1)
	k.producer.Produce(&kafka.Record{Topic: "up", Key: []byte("c"), Owner: stored})
	require.NoError(t, <-stored)
	after := k.routed(m)
	require.NotEqual(t, topic, after.room, "it is known where it goes")
	after.free()
	k.budget.Give(kafka.Destination{}, whole)
	<-woken
	require.True(t, k.Admit(m, nil))
	k.Release(m)
	require.Zero(t, k.budget.InUse())
	require.True(t, k.budget.TryTake(topic, whole/2), "nothing is left of it where it waited")
	k.budget.Give(topic, whole/2)
}
