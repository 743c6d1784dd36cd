package topicmap

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// referenceMatch is the MQTT specification read literally: filter against topic, level by level.
func referenceMatch(match, mqttTopic string) (values map[string]string, ok bool) {
	values = map[string]string{}
	filter, topic := strings.Split(match, "/"), strings.Split(mqttTopic, "/")
	wildcardFirst := filter[0] == "+" || filter[0] == "#" || strings.HasPrefix(filter[0], "{") && !strings.HasPrefix(filter[0], "{{")
	if mqttTopic == "" || mqttTopic[0] == '$' && wildcardFirst {
		return nil, false
	}
	for i, f := range filter {
		name := strings.Trim(f, "{}.")
		switch {
		case f == "#":
			return values, true
		case strings.HasSuffix(f, "...}"):
			if i < len(topic) {
				values[name] = strings.Join(topic[i:], "/")
			}
			return values, true
		case i >= len(topic):
			return nil, false
		case f == "+":
		case strings.HasPrefix(f, "{") && !strings.HasPrefix(f, "{{"):
			values[name] = topic[i]
		case strings.NewReplacer("{{", "{", "}}", "}").Replace(f) != topic[i]:
			return nil, false
		}
	}
	return values, len(topic) == len(filter)
}

// drawMatch draws a filter over few words, so that filters and topics meet.
func drawMatch(t *rapid.T) string {
	var levels []string
	for i := range rapid.IntRange(1, 4).Draw(t, "levels") {
		level := rapid.SampledFrom([]string{"a", "b", "c", "$s", "{{", "x", "+", fmt.Sprintf("{n%d}", i)}).Draw(t, "level")
		levels = append(levels, level)
	}
	if len(levels) > 1 && levels[0] == "x" {
		levels[0] = "" // an empty first level
	}
	if rest := rapid.SampledFrom([]string{"", "", "#", "{all...}"}).Draw(t, "rest"); rest != "" {
		levels[len(levels)-1] = rest
	}
	return strings.Join(levels, "/")
}

var topicWords = rapid.SampledFrom([]string{"a", "b", "c", "$s", "{", "", "other"})

func drawTopic(t *rapid.T) string {
	return strings.Join(rapid.SliceOfN(topicWords, 1, 5).Draw(t, "topic"), "/")
}

// drawRule draws a rule whose headers show everything it captured.
func drawRule(t *rapid.T) Rule {
	r := Rule{Match: drawMatch(t), Topic: "k", Key: text("")}
	for _, name := range regexp.MustCompile(`\{(\w+)(\.\.\.)?\}`).FindAllStringSubmatch(strings.ReplaceAll(r.Match, "{{", ""), -1) {
		r.Headers = append(r.Headers, Field{name[1], "{" + name[1] + "}"})
	}
	if rapid.IntRange(0, 3).Draw(t, "when") == 0 {
		r.When = []Field{{"mqtt.username", rapid.SampledFrom([]string{"joe", "ann"}).Draw(t, "user")}}
	}
	if rapid.IntRange(0, 5).Draw(t, "regex") == 0 {
		r.Match, r.Headers = "", []Field{{"n", "{n}"}}
		r.Regex = rapid.SampledFrom([]string{"^a/(?P<n>.*)$", "^(?P<n>[ab])(?:/c)?$", "^b/.*(?P<n>c)?$", "^.*/(?P<n>other)$"}).Draw(t, "expression")
	}
	return r
}

// referenceRoute tries one rule after the other.
func referenceRoute(rules []Rule, mqttTopic, username string) (index int, headers map[string]string) {
	for i, r := range rules {
		if len(r.When) > 0 && r.When[0].Value != username {
			continue
		}
		if r.Regex != "" {
			if values, ok := regexValues(r.Regex, mqttTopic); ok {
				return i, values
			}
		} else if values, ok := referenceMatch(r.Match, mqttTopic); ok {
			return i, values
		}
	}
	return -1, nil
}

func regexValues(expression, mqttTopic string) (map[string]string, bool) {
	re := regexp.MustCompile(expression)
	loc := re.FindStringSubmatchIndex(mqttTopic)
	if loc == nil || mqttTopic == "" {
		return nil, false
	}
	values := map[string]string{}
	if i := 2 * re.SubexpIndex("n"); loc[i] >= 0 {
		values["n"] = mqttTopic[loc[i]:loc[i+1]]
	}
	return values, true
}

