package proxy

import (
	"bytes"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// This file says what a PUBLISH can carry, in the words of the specification and not of the code under test.

// requireLegal holds that c can be encoded: sections 3.3.2 and 1.5.4 of MQTT 5.
func requireLegal(t testing.TB, c *command) {
	t.Helper()
	topicName := func(name []byte) {
		t.Helper()
		utf8String(t, name)
		require.NotEmpty(t, name)                       // [MQTT-4.7.3-1]
		require.False(t, bytes.ContainsAny(name, "+#")) // [MQTT-3.3.2-2]
	}
	topicName(c.Topic)
	utf8String(t, c.ResponseTopic)
	require.False(t, bytes.ContainsAny(c.ResponseTopic, "+#")) // [MQTT-3.3.2-14]
	utf8String(t, c.ContentType)                               // [MQTT-3.3.2-19]
	require.LessOrEqual(t, len(c.CorrelationData), 65535)
	for _, u := range c.User {
		utf8String(t, u.Key)
		utf8String(t, u.Value)
		for _, ours := range []string{"mqtt.", "sluice."} {
			require.False(t, bytes.HasPrefix(u.Key, []byte(ours)))
		}
	}
	require.LessOrEqual(t, c.QoS, byte(2))
	require.NotNil(t, c.settings)
	if !c.Expires.IsZero() {
		left := c.Expires.Sub(c.written)
		require.True(t, left >= 0 && left <= (1<<32-1)*time.Second && left%time.Second == 0, "%s is no Message Expiry Interval", left)
	}
}

func utf8String(t testing.TB, v []byte) {
	t.Helper()
	require.True(t, utf8.Valid(v))
	require.NotContains(t, string(v), "\x00")
	require.LessOrEqual(t, len(v), 65535)
}

// reasons are all that refusals of records can have: metric labels.
var reasons = []string{"no_rule", "not_json", "missing_value", "illegal_mqtt_topic", "illegal_property", "invalid_header"}

// requireRefusal holds that err is one and that its receipt can be written.
func requireRefusal(t testing.TB, c *command, err error) {
	t.Helper()
	var refusal *recordRefusal
	require.ErrorAs(t, err, &refusal)
	require.Contains(t, reasons, refusal.reason)
	require.Equal(t, refusal.rule, c.rule)
	require.LessOrEqual(t, len(c.CorrelationData), 65535)
	require.Less(t, len(refusal.detail), 2000, "it goes to the log")
}
