package topicmap

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRouteRendersTopicKeyAndHeaders walks through the examples of the design.
func TestRouteRendersTopicKeyAndHeaders(t *testing.T) {
	m := compile(t,
		Rule{Match: "devices/{device}/telemetry/{metric...}", Topic: "telemetry", Key: text("{device}"),
			Headers: []Field{{"metric", "{metric}"}, {"unit", "{mqtt.user.unit}"}, {"via", "sluice"}}},
		Rule{Match: "plants/{plant}/#", Topic: "plant-{plant}", Key: text("{payload.machine.id}")},
		Rule{Regex: `^(?P<site>[a-z]+)-(?P<line>\d+)(?:/(?P<rest>.*))?$`, Topic: "{site}", Key: text("{line}/{rest}")},
		Rule{Match: "raw/#", Topic: "raw", Key: text("")},
		Rule{Match: "who", Topic: "who", Headers: []Field{{"who", "{mqtt.username}@{cert.cn} {{{mqtt.topic}}}"}}},
	)
	var r Route
	f := func(msg *Message, want Route) {
		t.Helper()
		require.NoError(t, m.Route(msg, &r))
		got := r
		got.scratch, got.hits, got.Tried = scratch{}, [2]hit{}, false
		if len(got.Headers) == 0 {
			got.Headers = nil
		}
		require.Equal(t, want, got)
	}
	f(&Message{Topic: []byte("devices/d1/telemetry/temp/cpu"), UserProperties: []Property{
		{[]byte("unit"), []byte("C")}, {[]byte("unit"), []byte("F")}}},
		Route{Rule: 0, Topic: "telemetry", Key: []byte("d1"), HasKey: true,
			Headers: []Header{{"metric", []byte("temp/cpu")}, {"unit", []byte("C")}, {"via", []byte("sluice")}}})
	f(&Message{Topic: []byte("devices/d1/telemetry")},
		Route{Rule: 0, Topic: "telemetry", Key: []byte("d1"), HasKey: true, Headers: []Header{{"via", []byte("sluice")}}})
	f(&Message{Topic: []byte("plants/p7/press"), Payload: []byte(`{"machine":{"id":"m\u00e9"}}`)},
		Route{Rule: 1, Topic: "plant-p7", Key: []byte("mé"), HasKey: true})
	f(onTopic("ulm-12/a/b"), Route{Rule: 2, Topic: "ulm", Key: []byte("12/a/b"), HasKey: true})
	f(onTopic("raw"), Route{Rule: 3, Topic: "raw"})
	f(&Message{Topic: []byte("who"), ClientID: "c1", Username: "u", CertCN: "n"},
		Route{Rule: 4, Topic: "who", Key: []byte("c1"), HasKey: true, Headers: []Header{{"who", []byte("u@n {who}")}}})
	require.ErrorIs(t, m.Route(onTopic("nobody"), &r), ErrNoRule)
	require.Equal(t, "missing_value", refusal(t, m, onTopic("ulm-12")).Reason.String(), "a group that took no part")
}

// TestMatchFollowsMQTT: a rule matches what the MQTT topic filter with + and # in the captures' places matches.
func TestMatchFollowsMQTT(t *testing.T) {
	f := func(match, mqttTopic string, want bool) {
		t.Helper()
		err := compile(t, Rule{Match: match, Topic: "k"}).Route(onTopic(mqttTopic), &Route{})
		if want {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, ErrNoRule)
		}
	}
	f("sport/tennis/player1/#", "sport/tennis/player1", true)
	f("sport/tennis/player1/{all...}", "sport/tennis/player1", true)
	f("sport/tennis/player1/#", "sport/tennis/player1/ranking", true)
	f("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true)
	f("sport/tennis/player1/#", "sport/tennis/player11", false)
	f("sport/#", "sport", true)
	f("#", "a", true)
	f("#", "/", true)
	f("{all...}", "a/b", true)
	f("sport/tennis/+", "sport/tennis/player1", true)
	f("sport/tennis/+", "sport/tennis/player1/ranking", false)
	f("sport/+", "sport", false)
	f("sport/+", "sport/", true)
	f("+/+", "/finance", true)
	f("/+", "/finance", true)
	f("+", "/finance", false)
	f("{a}/{b}", "/finance", true)
	f("{a}//{b}", "x//y", true)
	f("{a}//{b}", "x/y", false)
	f("ACCOUNTS", "Accounts", false)
	f("a", "a/", false)
	f("a/", "a", false)
	f("{{a}}/x", "{a}/x", true)
	f("ünï/{x}", "ünï/ö", true)
	f("a", "", false)
	f("#", "", false)
}

