package topicmap

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestCommandRouteDoesNotAllocate for a record that is routed, nor for one that no rule takes.
func TestCommandRouteDoesNotAllocate(t *testing.T) {
	f := func(name string, rec *Record, want error, rules ...CommandRule) {
		t.Helper()
		m := commands(t, append([]CommandRule{{Topic: "other", Publish: "other"}}, rules...)...)
		var r CommandRoute
		require.Equal(t, want, m.Route(rec, &r)) // the first makes the scratch and asks the patterns
		got := testing.AllocsPerRun(200, func() {
			if err := m.Route(rec, &r); err != want {
				t.Error(err)
			}
		})
		require.Zero(t, got, name)
	}
	rec := &Record{Topic: "cmd-ulm", Key: []byte("d1"), Value: []byte(`{"a":[{"b":"c\u00e9"}]}`),
		Headers: headers("type", "actuator", "name", "open", "id", "7")}
	f("every field", rec, nil, CommandRule{Topic: "cmd-ulm", Publish: "devices/{key}/commands/{header.name}", ContentType: "application/json",
		ResponseTopic: "devices/{key}/answers", CorrelationData: "{header.id}", Client: "{key}", When: []Field{{"header.type", "actuator"}}})
	f("missing properties", rec, nil, CommandRule{Topic: "cmd-ulm", Publish: "p", ContentType: "{header.x}", ResponseTopic: "{payload.x}"})
	f("pattern", rec, nil, CommandRule{Pattern: "^cmd-(?P<plant>.*)$", Publish: "plants/{plant}/{kafka.topic}"})
	f("payload", rec, nil, CommandRule{Topic: "cmd-ulm", Publish: "x/{payload.a.0.b}"})
	f("conditions", rec, nil, CommandRule{Pattern: "^cmd-.*$", Publish: "no", When: []Field{{"payload.a.0.b", "d"}}},
		CommandRule{Topic: "cmd-ulm", Publish: "no", When: []Field{{"header.none", ""}}}, CommandRule{Topic: "cmd-ulm", Publish: "yes"})
	f("no rule", rec, ErrNoRule, CommandRule{Pattern: "^x.*$", Publish: "no"})
}

// BenchmarkCommandRoute is a whole Route of a record.
func BenchmarkCommandRoute(b *testing.B) {
	rec := &Record{Topic: "cmd-ulm", Key: []byte("device-17"), Value: []byte(`{"ts":1767225600,"valve":{"id":"v-17","open":true}}`),
		Headers: headers("type", "actuator", "name", "open", "id", "7f3a9c")}
	f := func(name string, rule CommandRule) {
		for _, others := range []int{0, 19, 199} {
			b.Run(fmt.Sprintf("%s/rules=%d", name, others+1), func(b *testing.B) {
				var rules []CommandRule
				for i := range others {
					rules = append(rules, CommandRule{Pattern: fmt.Sprintf("^.*-%d$", i), Publish: "p"})
				}
				runCommandRoute(b, commands(b, append(rules, rule)...), rec)
			})
		}
	}
	f("topic", CommandRule{Topic: "cmd-ulm", Publish: "devices/{key}/commands/{header.name}"})
	f("pattern", CommandRule{Pattern: "^cmd-(?P<plant>[a-z]+)$", Publish: "plants/{plant}/{key}"})
	f("payload", CommandRule{Topic: "cmd-ulm", Publish: "valves/{payload.valve.id}"})
	f("every-field", CommandRule{Topic: "cmd-ulm", Publish: "devices/{key}/commands/{header.name}", ContentType: "application/json",
		ResponseTopic: "devices/{key}/answers", CorrelationData: "{header.id}", Client: "{key}", When: []Field{{"header.type", "actuator"}}})
}

// BenchmarkCommandRouteWithoutMemo is what each record would cost if the patterns were asked for it.
func BenchmarkCommandRouteWithoutMemo(b *testing.B) {
	for _, others := range []int{0, 19, 199} {
		b.Run(fmt.Sprintf("rules=%d", others+1), func(b *testing.B) {
			var rules []CommandRule
			for i := range others {
				rules = append(rules, CommandRule{Pattern: fmt.Sprintf("^.*-%d$", i), Publish: "p"})
			}
			m := commands(b, append(rules, CommandRule{Pattern: "^cmd-(?P<plant>[a-z]+)$", Publish: "plants/{plant}/{key}"})...)
			m.known = full(b)
			runCommandRoute(b, m, &Record{Topic: "cmd-ulm", Key: []byte("device-17")})
		})
	}
}

// full is a memo that takes nothing more in.
func full(tb testing.TB) *nameTable[[]commandHit] {
	known := newNameTable[[]commandHit](1)
	require.NotNil(tb, known.add([]byte("first"), nil))
	require.Nil(tb, known.add([]byte("second"), nil))
	return known
}

func runCommandRoute(b *testing.B, m *CommandMap, rec *Record) {
	var r CommandRoute
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Route(rec, &r); err != nil {
			b.Fatal(err)
		}
	}
}

// TestMoreTopicsThanAreRememberedAreRouted all the same, by asking the patterns.
func TestMoreTopicsThanAreRememberedAreRouted(t *testing.T) {
	m := commands(t, CommandRule{Pattern: "^cmd-(?P<n>[0-9]+)$", Publish: "x/{n}"})
	m.known = full(t)
	var r CommandRoute
	for i := range 100 {
		require.NoError(t, m.Route(&Record{Topic: fmt.Sprint("cmd-", i)}, &r))
		require.Equal(t, fmt.Sprint("x/", i), string(r.Topic))
		require.ErrorIs(t, m.Route(&Record{Topic: fmt.Sprint("cmd-", i, "x")}, &r), ErrNoRule)
	}
}

