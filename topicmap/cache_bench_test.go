package topicmap

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	lru "github.com/hashicorp/golang-lru/v2"
)

// The benchmarks of docs/decisions/0001-route-cache.md: what it costs to find the rule of a topic and what it
// captured, with and without remembering it.

// finder finds the rule for a topic; r takes the captures.
type finder func(msg *Message, r *Route) *compiledRule

// cachedMatch is what an LRU of routes would keep for a topic: the rule and where its captures lie.
type cachedMatch struct {
	rule   *compiledRule
	levels []int
	groups []int
}

// uncached asks the filters and then each regex, and remembers nothing.
func uncached(m *Map) finder {
	return func(msg *Message, r *Route) *compiledRule {
		best := m.filters.find(msg, r)
		for _, rule := range m.regexes {
			if rule.index >= best.order() {
				break
			}
			if groups := rule.regex.find(msg.Topic); groups != nil {
				r.groups = groups
				return rule
			}
		}
		return best
	}
}

// throughLRU puts golang-lru in front of find. Its key is looked up without a copy, which only an own hash table of
// byte slices could do as cheaply.
func throughLRU(tb testing.TB, find finder, size int) finder {
	cache, err := lru.New[string, cachedMatch](size)
	if err != nil {
		tb.Fatal(err)
	}
	return func(msg *Message, r *Route) *compiledRule {
		key := unsafe.String(unsafe.SliceData(msg.Topic), len(msg.Topic))
		if c, ok := cache.Get(key); ok {
			r.levels, r.groups = append(r.levels[:0], c.levels...), c.groups
			return c.rule
		}
		rule := find(msg, r)
		cache.Add(strings.Clone(key), cachedMatch{rule, append([]int(nil), r.levels...), r.groups})
		return rule
	}
}

// benchRules are n rules of which the last is the one that matches, as the catch-all of many sites would be.
func benchRules(kind string, n int) []Rule {
	rules := make([]Rule, n)
	for i := range rules {
		rules[i] = Rule{Topic: "k", Key: text("{device}")}
		name := fmt.Sprintf("site%d", n-1-i)
		switch kind {
		case "filters":
			rules[i].Match = name + "/{device}/telemetry/{metric...}"
		case "regexes":
			rules[i].Regex = "^" + name + "/(?P<device>[^/]+)/telemetry/(?P<metric>.*)$"
		default: // regexes that do not begin with literal text: the prefix does not save them
			rules[i].Regex = "^(?P<area>[a-z]+-)?" + name + "/(?P<device>[^/]+)/telemetry/(?P<metric>.*)$"
		}
	}
	return rules
}

// benchTopics are n topics of different devices, all of site0.
func benchTopics(n int) [][]byte {
	topics := make([][]byte, n)
	for i := range topics {
		topics[i] = fmt.Appendf(nil, "site0/device-%07d/telemetry/engine/temperature", i)
	}
	return topics
}

// runFinder lets all processors look up topics in an order that neither follows the topics nor repeats soon.
func runFinder(b *testing.B, find finder, topics [][]byte) {
	warm(find, topics)
	var goroutine atomic.Uint64
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		var r Route
		msg := &Message{ClientID: "c"}
		for i := goroutine.Add(1) * 0x9E3779B97F4A7C15; pb.Next(); i = i*6364136223846793005 + 1442695040888963407 {
			msg.Topic = topics[(i>>33)%uint64(len(topics))]
			r.reset()
			if find(msg, &r) == nil {
				b.Error("no rule")
			}
		}
	})
}

// warm looks up so many topics that every cache is as full as it gets.
func warm(find finder, topics [][]byte) {
	var r Route
	for _, topic := range topics[:min(len(topics), 2*memoSlots)] {
		r.reset()
		find(&Message{Topic: topic, ClientID: "c"}, &r)
	}
}

// BenchmarkRouteCache compares no cache, golang-lru and the memo of regexes.
func BenchmarkRouteCache(b *testing.B) {
	for _, topicCount := range []int{100, 10_000, 1_000_000} {
		topics := benchTopics(topicCount)
		for _, kind := range []string{"filters", "regexes", "regexes-without-prefix"} {
			for _, ruleCount := range []int{1, 20, 200} {
				m := compile(b, benchRules(kind, ruleCount)...)
				name := func(cache string) string {
					return fmt.Sprintf("topics=%d/rules=%d-%s/%s", topicCount, ruleCount, kind, cache)
				}
				b.Run(name("none"), func(b *testing.B) { runFinder(b, uncached(m), topics) })
				b.Run(name("lru"), func(b *testing.B) { runFinder(b, throughLRU(b, uncached(m), memoSlots), topics) })
				b.Run(name("map"), func(b *testing.B) { runFinder(b, m.match, topics) })
			}
		}
	}
}
