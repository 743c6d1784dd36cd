package kafka

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

// BenchmarkMemoryOfATopic measures what a partition costs this process once it was used.
func BenchmarkMemoryOfATopic(b *testing.B) {
	const topics, partitions = 200, 12
	c := fake(b, kfake.DefaultNumPartitions(partitions))
	cfg := testConfig(c.ListenAddrs())
	cfg.CreateTopics = &CreateTopics{}
	p := start(b, cfg)
	var before, after runtime.MemStats
	l := newLedger()
	n := 0
	fill := func(first, last int) {
		for i := first; i < last; i++ {
			for range 100 {
				p.Produce(l.record(n, fmt.Sprint("t", i), fmt.Sprint("k", n)))
				n++
			}
		}
		eventually(b, func() bool { return l.count() == n }, "all are stored")
		l = newLedger()
		n = 0
	}
	fill(0, 1)
	runtime.GC()
	runtime.ReadMemStats(&before)
	for b.Loop() {
		fill(1, topics)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := float64(after.HeapAlloc+after.StackInuse) - float64(before.HeapAlloc+before.StackInuse)
	b.ReportMetric(used/(topics-1)/partitions, "bytes/partition")
}
