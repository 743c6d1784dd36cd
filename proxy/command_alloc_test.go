//go:build !race

package proxy

import (
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/kafka"
)

// Not under the race detector, which makes sync.Pool forget at random.

// TestTranslateAllocations: the command, the key, all other bytes; further the two client IDs and the list of User
// Properties where there are any.
func TestTranslateAllocations(t *testing.T) {
	tr, _ := translating(t, configured(t, commandsForTests))
	f := func(want float64, r *kafka.Fetched) {
		t.Helper()
		require.Equal(t, want, testing.AllocsPerRun(1000, func() { _, _ = tr.translate(r) }))
	}
	f(3, recordOf("fixed", "key", "value"))
	f(6, everything())
}

func BenchmarkTranslate(b *testing.B) {
	tr, _ := translating(b, configured(b, commandsForTests))
	for _, r := range []*kafka.Fetched{recordOf("fixed", "key", "value"), everything()} {
		b.Run(r.Topic, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = tr.translate(r)
			}
		})
	}
}
