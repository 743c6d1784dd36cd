package topicmap

import (
	"errors"
	"testing"
	"unicode/utf8"
)

// FuzzCompile: no text of a rule makes Compile panic, every fault lies within its text, and a map that compiles
// routes any topic without panic to a legal name.
func FuzzCompile(f *testing.F) {
	f.Add("devices/{d}/telemetry/{m...}", "", "t-{d}", "{payload.a.0}", "{m}", "mqtt.user.x", "devices/1/telemetry/a/b")
	f.Add("", `^(?P<d>[^/]+)/(?P<e>x)?$`, "{d}", "{{{e}}}", "{mqtt.topic}", "cert.cn", "a/x")
	f.Add("+/#", "", "{mqtt.client_id}", "", "}", "{d}", "$SYS/a")
	f.Add("a/{b", "(a|b", "__x", "{", "{{", "payload.", "a/b")
	f.Fuzz(func(t *testing.T, match, regex, topic, key, header, when, mqttTopic string) {
		rule := Rule{Match: match, Regex: regex, Topic: topic, Key: &key, Headers: []Field{{"h", header}}, MaxTopics: 2}
		if when != "" {
			rule.When = []Field{{when, "v"}}
		}
		texts := map[string]string{"match": match, "regex": regex, "topic": topic, "key": key, "headers.h": header, "when." + when: when}
		m, err := Compile([]Rule{rule})
		if err != nil {
			checkFaults(t, err, texts)
			return
		}
		checkRoute(t, m, &Message{Topic: []byte(mqttTopic), ClientID: "c", Payload: []byte(header)})
	})
}

func checkFaults(t *testing.T, err error, texts map[string]string) {
	for _, e := range ruleErrors(t, err) {
		text, known := texts[e.Field]
		if !known || e.Offset < -1 || e.Offset > len(text) || e.Err == nil {
			t.Fatalf("%+v lies outside of %q", e, text)
		}
	}
}

// checkRoute routes and holds the answer against the promises.
func checkRoute(t *testing.T, m *Map, msg *Message) {
	var (
		r       Route
		refused *Refusal
	)
	switch err := m.Route(msg, &r); {
	case err == nil:
		if err := LegalKafkaTopic(r.Topic); err != nil {
			t.Fatalf("%q was routed: %v", msg.Topic, err)
		}
		if r.HasKey != (r.Key != nil) || r.Rule < 0 || r.Rule >= m.Len() {
			t.Fatalf("inconsistent: %+v", r)
		}
	case errors.As(err, &refused):
		if !utf8.ValidString(refused.Detail) || refused.Reason == ReasonNoRule {
			t.Fatalf("unfit for a Reason String: %q", refused.Detail)
		}
	case !errors.Is(err, ErrNoRule):
		t.Fatal(err)
	}
}

// FuzzRoute: whatever a device sends, nothing panics and all promises hold.
func FuzzRoute(f *testing.F) {
	m, err := Compile([]Rule{
		{Match: "devices/{d}/t/{m...}", Topic: "{d}", Key: text("{payload.a.b}"), Headers: []Field{{"m", "{m}{mqtt.user.u}"}}},
		{Match: "{a}/{b}", Topic: "{a}.{b}", Key: text("{mqtt.user.u}"), When: []Field{{"payload.0", "x"}}, MaxTopics: 5},
		{Regex: `^(?P<x>[^/]*)/(?P<y>.*)?$`, Topic: "_{x}", Key: text("{y}"), MaxTopics: 5},
		{Match: "p/#", Topic: "{payload.t}", Key: text("{cert.cn}-{mqtt.username}")},
		{Match: "#", Topic: "{mqtt.user.t}"},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("devices/1/t/a"), []byte(`{"a":{"b":"c"}}`), []byte("u"), []byte("v"), "c", "n")
	f.Add([]byte("p"), []byte(`{"t":"__x"}`), []byte("t"), []byte("sluice-x"), "", "")
	f.Add([]byte("$SYS//"), []byte(`["x"]`), []byte("t"), []byte(""), "c", "")
	f.Fuzz(func(t *testing.T, mqttTopic, payload, key, value []byte, client, cn string) {
		checkRoute(t, m, &Message{Topic: mqttTopic, Payload: payload, ClientID: client, CertCN: cn,
			Username: client, UserProperties: []Property{{key, value}}})
	})
}