// TestWildcardFirstSparesDollarTopics holds [MQTT-4.7.2-1]; a regex says itself what it wants.
func TestWildcardFirstSparesDollarTopics(t *testing.T) {
	f := func(rule Rule, mqttTopic string, want bool) {
		t.Helper()
		rule.Topic = "k"
		err := compile(t, rule).Route(onTopic(mqttTopic), &Route{})
		require.Equal(t, want, err == nil, "%v", err)
	}
	for _, match := range []string{"#", "+/monitor/clients", "{a}/monitor/clients", "{a...}", "{a}/#"} {
		f(Rule{Match: match}, "$SYS/monitor/clients", false)
		f(Rule{Match: match}, "SYS/monitor/clients", true)
	}
	f(Rule{Match: "$SYS/#"}, "$SYS/monitor/clients", true)
	f(Rule{Match: "$SYS/{x}/clients"}, "$SYS/monitor/clients", true)
	f(Rule{Match: "a/+"}, "a/$x", true)
	f(Rule{Regex: "^.*$"}, "$SYS/monitor/clients", true)
}

// TestFirstMatchWins in all orders of filters, captures, wildcards and regexes.
func TestFirstMatchWins(t *testing.T) {
	patterns := []Rule{{Match: "a/b/c"}, {Match: "a/+/c"}, {Match: "{x}/b/#"}, {Match: "#"}, {Regex: "^a/.*$"}, {Match: "a/b/{y...}"}}
	for shift := range patterns {
		rules := make([]Rule, len(patterns))
		for i := range rules {
			rules[i] = patterns[(i+shift)%len(patterns)]
			rules[i].Topic = "k"
		}
		for len(rules) > 0 {
			var r Route
			require.NoError(t, compile(t, rules...).Route(onTopic("a/b/c"), &r))
			require.Equal(t, 0, r.Rule, "%+v", rules)
			rules = rules[1:]
		}
	}
}

// TestConditionDecidesWhetherARuleMatches: a rule whose conditions do not hold leaves the message to later rules.
func TestConditionDecidesWhetherARuleMatches(t *testing.T) {
	m := compile(t,
		Rule{Match: "{site}/{x}", Topic: "r0", When: []Field{{"mqtt.user.kind", "a"}, {"site", "ulm"}}},
		Rule{Regex: "^(?P<site>[a-z]*)/.*$", Topic: "r1", When: []Field{{"payload.v.0", "1"}}},
		Rule{Match: "{site}/{x}", Topic: "r2", When: []Field{{"mqtt.username", "joe"}}},
		Rule{Match: "{site}/#", Topic: "r3", When: []Field{{"cert.cn", ""}}},
		Rule{Match: "{site}/{x}", Topic: "r4"},
	)
	kind := func(v string) []Property { return []Property{{[]byte("kind"), []byte(v)}} }
	f := func(msg Message, want int) {
		t.Helper()
		var r Route
		msg.ClientID = "c"
		require.NoError(t, m.Route(&msg, &r))
		require.Equal(t, want, r.Rule)
	}
	f(Message{Topic: []byte("ulm/x"), UserProperties: kind("a")}, 0)
	f(Message{Topic: []byte("bonn/x"), UserProperties: kind("a")}, 4)
	f(Message{Topic: []byte("ulm/x"), UserProperties: kind("b")}, 4)
	f(Message{Topic: []byte("ulm/x"), UserProperties: append(kind("b"), kind("a")...)}, 4)
	f(Message{Topic: []byte("ulm/x"), Payload: []byte(`{"v":[1]}`), Username: "joe"}, 1)
	f(Message{Topic: []byte("ulm/x"), Payload: []byte(`{"v":[2]}`), Username: "joe"}, 2)
	f(Message{Topic: []byte("ulm/x"), Payload: []byte(`{"v":[`)}, 4)
	f(Message{Topic: []byte("ulm/x")}, 4) // no certificate is a missing value, not an empty one
}

