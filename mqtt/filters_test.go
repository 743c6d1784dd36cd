package mqtt

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRefusedFilterCostsItsCode: a packet of a hundred thousand filters makes no list of them.
func TestRefusedFilterCostsItsCode(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxSubscriptions = 1 })
	c := &Conn{srv: w.s, version: 5, session: &session{clientID: "dev"}}
	c.identity.Store(&Identity{})
	const n = 60_000
	measured := func(what string, f func(body []byte) (filterList, error), body []byte, each func(l filterList)) {
		t.Helper()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		l, err := f(body)
		require.NoError(t, err)
		require.Equal(t, n, l.n)
		each(l)
		runtime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(2*n), what)
	}
	require.Equal(t, Success, c.answerFilter([]byte("taken"), subscription{}))
	filter := cat(str("xy"), 1)
	measured("SUBSCRIBE", c.decodeSubscribe, cat(uint16(1), props(), bytes.Repeat(filter, n)), func(l filterList) {
		for r := (cursor{b: l.b}); len(r.b) > 0; {
			require.True(t, c.answerFilter(r.binary(), subscriptionOf(r.byte(), 0)) == QuotaExceeded)
		}
	})
	measured("UNSUBSCRIBE", c.decodeUnsubscribe, cat(uint16(1), props(), bytes.Repeat(str("xy"), n)), func(l filterList) {
		for r := (cursor{b: l.b}); len(r.b) > 0; {
			require.True(t, c.revoke(r.binary()) == NoSubscriptionExisted)
		}
	})
}

// TestFilterOfManyLevelsIsCheckedWithoutMemory: it may have as many as it has bytes.
func TestFilterOfManyLevelsIsCheckedWithoutMemory(t *testing.T) {
	filter := cat("$share/a-name-of-a-group-that-is-long/", bytes.Repeat([]byte("/+"), 30_000), "/#")
	require.Zero(t, testing.AllocsPerRun(10, func() {
		if !validFilter(filter) {
			t.Fatal("it is valid")
		}
	}))
}

// TestPacketWithOneBadFilterChangesNothing: also the filters before it.
func TestPacketWithOneBadFilterChangesNothing(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		w.device(v, "other").subscribe("kept", 0)
		for _, bad := range []string{"a/#/b", "a+", ""} {
			c := w.device(v, fmt.Sprint("dev", bad))
			c.send(packet(0x82, uint16(1), c.none(), str("good"), 1, str(bad), 1))
			c.goodbye(MalformedPacket)
			require.Equal(t, 1, w.s.index.len())
		}
	})
}
