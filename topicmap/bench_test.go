package topicmap

import (
	"fmt"
	"testing"
)

// BenchmarkRoute is a whole Route: finding the rule, and rendering topic, key and headers.
func BenchmarkRoute(b *testing.B) {
	telemetry := onTopic("devices/d1/telemetry/engine/temp")
	json := &Message{Topic: []byte("plants/p1/press"), ClientID: "c",
		Payload: []byte(`{"ts":1767225600,"site":{"name":"ulm","line":4},"machine":{"id":"press-17"},"values":[1.5,2.5,3.5]}`)}
	f := func(name string, msg *Message, rule Rule) {
		for _, others := range []int{0, 19, 199} {
			b.Run(fmt.Sprintf("%s/rules=%d", name, others+1), func(b *testing.B) {
				rules := append(benchRules("filters", others), rule)
				runRoute(b, compile(b, rules...), msg)
			})
		}
	}
	f("literal-topic", telemetry, Rule{Match: "devices/{device}/telemetry/{metric...}", Topic: "telemetry", Key: text("{device}"),
		Headers: []Field{{"metric", "{metric}"}}})
	f("template-topic", telemetry, Rule{Match: "devices/{device}/#", Topic: "device-{device}"})
	f("payload-path", json, Rule{Match: "plants/{plant}/#", Topic: "plants", Key: text("{payload.machine.id}")})
	f("regex", telemetry, Rule{Regex: "^devices/(?P<device>[^/]+)/telemetry/(?P<metric>.*)$", Topic: "telemetry",
		Key: text("{device}"), Headers: []Field{{"metric", "{metric}"}}})
	f("refused", onTopic("devices/a b/x"), Rule{Match: "devices/{device}/#", Topic: "device-{device}"})
}

// runRoute routes one message again and again.
func runRoute(b *testing.B, m *Map, msg *Message) {
	var r Route
	b.ReportAllocs()
	for b.Loop() {
		_ = m.Route(msg, &r) // one of the benchmarks is of refusals
	}
}

// BenchmarkTopicTable is the lookup of a Kafka topic that a template made before, by all processors.
func BenchmarkTopicTable(b *testing.B) {
	for _, names := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprintf("names=%d", names), func(b *testing.B) {
			table := newNameTable[struct{}](names)
			keys := make([][]byte, names)
			for i := range keys {
				keys[i] = fmt.Appendf(nil, "plant-%06d", i)
				table.add(keys[i], struct{}{})
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if e, _ := table.get(keys[i%names]); e == nil {
						b.Error("lost")
					}
				}
			})
		})
	}
}
