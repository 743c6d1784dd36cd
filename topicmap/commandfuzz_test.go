package topicmap

import (
	"errors"
	"testing"
	"unicode/utf8"
)

// FuzzCompileCommands: no text of a rule makes CompileCommands panic, every fault lies within its text, and a map that
// compiles routes any record without panic to a legal name.
func FuzzCompileCommands(f *testing.F) {
	f.Add("device-commands", "", "devices/{key}/c/{header.name}", "{header.id}", "{key}", "header.type", "device-commands", "v")
	f.Add("", `^cmd-(?P<plant>[a-z]+)(?P<x>x)?$`, "p/{plant}{x}", "{{{x}}}", "{payload.a.0}", "plant", "cmd-ulm", `{"a":["b"]}`)
	f.Add("a", "^b$", "$share/{key}", "}", "", "key", "a", "")
	f.Add("__a", "(?P<key>a|b", "{", "{{", "{payload.", "{", "a", "+")
	f.Add("a", "", "{kafka.topic}+\x00\xff", "{header.a+b}", "{key}{key}", "kafka.topic", "a", "x")
	f.Fuzz(func(t *testing.T, topic, pattern, publish, property, client, when, kafkaTopic, value string) {
		rule := CommandRule{Topic: topic, Pattern: pattern, Publish: publish, Client: client,
			ContentType: property, ResponseTopic: property, CorrelationData: property}
		if when != "" {
			rule.When = []Field{{when, value}}
		}
		texts := map[string]string{"topic": topic, "pattern": pattern, "publish": publish, "client": client, "content_type": property,
			"response_topic": property, "correlation_data": property, "when." + when: when}
		m, err := CompileCommands([]CommandRule{rule})
		if err != nil {
			checkFaults(t, err, texts)
			return
		}
		for _, name := range []string{kafkaTopic, topic} {
			checkCommand(t, m, &Record{Topic: name, Key: []byte(value), Value: []byte(value), Headers: headers("name", value, "id", publish)})
		}
	})
}

// checkCommand routes twice, from the rules and from the memo, and holds the answer against the promises.
func checkCommand(t *testing.T, m *CommandMap, rec *Record) {
	var (
		r       CommandRoute
		refused *Refusal
	)
	first := m.Route(rec, &r)
	if again := m.Route(rec, &r); (first == nil) != (again == nil) || first != nil && first.Error() != again.Error() {
		t.Fatalf("%v, then %v", first, again)
	}
	switch {
	case first == nil:
		checkCommandRoute(t, m, &r)
	case errors.As(first, &refused):
		if !utf8.ValidString(refused.Detail) || refused.Reason == ReasonNoRule || len(refused.Detail) > 100_000 {
			t.Fatalf("unfit for a receipt: %q", refused.Detail)
		}
	case !errors.Is(first, ErrNoRule):
		t.Fatal(first)
	}
}

func checkCommandRoute(t *testing.T, m *CommandMap, r *CommandRoute) {
	if err := LegalMQTTTopic(r.Topic); err != nil {
		t.Fatal(err)
	}
	if r.ResponseTopic != nil && LegalMQTTTopic(r.ResponseTopic) != nil {
		t.Fatalf("response topic %q", r.ResponseTopic)
	}
	rule := m.Rules()[r.Rule]
	if (rule.Client == "") != (r.Client == nil) || r.Client != nil && len(r.Client) == 0 {
		t.Fatalf("the client of %+v is %q", rule, r.Client)
	}
	if !utf8.Valid(r.ContentType) || len(r.ContentType) > maxMQTTBytes || len(r.CorrelationData) > maxMQTTBytes {
		t.Fatalf("illegal properties: %+v", r)
	}
}

// FuzzCommandRoute: whatever a record holds, nothing panics and all promises hold.
func FuzzCommandRoute(f *testing.F) {
	m, err := CompileCommands([]CommandRule{
		{Topic: "cmd", Publish: "devices/{key}/{header.name}", Client: "{key}", When: []Field{{"header.type", "x"}}},
		{Topic: "cmd", Publish: "{header.mqtt.topic}", ContentType: "{header.name}", ResponseTopic: "a/{payload.r}", CorrelationData: "{key}"},
		{Pattern: "^c(?P<a>.)?(?P<b>.*)$", Publish: "{a}/{b}", Client: "{payload.0}", ResponseTopic: "{header.name}"},
		{Pattern: `^(?s:.*)$`, Publish: "{payload.t}/{kafka.topic}"},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("cmd", []byte("d1"), []byte(`{"r":"x/+"}`), []byte("name"), []byte("open"))
	f.Add("cmd", []byte(nil), []byte(`["c"]`), []byte("mqtt.topic"), []byte("$share/a"))
	f.Add("cx\xffy", []byte{}, []byte(`{"t":"#"}`), []byte("type"), []byte("x"))
	f.Add("__c", []byte("k"), []byte("{"), []byte(""), []byte(""))
	f.Fuzz(func(t *testing.T, kafkaTopic string, key, value, name, text []byte) {
		checkCommand(t, m, &Record{Topic: kafkaTopic, Key: key, Value: value, Headers: []Property{{name, text}, {[]byte("name"), value}}})
	})
}
