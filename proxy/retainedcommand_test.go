package proxy

import (
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"sluice/kafka/embedded"
	"sluice/mqtt"
	"sluice/proxy/config"
)

// TestCommandsAreRetained when they say so, but not what a device's RETAIN has retained already.
func TestCommandsAreRetained(t *testing.T) {
	k := keepingWorld(t, mqtt.RetainedConfig{Messages: 3, Bytes: 1 << 20}, config.Unmatched{})
	written := time.Now().Truncate(time.Millisecond)
	write := func(cmd *command, headers ...string) error {
		t.Helper()
		r := recordOf("commands", "k", string(cmd.Payload), headers...)
		cmd.written = written
		if cmd.Payload == nil {
			cmd.Payload = noBytes
		}
		done := make(chan error, 1)
		k.w.writeCommand(r, cmd, func(err error) { done <- err })
		return <-done
	}
	retained := func(topic, payload, from string) *command {
		c := &command{}
		c.Topic, c.Payload, c.From, c.Retain, c.QoS = []byte(topic), bytesOf(payload), from, true, 1
		return c
	}
	plain := retained("a", "x", "")
	plain.Retain = false
	require.NoError(t, write(plain))
	require.NoError(t, write(retained("a", "1", ""), "mqtt.retain", "true"))
	require.NoError(t, write(retained("b", "1", "dev"), "mqtt.retain", "true", "mqtt.topic", "b", "mqtt.client_id", "dev"), "it is retained already")
	require.NoError(t, write(retained("b", "1", "dev"), "mqtt.topic", "b", "mqtt.client_id", "dev"), "it was not, there")
	full := retained("c", "1", "dev")
	full.ContentType, full.ResponseTopic, full.CorrelationData = []byte("text"), []byte("r"), []byte("c")
	full.User = []mqtt.Property{{Key: []byte("u"), Value: []byte("v")}}
	full.Expires = written.Add(time.Hour)
	require.NoError(t, write(full, "mqtt.retain", "true", "mqtt.topic", "other", "mqtt.client_id", "dev"))
	k.indexed(3)
	require.ErrorIs(t, write(retained("d", "1", "")), errRetainedFull)
	require.NoError(t, write(retained("a", "", "")))
	k.indexed(2)
	over := retained("b", "2", "")
	over.Expires = time.Now().Add(-time.Second)
	require.NoError(t, write(over))
	k.indexed(1)
	d := dial(t, k.addr, "sub", false)
	d.subscribe("#", 1)
	m := d.next()
	require.Equal(t, delivered{topic: "c", payload: "1", qos: 1, retain: true, id: m.id, props: `expiry type=text response=r correlation="c" u:v`}, m)
	require.Equal(t, "sluice.v=1 mqtt.qos=1 mqtt.client_id=dev mqtt.content_type=text mqtt.response_topic=r mqtt.correlation_data=c mqtt.expiry=3600 u=v",
		headersOf(k.lastOf("c")))
	require.EqualValues(t, 2, testutil.ToFloat64(k.metrics.writes[fromCommand][writeDeleted]))
}

// lastOf gives the last retained record of a key.
func (k *keeping) lastOf(key string) (last embedded.Record) {
	k.t.Helper()
	require.Eventually(k.t, func() bool {
		for _, r := range k.in("sluice-retained") {
			if string(r.Key) == key {
				last = r
			}
		}
		return last.Key != nil
	}, patience, time.Millisecond)
	return last
}

func TestTransactionGetsTheRetainedRecord(t *testing.T) {
	k := keepingWorld(t, mqtt.RetainedConfig{Messages: 1, Bytes: 1 << 20}, config.Unmatched{})
	failed := errors.New("aborted")
	for _, outcome := range []error{nil, failed} {
		m := &mqtt.Message{Topic: []byte("up/a"), Payload: []byte("1"), Retain: true, QoS: 2, Received: time.Now(), ClientID: "dev"}
		var told []error
		r, done, ok := k.w.transact(&delivery{p: k.publisher, msg: m}, func(err error) { told = append(told, err) })
		require.True(t, ok)
		require.Equal(t, "sluice-retained up/a 1", r.Topic+" "+string(r.Key)+" "+string(r.Value))
		require.False(t, k.index.Reserve([]byte("up/b"), 1), "its room is taken")
		done(outcome)
		require.Equal(t, []error{outcome}, told)
	}
	require.Nil(t, k.w.txRecord(&mqtt.Message{Topic: []byte("up/a"), Retain: true}).Value)
}