// TestCommandMapIsForManyGoroutines: each topic gets its own answer, whoever asks first.
func TestCommandMapIsForManyGoroutines(t *testing.T) {
	m := commands(t,
		CommandRule{Topic: "cmd-7", Publish: "seven"},
		CommandRule{Pattern: `^cmd-(?P<n>\d*[02468])$`, Publish: "even/{n}", When: []Field{{"key", "k"}}},
		CommandRule{Pattern: `^cmd-(?P<n>\d+)$`, Publish: "any/{n}"})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			var r CommandRoute
			for i := range 2000 {
				n := (i*7 + g) % 101
				want := fmt.Sprint("any/", n)
				switch {
				case n == 7:
					want = "seven"
				case n%2 == 0:
					want = fmt.Sprint("even/", n)
				}
				assert.NoError(t, m.Route(&Record{Topic: fmt.Sprint("cmd-", n), Key: []byte("k")}, &r))
				assert.Equal(t, want, string(r.Topic))
			}
		})
	}
	wg.Wait()
}

// drawCommandRule draws a rule over few words, so that rules and records meet.
func drawCommandRule(t *rapid.T) CommandRule {
	r := CommandRule{Publish: "p"}
	if rapid.Bool().Draw(t, "pattern") {
		r.Pattern = rapid.SampledFrom([]string{"^(?P<n>a|b)$", "^a(?P<n>.*)$", "^.*$", "^(?P<n>__.*|ab)$", "^(?P<n>c)?b$"}).Draw(t, "expression")
		if strings.Contains(r.Pattern, "<n>") {
			r.ContentType = "{n}"
		}
	} else {
		r.Topic = rapid.SampledFrom([]string{"a", "b", "ab", "c"}).Draw(t, "topic")
	}
	for range rapid.IntRange(0, 2).Draw(t, "conditions") {
		r.When = append(r.When, Field{rapid.SampledFrom([]string{"key", "header.h", "payload.v"}).Draw(t, "name"),
			rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "want")})
	}
	return r
}

// referenceCommand tries one rule after the other.
func referenceCommand(rules []CommandRule, kafkaTopic string, values map[string]string) (index int, captured string) {
	for i, r := range rules {
		var found map[string]string
		ok := r.Topic == kafkaTopic
		if r.Pattern != "" {
			ok = false
			if strings.Contains(r.Pattern, "<n>") {
				found, ok = regexValues(r.Pattern, kafkaTopic)
			} else if kafkaTopic != "" {
				ok = true // ^.*$
			}
			ok = ok && !strings.HasPrefix(kafkaTopic, "__") && !strings.HasPrefix(kafkaTopic, "sluice-")
		}
		for _, when := range r.When {
			value, there := values[when.Name]
			ok = ok && there && value == when.Value
		}
		if ok {
			return i, found["n"]
		}
	}
	return -1, ""
}

// TestCommandRouteAgreesWithAReference: the memo over all rules finds the rule, and the captures, that trying one rule
// after the other finds; on the first record of a Kafka topic and on later ones with other values.
func TestCommandRouteAgreesWithAReference(t *testing.T) {
	texts := rapid.SampledFrom([]string{"missing", "", "1", "2"})
	rapid.Check(t, func(t *rapid.T) {
		rules := rapid.SliceOfN(rapid.Custom(drawCommandRule), 1, 10).Draw(t, "rules")
		m, err := CompileCommands(rules)
		require.NoError(t, err)
		var r CommandRoute
		for range 12 {
			rec := &Record{Topic: rapid.SampledFrom([]string{"a", "b", "ab", "c", "__a", "sluice-a", "cb"}).Draw(t, "topic")}
			values := map[string]string{}
			if text := texts.Draw(t, "key"); text != "missing" {
				rec.Key, values["key"] = []byte(text), text
			}
			if text := texts.Draw(t, "header"); text != "missing" {
				rec.Headers, values["header.h"] = headers("h", text, "h", "other"), text
			}
			if text := texts.Draw(t, "payload"); text != "missing" {
				rec.Value, values["payload.v"] = []byte(`{"v":"`+text+`"}`), text
			}
			want, captured := referenceCommand(rules, rec.Topic, values)
			err := m.Route(rec, &r)
			if want < 0 {
				require.ErrorIs(t, err, ErrNoRule)
				continue
			}
			require.NoError(t, err)
			require.Equal(t, want, r.Rule, "%+v in %+v", rec, rules)
			require.Equal(t, captured, string(r.ContentType))
		}
	})
}

// TestLoopBackGivesEveryTopicBack: what a PUBLISH was sent to, by a header of its record, is what a command goes to.
func TestLoopBackGivesEveryTopicBack(t *testing.T) {
	out := compile(t, Rule{Match: "#", Topic: "mqtt", Headers: []Field{{"mqtt.topic", "{mqtt.topic}"}}})
	back := commands(t, CommandRule{Topic: "mqtt", Publish: "{header.mqtt.topic}"})
	rapid.Check(t, func(t *rapid.T) {
		mqttTopic := []byte(rapid.StringOf(rapid.RuneFrom([]rune("ab/{}ü $*"))).Draw(t, "topic"))
		var r Route
		if out.Route(&Message{Topic: mqttTopic, ClientID: "c"}, &r) != nil {
			return // begins with $, or is empty
		}
		rec := &Record{Topic: r.Topic, Key: r.Key, Headers: []Property{{[]byte(r.Headers[0].Name), r.Headers[0].Value}}}
		var c CommandRoute
		require.NoError(t, back.Route(rec, &c))
		require.Equal(t, string(mqttTopic), string(c.Topic))
	})
}
