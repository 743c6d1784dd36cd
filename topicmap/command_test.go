package topicmap

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// commands is CompileCommands for rules that are good.
func commands(tb testing.TB, rules ...CommandRule) *CommandMap {
	tb.Helper()
	m, err := CompileCommands(rules)
	require.NoError(tb, err)
	return m
}

// headers are record headers, name and value in turn.
func headers(texts ...string) []Property {
	var all []Property
	for i := 0; i < len(texts); i += 2 {
		all = append(all, Property{[]byte(texts[i]), []byte(texts[i+1])})
	}
	return all
}

// commandRefusal routes a record that must be refused.
func commandRefusal(tb testing.TB, m *CommandMap, rec *Record) *Refusal {
	tb.Helper()
	var refused *Refusal
	require.ErrorAs(tb, m.Route(rec, &CommandRoute{}), &refused)
	return refused
}

// routed is the route without what is not told.
func routed(r CommandRoute) CommandRoute {
	r.scratch = scratch{}
	return r
}

// TestCommandRouteRendersEveryField walks through the examples of the manual.
func TestCommandRouteRendersEveryField(t *testing.T) {
	m := commands(t,
		CommandRule{Topic: "device-commands", Publish: "devices/{key}/commands/{header.name}", ContentType: "application/json",
			ResponseTopic: "devices/{key}/answers", CorrelationData: "{header.id}", Client: "{key}", When: []Field{{"header.type", "actuator"}}},
		CommandRule{Topic: "device-commands", Publish: "{kafka.topic}/{payload.to.0}"},
		CommandRule{Pattern: `^cmd-(?P<plant>[a-z]+)(?:\.(?P<line>\d+))?$`, Publish: "plants/{plant}/cmd", ContentType: "{line}", Client: "c-{plant}"},
		CommandRule{Topic: "mqtt", Publish: "{header.mqtt.topic}"},
	)
	var r CommandRoute
	f := func(rec *Record, want CommandRoute) {
		t.Helper()
		require.NoError(t, m.Route(rec, &r))
		require.Equal(t, want, routed(r))
	}
	f(&Record{Topic: "device-commands", Key: []byte("d1"), Headers: headers("type", "actuator", "name", "open", "id", "7", "id", "8")},
		CommandRoute{Rule: 0, Topic: []byte("devices/d1/commands/open"), Client: []byte("d1"), ContentType: []byte("application/json"),
			ResponseTopic: []byte("devices/d1/answers"), CorrelationData: []byte("7")})
	f(&Record{Topic: "device-commands", Key: []byte("d1"), Headers: headers("type", "actuator", "name", "open")},
		CommandRoute{Rule: 0, Topic: []byte("devices/d1/commands/open"), Client: []byte("d1"), ContentType: []byte("application/json"),
			ResponseTopic: []byte("devices/d1/answers")})
	f(&Record{Topic: "device-commands", Value: []byte(`{"to":["a/b","c"]}`)}, CommandRoute{Rule: 1, Topic: []byte("device-commands/a/b")})
	f(&Record{Topic: "cmd-ulm"}, CommandRoute{Rule: 2, Topic: []byte("plants/ulm/cmd"), Client: []byte("c-ulm")})
	f(&Record{Topic: "cmd-bonn.12"},
		CommandRoute{Rule: 2, Topic: []byte("plants/bonn/cmd"), Client: []byte("c-bonn"), ContentType: []byte("12")})
	f(&Record{Topic: "mqtt", Headers: headers("mqtt.topic", "a/b/ü {}")}, CommandRoute{Rule: 3, Topic: []byte("a/b/ü {}")})
	for _, other := range []string{"", "cmd-", "cmd-ulm.x", "xcmd-ulm", "device-command", "device-commands2", "mqt"} {
		require.ErrorIs(t, m.Route(&Record{Topic: other, Key: []byte("d1")}, &r), ErrNoRule, other)
	}
}

