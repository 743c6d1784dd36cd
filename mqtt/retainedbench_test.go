package mqtt

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

// BenchmarkRetainedIndex is what a million retained messages cost: memory of each beside its topic and payload, and the
// time to enter them in an order that is none.
func BenchmarkRetainedIndex(b *testing.B) {
	const n = 1_000_000
	order := rand.New(rand.NewPCG(1, 2)).Perm(n)
	payload := make([]byte, 100)
	for b.Loop() {
		x, err := NewRetained(RetainedConfig{Messages: n, Bytes: 1 << 40})
		check(b, err)
		before, topics := heap(), 0
		began := time.Now()
		m := &RetainedMessage{Payload: payload, QoS: 1, ClientID: "device-0001"}
		for _, i := range order {
			m.Topic = fmt.Appendf(m.Topic[:0], "plants/p%03d/machines/m%05d/state", i%1000, i/1000)
			topics += len(m.Topic)
			check(b, x.Set(m))
		}
		took := time.Since(began)
		b.ReportMetric(float64(took.Nanoseconds())/n, "ns/message")
		b.ReportMetric(float64(heap()-before)/n, "B/message")
		b.ReportMetric(float64(heap()-before)/n-float64(topics)/n-float64(len(payload))-float64(len(m.ClientID)), "B/message-overhead")
		b.ReportMetric(float64(x.Bytes())/n, "counted-B/message")
		runtime.KeepAlive(x)
	}
}

// BenchmarkRetainedMatch is a search for what one filter matches among a million messages.
func BenchmarkRetainedMatch(b *testing.B) {
	const n = 1_000_000
	x, err := NewRetained(RetainedConfig{Messages: n, Bytes: 1 << 40})
	check(b, err)
	for i := range n {
		topic := fmt.Appendf(nil, "plants/p%03d/machines/m%05d/state", i%1000, i/1000)
		check(b, x.Set(&RetainedMessage{Topic: topic, Payload: topic}))
	}
	for _, filter := range []string{"plants/p123/machines/m00042/state", "plants/p123/#", "plants/+/machines/m00042/state", "#", "plants/+/machines/+/other"} {
		b.Run(filter, func(b *testing.B) {
			found := 0
			for b.Loop() {
				found = 0
				from := ""
				for more := true; more; {
					from, more = x.Match(filter, from, portionSteps, func(*RetainedMessage) bool { found++; return true })
				}
			}
			b.ReportMetric(float64(found), "found")
		})
	}
}
