package topicmap

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCompileRefuses each fault of a rule, at its field and its place.
func TestCompileRefuses(t *testing.T) {
	f := func(rule Rule, field string, offset int, message string) {
		t.Helper()
		_, err := Compile([]Rule{{Match: "ok", Topic: "ok"}, rule})
		require.Error(t, err)
		errs := ruleErrors(t, err)
		require.Len(t, errs, 1, "%v", err)
		require.Equal(t, 1, errs[0].Rule)
		require.Equal(t, field, errs[0].Field, "%v", err)
		require.Equal(t, offset, errs[0].Offset, "%v", err)
		require.ErrorContains(t, errs[0], message)
	}
	match := func(match string, offset int, message string) {
		t.Helper()
		f(Rule{Match: match, Topic: "k"}, "match", offset, message)
	}
	match("", -1, "needs match")
	match("a/#/b", 2, "must be the last level")
	match("a/{x...}/b", 2, "must be the last level")
	match("a/b#", 3, "# must be a whole level")
	match("a/b+/c", 3, "+ must be a whole level")
	match("a/x{b}c", 3, "a capture must be a whole level")
	match("a/{b}c", 2, "a capture must be a whole level")
	match("a/{b}c{{", 2, "a capture must be a whole level")
	match("a/{b", 2, "not closed")
	match("a/{b/c", 2, "not closed")
	match("a/b}", 3, "closes nothing")
	match("a/{}", 3, "letters, digits and _")
	match("a/{x-y}", 3, "letters, digits and _")
	match("a/{mqtt.topic}", 3, "letters, digits and _")
	match("a/{...}", 3, "letters, digits and _")
	match("{x}/{y}/{x}", 9, `"x" is captured twice`)
	match("{x}/{x...}", 5, `"x" is captured twice`)
	match("a/\x00", 2, "null character")
	match("a/\xff", 2, "UTF-8")
	match("$share/g/a", 0, "subscriptions")
	match(strings.Repeat("a", 65536), 65535, "65535")

	regex := func(regex string, offset int, message string) {
		t.Helper()
		f(Rule{Regex: regex, Topic: "k"}, "regex", offset, message)
	}
	regex("^(a$", -1, "missing closing )")
	regex("^a**$", 2, "invalid nested repetition operator")
	regex("^(?P<x>a)(?<x>b)$", 12, "captured twice")
	regex(`^a\qb$`, 2, "invalid escape sequence")
	regex("^a{1001}$", 2, "invalid repeat count")
	regex("a$", 0, "begin it with ^")
	regex("^a", 2, "end it with $")
	regex("^a$|b$", 0, "begin it with ^")
	regex("^a$|^b", 6, "end it with $")
	regex(`(?m)^a\z`, 0, "begin it with ^")
	regex("(^a)?$", 0, "begin it with ^")
	f(Rule{Match: "a", Regex: "^a$", Topic: "k"}, "regex", -1, "not both")

	topic := func(topic string, offset int, message string) {
		t.Helper()
		f(Rule{Match: "a/{x}/{all...}", Topic: topic}, "topic", offset, message)
	}
	topic("", 0, "it is empty")
	topic("a/b", 1, `"/" is none of`)
	topic("a b", 1, `" " is none of`)
	topic("aöb", 1, `"ö" is none of`)
	topic("a{{b", 1, `"{" is none of`)
	topic(".", 0, `it is "."`)
	topic("..", 0, `it is ".."`)
	topic("__consumer_offsets", 0, "internal")
	topic("sluice-sessions", 0, "internal")
	topic("__{x}", 0, "internal")
	topic("sluice-{x}", 0, "internal")
	topic("a{x}/b", 4, `"/" is none of`)
	topic(strings.Repeat("a", 250), 249, "250 characters")
	topic(strings.Repeat("a", 200)+"{x}"+strings.Repeat("a", 50), 0, "250 characters")
	topic("t-{all}", 3, "several levels")
	topic("t-{mqtt.topic}", 3, "several levels")
	topic("t-{y}", 3, `unknown name "y"; known here: all, x, cert.cn, mqtt.client_id`)
	topic("t-{x", 2, "not closed")
	topic("t-{x{x}", 2, "not closed")
	topic("t-x}", 3, "closes nothing")
	topic("t-{}", 3, `unknown name ""`)
	topic("t-{ x }", 3, "unknown name")
	topic("t-{mqtt.user.}", 3, "unknown name")
	topic("t-{mqtt.qos}", 3, "unknown name")
	topic("t-{payload.}", 3, "a path in a JSON payload")
	topic("t-{payload.a..b}", 3, "a path in a JSON payload")
	topic("t-{payload}", 3, "unknown name")

	good := Rule{Match: "a/{x}", Topic: "k"}
	with := func(change func(*Rule)) Rule {
		r := good
		change(&r)
		return r
	}
	f(with(func(r *Rule) { r.Key = text("{y}") }), "key", 1, "unknown name")
	f(with(func(r *Rule) { r.Key = text("a{{{x}}}}") }), "key", 8, "closes nothing")
	f(with(func(r *Rule) { r.Headers = []Field{{"h", "v"}, {"i", "v{"}} }), "headers.i", 1, "not closed")
	f(with(func(r *Rule) { r.Headers = []Field{{"", "v"}} }), "headers.", -1, "needs a name")
	f(with(func(r *Rule) { r.When = []Field{{"{x}", "v"}} }), "when.{x}", 0, "unknown name")
	f(with(func(r *Rule) { r.When = []Field{{"mqtt.user.", "v"}} }), "when.mqtt.user.", 0, "unknown name")
	f(with(func(r *Rule) { r.MaxTopics = -1 }), "max_topics", -1, "1 or more")
}

