package topicmap

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCompileCommandsRefuses each fault of a rule, at its field and its place.
func TestCompileCommandsRefuses(t *testing.T) {
	f := func(rule CommandRule, field string, offset int, message string) {
		t.Helper()
		_, err := CompileCommands([]CommandRule{{Topic: "ok", Publish: "ok"}, rule})
		require.Error(t, err)
		errs := ruleErrors(t, err)
		require.Len(t, errs, 1, "%v", err)
		require.Equal(t, 1, errs[0].Rule)
		require.Equal(t, field, errs[0].Field, "%v", err)
		require.Equal(t, offset, errs[0].Offset, "%v", err)
		require.ErrorContains(t, errs[0], message)
	}
	f(CommandRule{Publish: "{x}"}, "topic", -1, "a command rule needs topic")
	f(CommandRule{Topic: "a", Pattern: "^(?P<x>b)$", Publish: "{x}"}, "pattern", -1, "not both")

	topic := func(topic string, offset int, message string) {
		t.Helper()
		f(CommandRule{Topic: topic, Publish: "p"}, "topic", offset, message)
	}
	topic("a/b", 1, `"/" is none of`)
	topic("{key}", 0, `"{" is none of`)
	topic(".", 0, `it is "."`)
	topic("__consumer_offsets", 0, "internal Kafka topic")
	topic("sluice-sessions", 0, "internal Kafka topic")
	topic(strings.Repeat("a", 250), 249, "250 characters")

	pattern := func(pattern string, offset int, message string) {
		t.Helper()
		f(CommandRule{Pattern: pattern, Publish: "p"}, "pattern", offset, message)
	}
	pattern("a$", 0, "begin it with ^")
	pattern("^a", 2, "end it with $")
	pattern("^a**$", 2, "invalid nested repetition operator")
	pattern("^(?P<x>a)(?P<x>b)$", 13, "captured twice")
	pattern("^a(?P<key>b)$", 6, "{key} is a part of the record already")
	pattern("^__a.*$", 1, "internal Kafka topic")
	pattern("^sluice-(?P<x>.*)$", 1, "internal Kafka topic")

	template := func(field string, set func(*CommandRule, string)) func(string, int, string) {
		return func(text string, offset int, message string) {
			t.Helper()
			rule := CommandRule{Pattern: "^c(?P<x>.*)$", Publish: "p"}
			set(&rule, text)
			f(rule, field, offset, message)
		}
	}
	publish := template("publish", func(r *CommandRule, s string) { r.Publish = s })
	response := template("response_topic", func(r *CommandRule, s string) { r.ResponseTopic = s })
	contentType := template("content_type", func(r *CommandRule, s string) { r.ContentType = s })
	data := template("correlation_data", func(r *CommandRule, s string) { r.CorrelationData = s })
	client := template("client", func(r *CommandRule, s string) { r.Client = s })
	for _, bad := range []func(string, int, string){publish, response, contentType, data, client} {
		bad("a/{y}", 3, `unknown name "y"; known here: x, kafka.topic, key, header.NAME, payload.PATH`)
		bad("{mqtt.client_id}", 1, "unknown name")
		bad("{header.}", 1, "unknown name")
		bad("{header}", 1, "unknown name")
		bad("{payload.a..b}", 1, "a path in a JSON payload")
		bad("a{", 1, "not closed")
		bad("a}", 1, "closes nothing")
		bad("{x}"+strings.Repeat("a", 65536), 0, "65536 bytes without the values")
	}
	for _, bad := range []func(string, int, string){publish, response} {
		bad("a/+", 2, "+ is for subscriptions")
		bad("a/{x}/#", 6, "# is for subscriptions")
		bad("{{x}}{x}{{+", 10, "+ is for subscriptions")
		bad("{{x}}+", 5, "+ is for subscriptions")
		bad("$share/g/{x}", 0, "$share/ is for subscriptions")
		bad("$share/g", 0, "$share/ is for subscriptions")
		bad("{x}a\x00", 4, "null character")
		bad("{x}a\xff", 4, "not UTF-8")
		bad(strings.Repeat("a", 65536), 65535, "65536 bytes, the most is 65535")
	}
	publish("", 0, "it is empty")
	contentType("a\x00", 1, "null character")
	contentType("{{}}{x}{{\xff", 9, "not UTF-8")
	data(strings.Repeat("a", 65536), 65535, "the most is 65535")
	client(strings.Repeat("a", 65536), 65535, "the most is 65535")
	f(CommandRule{Topic: "a", Publish: "p", When: []Field{{"{key}", "v"}}}, "when.{key}", 0, "unknown name")
	f(CommandRule{Topic: "a", Publish: "p", When: []Field{{"mqtt.topic", "v"}}}, "when.mqtt.topic", 0, "unknown name")
	f(CommandRule{Topic: "a", Publish: "{x}"}, "publish", 1, "unknown name")
}

