//go:build !race

package mqtt

import "testing"

// Not under the race detector, which makes sync.Pool forget at random.

// TestPublishAllocatesNothingPerMessage pins the hot path: a batch costs the growth of one output buffer and
// nothing for its messages.
func TestPublishAllocatesNothingPerMessage(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		const n = 32
		for qos := range 2 {
			c, packets := benchConn(t, v), batch(v, qos, n)
			allocs := testing.AllocsPerRun(200, func() {
				check(t, c.feed(packets))
				c.flush()
			})
			if allocs >= n/2 {
				t.Errorf("QoS %d: %v allocations for %d messages", qos, allocs, n)
			}
		}
	})
}