// TestMissingValueIsRefused in the topic and in the key, with the reason told apart.
func TestMissingValueIsRefused(t *testing.T) {
	f := func(rule Rule, msg *Message, reason Reason, detail string) {
		t.Helper()
		rule.Match = "{a}/{all...}"
		got := refusal(t, compile(t, Rule{Match: "other", Topic: "o"}, rule), msg)
		require.Equal(t, &Refusal{1, reason, detail}, got)
	}
	payload := func(json string) *Message { return &Message{Topic: []byte("x/y"), Payload: []byte(json)} }
	f(Rule{Topic: "{mqtt.username}"}, onTopic("x/y"), ReasonMissingValue,
		"the topic needs {mqtt.username}, which the message does not have")
	f(Rule{Topic: "k"}, payload("{}"), ReasonMissingValue, "the key needs {mqtt.client_id}, which the message does not have")
	f(Rule{Topic: "k", Key: text("{all}")}, onTopic("x"), ReasonMissingValue, "the key needs {all}, which the message does not have")
	f(Rule{Topic: "k", Key: text("{cert.cn}")}, onTopic("x/y"), ReasonMissingValue,
		"the key needs {cert.cn}, which the message does not have")
	f(Rule{Topic: "k", Key: text("{mqtt.user.n}")}, onTopic("x/y"), ReasonMissingValue,
		"the key needs {mqtt.user.n}, which the message does not have")
	f(Rule{Topic: "k", Key: text("{payload.a}")}, payload(`{"b":1}`), ReasonMissingValue,
		"the key needs {payload.a}, which the message does not have")
	f(Rule{Topic: "k", Key: text("{payload.a}")}, payload(`hello`), ReasonNotJSON,
		"the key needs {payload.a}, and the payload is not JSON")
	f(Rule{Topic: "k", Key: text("{payload.a}")}, payload(``), ReasonNotJSON, "the key needs {payload.a}, and the payload is not JSON")
}

// TestEmptyValueIsAValue: an empty level, group or property is there, unlike one that is missing.
func TestEmptyValueIsAValue(t *testing.T) {
	m := compile(t,
		Rule{Match: "l/{x}", Topic: "t-{x}", Key: text("{x}"), Headers: []Field{{"h", "{x}"}, {"e", ""}}},
		Rule{Regex: "^g(?P<x>.*)$", Topic: "k", Key: text("{x}")},
		Rule{Match: "n/{x}", Topic: "{x}"})
	var r Route
	require.NoError(t, m.Route(onTopic("l/"), &r))
	require.Equal(t, "t-", r.Topic)
	require.True(t, r.HasKey)
	require.Empty(t, r.Key)
	require.NotNil(t, r.Key, "Kafka takes a nil key for no key")
	require.Len(t, r.Headers, 2)
	require.NotNil(t, r.Headers[1].Value, "Kafka takes a nil value for no value")
	require.NoError(t, m.Route(onTopic("g"), &r))
	require.True(t, r.HasKey)
	require.NotNil(t, r.Key)
	require.Equal(t, ReasonIllegalTopic, refusal(t, m, onTopic("n/")).Reason)
	var fresh Route
	require.NoError(t, m.Route(onTopic("g"), &fresh))
	require.NotNil(t, fresh.Key, "also in a route that was never used")
}