// TestRouteAgreesWithAReferenceMatcher: the index over all rules finds the rule, and the captures, that trying one
// rule after the other finds; on the first use of a topic and on the second.
func TestRouteAgreesWithAReferenceMatcher(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := rapid.SliceOfN(rapid.Custom(drawRule), 1, 12).Draw(t, "rules")
		m, err := Compile(rules)
		require.NoError(t, err)
		var r Route
		for _, mqttTopic := range rapid.SliceOfN(rapid.Custom(drawTopic), 1, 8).Draw(t, "topics") {
			for range 2 {
				checkAgainstReference(t, m, rules, mqttTopic, &r)
			}
		}
	})
}

func checkAgainstReference(t *rapid.T, m *Map, rules []Rule, mqttTopic string, r *Route) {
	username := rapid.SampledFrom([]string{"joe", "ann", "eve"}).Draw(t, "username")
	want, values := referenceRoute(rules, mqttTopic, username)
	err := m.Route(&Message{Topic: []byte(mqttTopic), Username: username}, r)
	if want < 0 {
		require.ErrorIs(t, err, ErrNoRule)
		return
	}
	require.NoError(t, err)
	require.Equal(t, want, r.Rule, "%q in %+v", mqttTopic, rules)
	got := map[string]string{}
	for _, h := range r.Headers {
		got[h.Name] = string(h.Value)
	}
	require.Equal(t, values, got, "%q in %+v", mqttTopic, rules[want])
}

// TestTemplateRoundTrip: a template written from parts parses to these parts and renders what they say.
func TestTemplateRoundTrip(t *testing.T) {
	escape := strings.NewReplacer("{", "{{", "}", "}}")
	rapid.Check(t, func(t *rapid.T) {
		var written, want strings.Builder
		msg := &Message{Topic: []byte("l0/l1"), ClientID: "client", Username: "{user}", CertCN: "cn", Payload: []byte(`{"a":["p"]}`)}
		known := map[string]string{"x": "l0", "y": "l1", "mqtt.topic": "l0/l1", "mqtt.client_id": "client",
			"mqtt.username": "{user}", "cert.cn": "cn", "payload.a.0": "p"}
		names := rapid.SampledFrom([]string{"x", "y", "mqtt.topic", "mqtt.client_id", "mqtt.username", "cert.cn", "payload.a.0"})
		for range rapid.IntRange(0, 6).Draw(t, "parts") {
			if rapid.Bool().Draw(t, "isName") {
				name := names.Draw(t, "name")
				written.WriteString("{" + name + "}")
				want.WriteString(known[name])
				continue
			}
			literal := rapid.StringOf(rapid.SampledFrom([]rune("ab{}é"))).Draw(t, "literal")
			written.WriteString(escape.Replace(literal))
			want.WriteString(literal)
		}
		m, err := Compile([]Rule{{Match: "{x}/{y}", Topic: "k", Headers: []Field{{"h", written.String()}}}})
		require.NoError(t, err)
		var r Route
		require.NoError(t, m.Route(msg, &r))
		require.Equal(t, want.String(), string(r.Headers[0].Value), "%q", written.String())
	})
}

// TestDifferentValuesNeverShareAKafkaTopic: a name is made of the values as they are or refused, so two values of
// one capture never meet in one Kafka topic.
func TestDifferentValuesNeverShareAKafkaTopic(t *testing.T) {
	values := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-zA-Z0-9._-]{0,4}`), rapid.StringMatching(`[aA.,_/ -]{0,2}`))
	rapid.Check(t, func(t *rapid.T) {
		m, err := Compile([]Rule{{Regex: `^(?s:(?P<v>.*))$`, Topic: "{v}"}, {Match: "never", Topic: "k"}})
		require.NoError(t, err)
		cameFrom := map[string]string{}
		var r Route
		for _, value := range rapid.SliceOf(values).Draw(t, "values") {
			if err := m.Route(onTopic(value), &r); err != nil {
				continue
			}
			before, seen := cameFrom[r.Topic]
			require.True(t, !seen || before == value, "%q and %q both go to %q", before, value, r.Topic)
			require.Equal(t, value, r.Topic)
			require.NoError(t, LegalKafkaTopic(r.Topic))
			cameFrom[r.Topic] = value
		}
	})
}