// TestCompileCommandsReportsAllFaultsAtOnce, those of one text in the order of their places, and a name that a broken
// pattern may define is none.
func TestCompileCommandsReportsAllFaultsAtOnce(t *testing.T) {
	_, err := CompileCommands([]CommandRule{
		{Topic: "a b", Publish: "#/{nobody}/{", ContentType: "{", ResponseTopic: "+/{key}/#", CorrelationData: "}", Client: "{a.b}",
			When: []Field{{"nobody", ""}}},
		{Topic: "ok", Publish: "ok"},
		{Pattern: "(?P<x>a)", Publish: "{x}/{y.z}", When: []Field{{"x", ""}}},
	})
	want := []string{
		"rule 0: topic, offset 1: illegal Kafka topic name",
		`rule 0: when.nobody, offset 0: unknown name "nobody"`,
		`rule 0: publish, offset 3: unknown name "nobody"`,
		"rule 0: publish, offset 11: this { is not closed",
		`rule 0: client, offset 1: unknown name "a.b"`,
		"rule 0: content_type, offset 0: this { is not closed",
		"rule 0: response_topic, offset 0: illegal MQTT topic name",
		"rule 0: response_topic, offset 8: illegal MQTT topic name",
		"rule 0: correlation_data, offset 0: this } closes nothing",
		"rule 2: pattern, offset 0: the regex must match the whole topic: begin it with ^",
		"rule 2: pattern, offset 8: the regex must match the whole topic: end it with $",
		`rule 2: publish, offset 5: unknown name "y.z"`,
	}
	var got []string
	for _, e := range ruleErrors(t, err) {
		got = append(got, e.Error())
	}
	require.Len(t, got, len(want), "%s", strings.Join(got, "\n"))
	for i := range want {
		require.True(t, strings.HasPrefix(got[i], want[i]), "%s\nwant %s", got[i], want[i])
	}
	require.ErrorIs(t, err, ErrIllegalMQTTTopic)
	require.ErrorIs(t, err, ErrIllegalTopic)
}

// TestCompileCommandsAccepts what only looks wrong.
func TestCompileCommandsAccepts(t *testing.T) {
	f := func(rule CommandRule) {
		t.Helper()
		if rule.Publish == "" {
			rule.Publish = "p"
		}
		_, err := CompileCommands([]CommandRule{rule})
		require.NoError(t, err)
	}
	f(CommandRule{Topic: "a", Publish: "{key}"})
	f(CommandRule{Topic: "a", Publish: "{{}}/{header.a+b c}/{header.#}"})
	f(CommandRule{Topic: "a", Publish: "$share{key}"})
	f(CommandRule{Topic: "a", Publish: "$devices/x"})
	f(CommandRule{Topic: "a", Publish: "/"})
	f(CommandRule{Topic: "a", ContentType: "a/+#", CorrelationData: "\x00\xff{key}", Client: "+"})
	f(CommandRule{Pattern: "^a$|^b$"})
	f(CommandRule{Pattern: "^_(?P<kafka>.*)$", Publish: "{kafka}{kafka.topic}"})
	f(CommandRule{Pattern: "^sluice(?P<header>.*)$", Publish: "{header}"})
}