// TestFirstCommandRuleWins, whether rules name the Kafka topic or match it, and conditions let later rules have it.
func TestFirstCommandRuleWins(t *testing.T) {
	sources := []CommandRule{{Topic: "cmd-a"}, {Pattern: "^cmd-.*$"}, {Topic: "cmd-a"}, {Pattern: "^cmd-(?P<x>a|b)$"}, {Pattern: "^.*-a$"}}
	for shift := range sources {
		rules := make([]CommandRule, len(sources))
		for i := range rules {
			rules[i] = sources[(i+shift)%len(sources)]
			rules[i].Publish = "p"
		}
		for i := range rules {
			conditional := append([]CommandRule(nil), rules...)
			for j := range i {
				conditional[j].When = []Field{{"header.h", "no"}}
			}
			m := commands(t, conditional...)
			for range 2 { // the second time from the memo
				var r CommandRoute
				require.NoError(t, m.Route(&Record{Topic: "cmd-a", Headers: headers("h", "yes")}, &r))
				require.Equal(t, i, r.Rule, "%+v", conditional)
			}
		}
	}
}

// TestCommandConditions: all must hold; a missing value is equal to nothing, not even to the empty text.
func TestCommandConditions(t *testing.T) {
	rule := func(when ...Field) CommandRule {
		return CommandRule{Pattern: "^c-(?P<x>.*)$", Publish: "p", When: when}
	}
	m := commands(t, rule(Field{"key", "k"}, Field{"header.a.b", "1"}), rule(Field{"payload.t", "v"}), rule(Field{"kafka.topic", "c-t"}),
		rule(Field{"x", "g"}), rule(Field{"key", ""}), rule(Field{"header.none", ""}), rule())
	f := func(rec Record, want int) {
		t.Helper()
		var r CommandRoute
		require.NoError(t, m.Route(&rec, &r))
		require.Equal(t, want, r.Rule)
	}
	f(Record{Topic: "c-", Key: []byte("k"), Headers: headers("a.b", "1")}, 0)
	f(Record{Topic: "c-", Key: []byte("k"), Headers: headers("a.b", "2", "a.b", "1")}, 6)
	f(Record{Topic: "c-", Key: []byte("k")}, 6)
	f(Record{Topic: "c-", Value: []byte(`{"t":"v"}`)}, 1)
	f(Record{Topic: "c-", Value: []byte(`{"t":`)}, 6)
	f(Record{Topic: "c-t"}, 2)
	f(Record{Topic: "c-g"}, 3)
	f(Record{Topic: "c-", Key: []byte{}}, 4)
	f(Record{Topic: "c-"}, 6)
	f(Record{Topic: "c-", Headers: []Property{{[]byte("none"), nil}}}, 6)
	f(Record{Topic: "c-", Headers: headers("none", "")}, 5)
}

// TestCommandWithoutAValueIsRefused where the topic or the client needs it; a property is left out.
func TestCommandWithoutAValueIsRefused(t *testing.T) {
	f := func(rule CommandRule, rec Record, reason Reason, detail string) {
		t.Helper()
		rule.Pattern, rec.Topic = "^c(?P<x>x)?$", "c"
		m := commands(t, CommandRule{Topic: "other", Publish: "o"}, rule)
		require.Equal(t, &Refusal{1, reason, detail}, commandRefusal(t, m, &rec))
	}
	f(CommandRule{Publish: "a/{key}"}, Record{}, ReasonMissingValue, "publish needs {key}, which the record does not have")
	f(CommandRule{Publish: "{header.a}"}, Record{Headers: headers("b", "")}, ReasonMissingValue, "publish needs {header.a}, which the record does not have")
	f(CommandRule{Publish: "{header.a}"}, Record{Headers: []Property{{[]byte("a"), nil}, {[]byte("a"), []byte("v")}}}, ReasonMissingValue,
		"publish needs {header.a}, which the record does not have")
	f(CommandRule{Publish: "{x}"}, Record{}, ReasonMissingValue, "publish needs {x}, which the record does not have")
	f(CommandRule{Publish: "{payload.a}"}, Record{Value: []byte(`{"b":1}`)}, ReasonMissingValue, "publish needs {payload.a}, which the record does not have")
	f(CommandRule{Publish: "{payload.a}"}, Record{Value: []byte("a")}, ReasonNotJSON, "publish needs {payload.a}, and the payload is not JSON")
	f(CommandRule{Publish: "{payload.a}"}, Record{}, ReasonNotJSON, "publish needs {payload.a}, and the payload is not JSON")
	f(CommandRule{Publish: "p", Client: "{key}"}, Record{}, ReasonMissingValue, "client needs {key}, which the record does not have")
	f(CommandRule{Publish: "p", Client: "{key}"}, Record{Key: []byte{}}, ReasonMissingValue, `client "": no client ID: it is empty`)
	f(CommandRule{Publish: "p", Client: "{payload.a}"}, Record{Value: []byte("{}x")}, ReasonMissingValue, "client needs {payload.a}, which the record does not have")

	m := commands(t, CommandRule{Topic: "c", Publish: "p", ContentType: "{key}", ResponseTopic: "a/{header.x}", CorrelationData: "{payload.a}"})
	var r CommandRoute
	require.NoError(t, m.Route(&Record{Topic: "c"}, &r))
	require.Equal(t, CommandRoute{Topic: []byte("p")}, routed(r))
}

