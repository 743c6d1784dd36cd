package proxy

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/mqtt"
	"sluice/proxy/config"
)

const rulesForTests = `
  - match: devices/{device}/telemetry/{metric...}
    topic: telemetry
    key: "{device}"
    headers: {metric: "{metric}"}
  - match: plants/{plant}/#
    topic: "plant-{plant}"
    key: "{payload.machine.id}"
  - match: keyless/#
    topic: keyless
    key: ""
`

// parse makes a configuration with these rules and more YAML.
func parse(t *testing.T, rules, extra string) *config.Config {
	t.Helper()
	cfg, err := config.Parse("test", []byte("listeners: [{address: 127.0.0.1:0}]\nadmin: {address: \"\"}\nkafka: {brokers: [127.0.0.1:1]}\npublish:"+rules+extra), noEnv)
	require.NoError(t, err)
	return cfg
}

func noEnv(string) (string, bool) { return "", false }

func explain(t *testing.T, cfg *config.Config, s Sample) *Explanation {
	t.Helper()
	e, err := Explain(cfg, s)
	require.NoError(t, err)
	return e
}

func TestExplainRendersTheRecord(t *testing.T) {
	cfg := parse(t, rulesForTests, "")
	e := explain(t, cfg, Sample{MQTTTopic: "devices/d1/telemetry/a/b", ClientID: "c1", QoS: 1, Retain: true, Partitions: 12,
		UserProperties: []mqtt.Property{{Key: []byte("site"), Value: []byte("n")}, {Key: []byte("mqtt.qos"), Value: []byte("9")}}})
	require.Equal(t, 1, e.Rule)
	require.Equal(t, "telemetry", e.KafkaTopic)
	require.Equal(t, "d1", string(e.Key))
	require.GreaterOrEqual(t, e.Partition, int32(0))
	var got []string
	for _, h := range e.Headers {
		got = append(got, string(h.Key)+"="+string(h.Value))
	}
	require.Equal(t, []string{"mqtt.topic=devices/d1/telemetry/a/b", "mqtt.client_id=c1", "mqtt.qos=1", "mqtt.retain=true", "site=n", "metric=a/b"}, got)
}

func TestExplainSaysNoKey(t *testing.T) {
	e := explain(t, parse(t, rulesForTests, ""), Sample{MQTTTopic: "keyless/x", ClientID: "c1", Partitions: 3})
	require.Equal(t, "keyless", e.KafkaTopic)
	require.Nil(t, e.Key)
	require.EqualValues(t, -1, e.Partition)
}

// TestRefusalsAreExplainedWithTheirCode: a device and `explain` get the same code.
func TestRefusalsAreExplainedWithTheirCode(t *testing.T) {
	f := func(mqttTopic, payload, unmatched, reason string, code mqtt.Code) {
		t.Helper()
		e := explain(t, parse(t, rulesForTests, unmatched), Sample{MQTTTopic: mqttTopic, Payload: payload, ClientID: "c"})
		require.Contains(t, e.Refused, reason)
		require.Equal(t, code, e.Code)
	}
	f("elsewhere", "", "", "no_rule", mqtt.TopicNameInvalid)
	f("plants/p1/x", "not JSON", "", "not_json", mqtt.PayloadFormatInvalid)
	f("plants/p1/x", `{"a":1}`, "", "missing_value", mqtt.PayloadFormatInvalid)
	f("plants/ä/x", `{"machine":{"id":1}}`, "", "illegal_topic", mqtt.TopicNameInvalid)
	f("$SYS/broker/load", "", "", "denied", mqtt.NotAuthorized)
	f("elsewhere", "", "unmatched: drop", "no_rule", mqtt.TopicNameInvalid)
	f("elsewhere", "", "unmatched: {dead_letter: dead}", "no_rule", mqtt.TopicNameInvalid)
}

