package mqtt

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// A benchIndex is what is compared.
type benchIndex interface {
	add(filter string, s *session)
	remove(filter string, s *session)
	match(topic []byte) int
}

// benchIndexes is ours, and room for another beside it. docs/decisions/0006 has what mochi's TopicsIndex took.
var benchIndexes = map[string]func() benchIndex{"ours": func() benchIndex { return new(ourIndex) }}

type ourIndex struct{ index }

func (x *ourIndex) add(filter string, s *session)    { x.index.add(filter, s, subscription{qos: 1}) }
func (x *ourIndex) remove(filter string, s *session) { x.index.remove(filter, s) }

// match takes a buffer from a pool, as Server.Send does.
func (x *ourIndex) match(topic []byte) int {
	found := matches.Get().(*[]subscriber)
	*found = x.index.match(topic, (*found)[:0])
	n := len(*found)
	matches.Put(found)
	return n
}

// eachIndex measures f with each index, after fill, which is not measured and runs once however often f does.
func eachIndex(b *testing.B, fill func(x benchIndex), f func(b *testing.B, x benchIndex)) {
	for _, name := range slices.Sorted(maps.Keys(benchIndexes)) {
		var x benchIndex
		b.Run("index="+name, func(b *testing.B) {
			if x == nil {
				x = benchIndexes[name]()
				fill(x)
			}
			b.ReportAllocs()
			b.ResetTimer()
			f(b, x)
		})
	}
}

func clientID(device int) string { return fmt.Sprintf("device-%07d", device) }

// subscribe gives n devices the filters of patterns, in which * is the client ID.
func subscribe(x benchIndex, n int, patterns ...string) {
	for i := range n {
		s := &session{clientID: clientID(i)}
		for _, p := range patterns {
			x.add(strings.ReplaceAll(p, "*", s.clientID), s)
		}
	}
}

// topicsOf are topics of pattern, evenly drawn from n devices.
func topicsOf(n int, pattern string) [][]byte {
	topics := make([][]byte, 10_000)
	for i := range topics {
		topics[i] = []byte(strings.ReplaceAll(pattern, "*", clientID(rand.IntN(n))))
	}
	return topics
}

func BenchmarkIndexMatch(b *testing.B) {
	const own, command = "devices/*/commands/#", "devices/*/commands/reboot"
	for _, c := range []struct {
		name     string
		devices  int
		patterns []string
		topic    string // * is a client ID
		want     int
	}{
		{"own/devices=10", 10, []string{own}, command, 1},
		{"own/devices=100", 100, []string{own}, command, 1},
		{"own/devices=1000", 1000, []string{own}, command, 1},
		{"own/devices=10000", 10_000, []string{own}, command, 1},
		{"own/devices=100000", 100_000, []string{own}, command, 1},
		{"own/devices=1000000", 1_000_000, []string{own}, command, 1},
		{"nobody/devices=100000", 100_000, []string{own}, "other/*/commands/reboot", 0},
		{"four/devices=100000", 100_000, []string{own, "devices/*/config", "devices/*/ota/+", "devices/*/state/#"}, command, 1},
		{"everything/devices=100", 100, []string{"#"}, command, 100},
		{"everything/devices=10000", 10_000, []string{"#"}, command, 10_000},
		{"plus/devices=10000", 10_000, []string{"devices/+/*/commands/#"}, "devices/site/*/commands/reboot", 1},
	} {
		b.Run(c.name, func(b *testing.B) {
			topics := topicsOf(c.devices, c.topic)
			eachIndex(b, func(x benchIndex) { subscribe(x, c.devices, c.patterns...) }, func(b *testing.B, x benchIndex) {
				for i := range b.N {
					if n := x.match(topics[i%len(topics)]); n != c.want {
						b.Fatalf("%d subscribers", n)
					}
				}
			})
		})
	}
}