// TestEmptyValueOfACommandIsAValue, and told apart from none.
func TestEmptyValueOfACommandIsAValue(t *testing.T) {
	m := commands(t, CommandRule{Topic: "c", Publish: "p{key}", ContentType: "{key}", CorrelationData: "{header.h}"})
	var r CommandRoute
	require.NoError(t, m.Route(&Record{Topic: "c", Key: []byte{}, Headers: headers("h", "")}, &r))
	require.Equal(t, CommandRoute{Topic: []byte("p"), ContentType: []byte{}, CorrelationData: []byte{}}, routed(r))
}

// TestIllegalMQTTTextIsRefusedNeverChanged: what MQTT can't carry is refused as it is.
func TestIllegalMQTTTextIsRefusedNeverChanged(t *testing.T) {
	m := commands(t,
		CommandRule{Topic: "topic", Publish: "{header.v}"},
		CommandRule{Topic: "response", Publish: "p", ResponseTopic: "{header.v}"},
		CommandRule{Topic: "type", Publish: "p", ContentType: "{header.v}"},
		CommandRule{Topic: "data", Publish: "p", CorrelationData: "{header.v}"},
		CommandRule{Topic: "client", Publish: "p", Client: "{header.v}"})
	f := func(kafkaTopic, value string, reason Reason, detail string) {
		t.Helper()
		got := commandRefusal(t, m, &Record{Topic: kafkaTopic, Headers: headers("v", value)})
		require.Equal(t, reason, got.Reason)
		require.True(t, strings.HasPrefix(got.Detail, detail), got.Detail)
		require.Less(t, len(got.Detail), 8*maxQuoted)
		require.NotContains(t, got.Detail, "\n")
	}
	topics := func(value, because string) {
		t.Helper()
		f("topic", value, ReasonIllegalMQTTTopic, "publish "+because)
		f("response", value, ReasonIllegalMQTTTopic, "response_topic "+because)
	}
	topics("", `"": illegal MQTT topic name: it is empty`)
	topics("a/+", `"a/+": illegal MQTT topic name: + is for subscriptions`)
	topics("#", `"#": illegal MQTT topic name: # is for subscriptions`)
	topics("a\x00", `"a\x00": illegal MQTT topic name: it has a null character`)
	topics("a\xff\n", `"a\xff\n": illegal MQTT topic name: it is not UTF-8`)
	topics("\xed\xa0\x80", `"\xed\xa0\x80": illegal MQTT topic name: it is not UTF-8`) // a surrogate
	topics("$share/g/a", `"$share/g/a": illegal MQTT topic name: $share/ is for subscriptions`)
	topics(strings.Repeat("ö", 32768), `"\u00f6`)
	f("type", "a\x00", ReasonIllegalProperty, `content_type "a\x00": illegal MQTT string: it has a null character`)
	f("type", "\xff", ReasonIllegalProperty, `content_type "\xff": illegal MQTT string: it is not UTF-8`)
	f("type", strings.Repeat("x", 65536), ReasonIllegalProperty, `content_type "xxx`)
	f("data", strings.Repeat("x", 65536), ReasonIllegalProperty, `correlation_data "xxx`)

	legal := func(kafkaTopic, value string) {
		t.Helper()
		var r CommandRoute
		require.NoError(t, m.Route(&Record{Topic: kafkaTopic, Headers: headers("v", value)}, &r))
		got := map[string][]byte{"topic": r.Topic, "response": r.ResponseTopic, "type": r.ContentType, "data": r.CorrelationData, "client": r.Client}
		require.Equal(t, value, string(got[kafkaTopic]))
	}
	for _, value := range []string{"a", "/", "$SYS/a", "$share", "$shared/a", "a/$share/b", "a b/{}", "ü\uFFFD", strings.Repeat("x", 65535)} {
		legal("topic", value)
		legal("response", value)
		legal("type", value)
		legal("client", value)
	}
	legal("type", "a/+#")
	legal("data", "\x00\xff+#")
}