func TestDeadLetterTakesWhatIsRefused(t *testing.T) {
	e := explain(t, parse(t, rulesForTests, "unmatched: {dead_letter: dead}"), Sample{MQTTTopic: "plants/ä/x", Payload: `{"machine":{"id":1}}`, ClientID: "c"})
	require.True(t, e.DeadLetter)
	require.Equal(t, "dead", e.KafkaTopic)
	require.Equal(t, "c", string(e.Key))
	last := e.Headers[len(e.Headers)-1]
	require.Equal(t, "sluice.refused=illegal_topic", string(last.Key)+"="+string(last.Value))
}

func TestDropForgetsOnlyWhatNoRuleMatches(t *testing.T) {
	cfg := parse(t, rulesForTests, "unmatched: drop")
	require.True(t, explain(t, cfg, Sample{MQTTTopic: "elsewhere", ClientID: "c"}).Dropped)
	require.False(t, explain(t, cfg, Sample{MQTTTopic: "plants/ä/x", Payload: `{"machine":{"id":1}}`, ClientID: "c"}).Dropped)
}

func TestRequiredTopicsIncludeTheDeadLetterTopic(t *testing.T) {
	topics, err := RequiredTopics(parse(t, rulesForTests, "unmatched: {dead_letter: dead}"))
	require.NoError(t, err)
	require.Equal(t, []string{"dead", "keyless", "telemetry"}, topics)
}

// TestRuleSaysWhichUserPropertiesPass: a device can't speak in the name of a header of the rule, whether the message has
// a value for that or not, and not by a second property of the name.
func TestRuleSaysWhichUserPropertiesPass(t *testing.T) {
	f := func(rule, want, leftOut string) {
		t.Helper()
		cfg := parse(t, "\n  - {match: a, topic: t, headers: {ce_type: reading, site: \"{payload.site}\"}"+rule+"}", "\nunmatched: {dead_letter: dead}\n")
		s := Sample{MQTTTopic: "a", ClientID: "c", Payload: "{}"}
		for _, name := range []string{"ce_type", "x", "site", "__TypeId__", "ce_type", "sluice.refused", "", "x", "mqtt.topic"} {
			s.UserProperties = append(s.UserProperties, mqtt.Property{Key: []byte(name), Value: []byte("forged")})
		}
		e := explain(t, cfg, s)
		var got []string
		for _, h := range e.Headers[3:] {
			got = append(got, string(h.Key)+"="+string(h.Value))
		}
		require.Equal(t, want, strings.Join(got, " "))
		require.Equal(t, leftOut, string(bytes.Join(e.LeftOut, []byte(" "))))
		s.MQTTTopic = "elsewhere"
		e = explain(t, cfg, s)
		require.Equal(t, "sluice.refused mqtt.topic", string(bytes.Join(e.LeftOut, []byte(" "))), "a dead letter keeps all")
	}
	all, left := "x=forged __TypeId__=forged =forged x=forged ce_type=reading", "ce_type site ce_type sluice.refused mqtt.topic"
	f("", all, left)
	f(", user_properties: all", all, left)
	f(", user_properties: none", "ce_type=reading", "ce_type x site __TypeId__ ce_type sluice.refused  x mqtt.topic")
	f(", user_properties: [x, ce_type]", "x=forged x=forged ce_type=reading", "ce_type site __TypeId__ ce_type sluice.refused  mqtt.topic")
}

// TestExplainRefusesWhatHasTooManyLevels, as a listener does, whatever the acl says.
func TestExplainRefusesWhatHasTooManyLevels(t *testing.T) {
	cfg := parse(t, rulesForTests, "\nlimits: {topic_levels: 5}\n")
	e := explain(t, cfg, Sample{MQTTTopic: "devices/d1/telemetry/a/b", ClientID: "c1"})
	require.Empty(t, e.Refused)
	e = explain(t, cfg, Sample{MQTTTopic: "devices/d1/telemetry/a/b/c", ClientID: "c1"})
	require.Equal(t, "topic_levels", e.Refused)
	require.EqualValues(t, mqtt.TopicNameInvalid, e.Code)
	require.Empty(t, e.KafkaTopic)
}