// BenchmarkIndexHostile has the filters of somebody who combines a name and + in all ways, as long as filters may be,
// and topics that come by all nodes and match nothing. 100 filters are what one session may have.
func BenchmarkIndexHostile(b *testing.B) {
	const levels = 10
	for _, filters := range []int{100, 1000} {
		for _, length := range []int{1, filterBytesMax/levels - 4} {
			b.Run(fmt.Sprintf("filters=%d/level=%dB", filters, length), func(b *testing.B) {
				name := strings.Repeat("a", length)
				topic := []byte(strings.Repeat(name+"/", levels) + "other")
				combine := func(x benchIndex) {
					s := &session{clientID: "s"}
					for i := range filters {
						var f strings.Builder
						for bit := range levels {
							f.WriteString([]string{name, "+"}[i>>bit&1] + "/")
						}
						x.add(f.String()+"end", s)
					}
				}
				eachIndex(b, combine, func(b *testing.B, x benchIndex) {
					for range b.N {
						if x.match(topic) != 0 {
							b.Fatal("a match")
						}
					}
				})
			})
		}
	}
}

// BenchmarkIndexChange is one device that subscribes and unsubscribes among n others.
func BenchmarkIndexChange(b *testing.B) {
	for _, c := range []struct {
		name, pattern string
		devices       int
	}{
		{"own", "devices/*/commands/#", 10_000},
		{"own", "devices/*/commands/#", 1_000_000},
		{"all", "fleet/all", 100_000},
	} {
		b.Run(fmt.Sprintf("filter=%s/devices=%d", c.name, c.devices), func(b *testing.B) {
			s := &session{clientID: "changes"}
			filter := strings.ReplaceAll(c.pattern, "*", s.clientID)
			eachIndex(b, func(x benchIndex) { subscribe(x, c.devices, c.pattern) }, func(b *testing.B, x benchIndex) {
				for range b.N {
					x.add(filter, s)
					x.remove(filter, s)
				}
			})
		})
	}
}

// BenchmarkIndexMatchDuringChange matches on all processors while one goroutine adds and removes without a pause.
// changes/match is how far that one comes meanwhile.
func BenchmarkIndexMatchDuringChange(b *testing.B) {
	const devices = 100_000
	topics, s := topicsOf(devices, "devices/*/commands/reboot"), &session{clientID: "changes"}
	crowd := func(x benchIndex) { subscribe(x, devices, "devices/*/commands/#") }
	eachIndex(b, crowd, func(b *testing.B, x benchIndex) {
		stop := meanwhile(func() { change(x, s) })
		b.RunParallel(func(p *testing.PB) {
			for i := rand.IntN(len(topics)); p.Next(); i++ {
				if x.match(topics[i%len(topics)]) != 1 {
					b.Error("not found")
					return
				}
			}
		})
		b.ReportMetric(float64(stop())/float64(b.N), "changes/match")
	})
}

// BenchmarkIndexChangeDuringFanOut adds and removes while one goroutine matches what a hundred thousand subscribe to.
func BenchmarkIndexChangeDuringFanOut(b *testing.B) {
	const devices = 100_000
	s := &session{clientID: "changes"}
	crowd := func(x benchIndex) { subscribe(x, devices, "fleet/all") }
	eachIndex(b, crowd, func(b *testing.B, x benchIndex) {
		stop := meanwhile(func() { x.match([]byte("fleet/all")) })
		for range b.N {
			change(x, s)
		}
		b.ReportMetric(float64(stop())/float64(b.N), "matches/op")
	})
}

func change(x benchIndex, s *session) {
	x.add("devices/changes/commands/#", s)
	x.remove("devices/changes/commands/#", s)
}

// meanwhile calls f without a pause until stop is called, which says how often it did.
func meanwhile(f func()) (stop func() int) {
	var stopped atomic.Bool
	calls := make(chan int)
	go func() { // ends with stop
		n := 0
		for ; !stopped.Load(); n++ {
			f()
		}
		calls <- n
	}()
	return func() int {
		stopped.Store(true)
		return <-calls
	}
}

// BenchmarkIndexMemory reports the heap that a subscription takes, without the caller's filter and session.
func BenchmarkIndexMemory(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("devices=%d", n), func(b *testing.B) {
			filters, sessions := ownFilters(n)
			eachIndex(b, func(benchIndex) {}, func(b *testing.B, x benchIndex) {
				bytes := heapGrowth(func() {
					for range b.N { // the second time they replace
						for i, f := range filters {
							x.add(f, sessions[i])
						}
					}
				})
				b.ReportMetric(float64(bytes)/float64(n), "B/subscription")
				for i, f := range filters {
					x.remove(f, sessions[i])
				}
			})
			runtime.KeepAlive(filters)
		})
	}
}