// TestLegalMQTTTopicSaysSo with the same answers as Route.
func TestLegalMQTTTopicSaysSo(t *testing.T) {
	for _, legal := range []string{"a", "/", "a//b", "$SYS", strings.Repeat("x", 65535)} {
		require.NoError(t, LegalMQTTTopic([]byte(legal)))
	}
	for _, illegal := range []string{"", "+", "a/#", "\x00", "\xff", "$share/a", strings.Repeat("x", 65536)} {
		require.ErrorIs(t, LegalMQTTTopic([]byte(illegal)), ErrIllegalMQTTTopic)
	}
}

// TestPatternsSpareInternalTopics: a pattern for everything is not for Kafka's own topics, nor for Sluice's.
func TestPatternsSpareInternalTopics(t *testing.T) {
	m := commands(t, CommandRule{Pattern: "^.*$", Publish: "x/{kafka.topic}"})
	var r CommandRoute
	for range 2 {
		for _, internal := range []string{"__consumer_offsets", "__", "sluice-retained", "sluice-"} {
			require.ErrorIs(t, m.Route(&Record{Topic: internal}, &r), ErrNoRule)
		}
		for _, other := range []string{"_a", "sluice", "a__b", "a"} {
			require.NoError(t, m.Route(&Record{Topic: other}, &r))
			require.Equal(t, "x/"+other, string(r.Topic))
		}
	}
}

// TestCommandRouteIsIndependentOfTheOneBefore: nothing of an earlier record shows in a reused route, and a big value
// does not stay with it.
func TestCommandRouteIsIndependentOfTheOneBefore(t *testing.T) {
	m := commands(t,
		CommandRule{Topic: "a", Publish: "{key}", Client: "{key}", ContentType: "{header.h}", ResponseTopic: "{key}", CorrelationData: "{header.h}"},
		CommandRule{Pattern: "^b(?P<x>.)$", Publish: "{x}"})
	var r CommandRoute
	big := strings.Repeat("v", 2*maxKeptScratch)
	require.NoError(t, m.Route(&Record{Topic: "a", Key: []byte("k"), Headers: headers("h", big)}, &r))
	require.Equal(t, CommandRoute{Topic: []byte("k"), Client: []byte("k"), ContentType: []byte(big), ResponseTopic: []byte("k"),
		CorrelationData: []byte(big)}, routed(r), "the first pieces survive the growth of the buffer they lie in")
	require.ErrorIs(t, m.Route(&Record{Topic: "none"}, &r), ErrNoRule)
	require.Equal(t, CommandRoute{}, routed(r))
	require.NoError(t, m.Route(&Record{Topic: "b1"}, &r))
	require.Equal(t, CommandRoute{Rule: 1, Topic: []byte("1")}, routed(r))
	require.LessOrEqual(t, cap(r.buf), maxKeptScratch)
}

// TestCommandMapTellsItsRulesTopicsAndPatterns, and nobody can change it through what it was made of or what it tells.
func TestCommandMapTellsItsRulesTopicsAndPatterns(t *testing.T) {
	rules := []CommandRule{
		{Topic: "z", Publish: "p", When: []Field{{"key", "k"}}}, {Pattern: "^b.*$", Publish: "p"}, {Topic: "a", Publish: "p"},
		{Pattern: "^a$|^c$", Publish: "p"}, {Topic: "z", Publish: "p"}, {Pattern: "^b.*$", Publish: "p", When: []Field{{"key", "k"}}},
	}
	m := commands(t, rules...)
	rules[0].Topic, rules[0].When[0].Name = "changed", "changed"
	told := m.Rules()
	require.Len(t, told, m.Len())
	require.Equal(t, "z", told[0].Topic)
	told[0].When[0].Name = "changed"
	require.Equal(t, "key", m.Rules()[0].When[0].Name)
	require.Equal(t, []string{"a", "z"}, m.Topics())
	var patterns []string
	for _, re := range m.Patterns() {
		patterns = append(patterns, re.String())
	}
	require.Equal(t, []string{"^b.*$", "^a$|^c$"}, patterns)
	empty := commands(t)
	require.Zero(t, empty.Len())
	require.Empty(t, empty.Topics())
	require.Empty(t, empty.Patterns())
	require.ErrorIs(t, empty.Route(&Record{Topic: "a"}, &CommandRoute{}), ErrNoRule)
}
