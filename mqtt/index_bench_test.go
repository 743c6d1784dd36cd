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

// benchIndexes is ours. docs/decisions/0006 has the lines that put mochi's beside it.
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

// eachIndex runs f with each index, made new.
func eachIndex(b *testing.B, f func(b *testing.B, x benchIndex)) {
	for _, name := range slices.Sorted(maps.Keys(benchIndexes)) {
		b.Run("index="+name, func(b *testing.B) { f(b, benchIndexes[name]()) })
	}
}

// fill gives n devices the filters of pattern, in which * is the client ID, and returns the sessions.
func fill(x benchIndex, n int, patterns ...string) (sessions []*session) {
	for i := range n {
		s := &session{clientID: fmt.Sprintf("device-%07d", i)}
		for _, p := range patterns {
			x.add(strings.ReplaceAll(p, "*", s.clientID), s)
		}
		sessions = append(sessions, s)
	}
	return sessions
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
			eachIndex(b, func(b *testing.B, x benchIndex) {
				sessions := fill(x, c.devices, c.patterns...)
				topics := make([][]byte, min(c.devices, 10_000)) // evenly drawn
				for i := range topics {
					topics[i] = []byte(strings.ReplaceAll(c.topic, "*", sessions[rand.IntN(len(sessions))].clientID))
				}
				b.ReportAllocs()
				b.ResetTimer()
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
				eachIndex(b, func(b *testing.B, x benchIndex) {
					s, name := &session{clientID: "s"}, strings.Repeat("a", length)
					for i := range filters {
						var f strings.Builder
						for bit := range levels {
							f.WriteString([]string{name, "+"}[i>>bit&1] + "/")
						}
						x.add(f.String()+"end", s)
					}
					topic := []byte(strings.Repeat(name+"/", levels) + "other")
					b.ResetTimer()
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
			eachIndex(b, func(b *testing.B, x benchIndex) {
				fill(x, c.devices, c.pattern)
				s := &session{clientID: "changes"}
				filter := strings.ReplaceAll(c.pattern, "*", s.clientID)
				b.ReportAllocs()
				b.ResetTimer()
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
	eachIndex(b, func(b *testing.B, x benchIndex) {
		const devices = 100_000
		sessions := fill(x, devices, "devices/*/commands/#")
		s := &session{clientID: "changes"}
		var stop atomic.Bool
		var changes int
		stopped := make(chan struct{})
		go func() { // ends with the benchmark
			defer close(stopped)
			for ; !stop.Load(); changes += 2 {
				x.add("devices/changes/commands/#", s)
				x.remove("devices/changes/commands/#", s)
			}
		}()
		b.ResetTimer()
		b.RunParallel(func(p *testing.PB) {
			topic := []byte("devices/device-0000000/commands/reboot")
			for i := rand.IntN(devices); p.Next(); i = (i + 7919) % devices {
				copy(topic[len("devices/"):], sessions[i].clientID)
				if x.match(topic) != 1 {
					b.Error("not found")
					return
				}
			}
		})
		b.StopTimer()
		stop.Store(true)
		<-stopped
		b.ReportMetric(float64(changes)/float64(b.N), "changes/match")
		b.ReportMetric(float64(changes)/b.Elapsed().Seconds(), "changes/s")
	})
}

// BenchmarkIndexMemory reports the heap that a subscription takes, without the caller's filter and session.
func BenchmarkIndexMemory(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("devices=%d", n), func(b *testing.B) {
			eachIndex(b, func(b *testing.B, x benchIndex) {
				filters, sessions := ownFilters(n)
				var bytes int64
				for range b.N {
					bytes = heapGrowth(func() {
						for i, f := range filters {
							x.add(f, sessions[i])
						}
					})
					b.StopTimer()
					for i, f := range filters {
						x.remove(f, sessions[i])
					}
					b.StartTimer()
				}
				b.ReportMetric(float64(bytes)/float64(n), "B/subscription")
				runtime.KeepAlive(filters)
			})
		})
	}
}