// TestIllegalNameIsRefusedNeverChanged: what Kafka does not take as a name is refused as it is.
func TestIllegalNameIsRefusedNeverChanged(t *testing.T) {
	m := compile(t, Rule{Match: "{x}", Topic: "{x}"}, Rule{Regex: "^(?P<x>.*)/$", Topic: "{x}"}, Rule{Match: "u/{x}", Topic: "_{x}"})
	f := func(mqttTopic string, reason Reason) {
		t.Helper()
		got := refusal(t, m, onTopic(mqttTopic))
		require.Equal(t, reason, got.Reason)
		require.Less(t, len(got.Detail), 8*maxQuoted)
		require.NotContains(t, got.Detail, "\n")
	}
	f("a b", ReasonIllegalTopic)
	f("ä", ReasonIllegalTopic)
	f(".", ReasonIllegalTopic)
	f("..", ReasonIllegalTopic)
	f("a/b/", ReasonIllegalTopic)
	f("\xff\n", ReasonIllegalTopic)
	f(strings.Repeat("x", 250), ReasonIllegalTopic)
	f(strings.Repeat("ö", 30000), ReasonIllegalTopic)
	f("__consumer_offsets", ReasonInternalTopic)
	f("u/_transaction_state", ReasonInternalTopic)
	f("sluice-sessions", ReasonInternalTopic)
	var r Route
	for _, legal := range []string{strings.Repeat("x", 249), "...", "_a", "sluice", "a.b_c-D9"} {
		require.NoError(t, m.Route(onTopic(legal), &r))
		require.Equal(t, legal, r.Topic)
	}
}

// TestRouteIsIndependentOfTheOneBefore: nothing of an earlier message shows in a reused Route.
func TestRouteIsIndependentOfTheOneBefore(t *testing.T) {
	m := compile(t,
		Rule{Match: "a/{x}", Topic: "a", Key: text("{x}"), Headers: []Field{{"h", "{mqtt.user.h}"}}},
		Rule{Match: "b", Topic: "b", Key: text("")})
	var r Route
	big := strings.Repeat("v", 4*maxKeptScratch)
	require.NoError(t, m.Route(&Message{Topic: []byte("a/k"), UserProperties: []Property{{[]byte("h"), []byte(big)}}}, &r))
	require.Equal(t, []byte("k"), r.Key, "the key survives the growth of the buffer it lies in")
	require.Equal(t, []Header{{"h", []byte(big)}}, r.Headers)
	require.NoError(t, m.Route(onTopic("b"), &r))
	require.Equal(t, "b", r.Topic)
	require.False(t, r.HasKey)
	require.Nil(t, r.Key)
	require.Empty(t, r.Headers)
	require.LessOrEqual(t, cap(r.buf), maxKeptScratch, "a big value must not stay")
}

// TestMapTellsItsRulesAndTopics, and nobody can change it through what it was made of or what it tells.
func TestMapTellsItsRulesAndTopics(t *testing.T) {
	rules := []Rule{
		{Match: "a", Topic: "z"}, {Match: "b", Topic: "t-{mqtt.client_id}"}, {Match: "c", Topic: "a", Key: text("x")},
		{Regex: "^d$", Topic: "z", Headers: []Field{{"h", "v"}}},
	}
	m := compile(t, rules...)
	rules[0].Topic, *rules[2].Key, rules[3].Headers[0].Name = "changed", "changed", "changed"
	told := m.Rules()
	require.Equal(t, 4, m.Len())
	require.Equal(t, "z", told[0].Topic)
	require.Equal(t, "x", *told[2].Key)
	require.Equal(t, "h", told[3].Headers[0].Name)
	*told[2].Key = "changed"
	require.Equal(t, "x", *m.Rules()[2].Key)
	require.Equal(t, []string{"a", "z"}, m.Topics())
	empty := compile(t)
	require.Empty(t, empty.Topics())
	require.ErrorIs(t, empty.Route(onTopic("a"), &Route{}), ErrNoRule)
}

// TestReasonsAreMetricLabels: the texts are an interface to dashboards.
func TestReasonsAreMetricLabels(t *testing.T) {
	var labels []string
	for _, r := range Reasons() {
		labels = append(labels, r.String())
	}
	require.Equal(t, []string{"no_rule", "missing_value", "not_json", "illegal_topic", "internal_topic", "too_many_topics",
		"illegal_mqtt_topic", "illegal_property"}, labels)
	require.Equal(t, "reason_77", Reason(77).String())
	require.Equal(t, "not_json: x", (&Refusal{Reason: ReasonNotJSON, Detail: "x"}).Error())
}