// TestCompileReportsAllFaultsAtOnce, in the order of the rules, and those of one text in the order of their places.
func TestCompileReportsAllFaultsAtOnce(t *testing.T) {
	_, err := Compile([]Rule{
		{Match: "a/#/b+/{x", Topic: "a/{nobody}", Key: text("{x}{payload.}"), When: []Field{{"mqtt.no", ""}}},
		{Match: "ok", Topic: "ok"},
		{Regex: "a", Topic: "__x", Headers: []Field{{"h", "}{y}{"}}},
	})
	var got []string
	for _, e := range ruleErrors(t, err) {
		got = append(got, e.Error())
	}
	want := []string{
		"rule 0: match, offset 2: # must be the last level",
		"rule 0: match, offset 5: + must be a whole level",
		"rule 0: match, offset 7: this { is not closed",
		`rule 0: when.mqtt.no, offset 0: unknown name "mqtt.no"`,
		`rule 0: topic, offset 1: illegal Kafka topic name`,
		"rule 0: key, offset 4: a path in a JSON payload",
		"rule 2: regex, offset 0: the regex must match the whole topic: begin it with ^",
		"rule 2: regex, offset 1: the regex must match the whole topic: end it with $",
		"rule 2: topic, offset 0: internal Kafka topic",
		"rule 2: headers.h, offset 0: this } closes nothing",
		"rule 2: headers.h, offset 4: this { is not closed",
	}
	require.Len(t, got, len(want), "%s", strings.Join(got, "\n"))
	for i := range want {
		require.True(t, strings.HasPrefix(got[i], want[i]), "%s\nwant %s", got[i], want[i])
	}
	require.ErrorIs(t, err, ErrInternalTopic)
	require.ErrorIs(t, err, ErrIllegalTopic)
}

// TestCompileAccepts what only looks wrong.
func TestCompileAccepts(t *testing.T) {
	f := func(rule Rule) {
		t.Helper()
		_, err := Compile([]Rule{rule})
		require.NoError(t, err)
	}
	f(Rule{Match: "one", Topic: "{mqtt.topic}"})
	f(Rule{Match: "+", Topic: "{mqtt.topic}"})
	f(Rule{Regex: "^(?P<a>x|y)$", Topic: "{mqtt.topic}.{a}"})
	f(Rule{Regex: "^a$|^b$", Topic: "k"})
	f(Rule{Regex: "^(?:a|b)$", Topic: "k"})
	f(Rule{Regex: "(^a$)+", Topic: "k"})
	f(Rule{Regex: `\Aa\z`, Topic: "k"})
	f(Rule{Regex: "(?i)^a$", Topic: "k"})
	f(Rule{Regex: "^$", Topic: "k"})
	f(Rule{Match: "{_1}/é", Topic: "k"})
	f(Rule{Match: "/", Topic: "_{mqtt.client_id}", MaxTopics: 1})
	f(Rule{Match: "a", Topic: "a", Key: text("{{}}{mqtt.user.a b.c:d}{payload.0.00.é}")})
}

// TestLegalKafkaTopic against Kafka's own rule and the names nobody may write to.
func TestLegalKafkaTopic(t *testing.T) {
	f := func(name string, want error) {
		t.Helper()
		if err := LegalKafkaTopic(name); !errors.Is(err, want) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"a", "A.b_c-9", "...", "_", "_sluice", "sluice", "Sluice-a", strings.Repeat("a", 249)} {
		f(name, nil)
	}
	for _, name := range []string{"", ".", "..", "a/b", "a b", "ä", "a\x00", "a\n", "a:b", strings.Repeat("a", 250), "__/"} {
		f(name, ErrIllegalTopic)
	}
	for _, name := range []string{"__", "__consumer_offsets", "__x", "sluice-", "sluice-sessions"} {
		f(name, ErrInternalTopic)
	}
}
