package driver

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWhatIsHeardIsBounded, in commands and in bytes: a client ID may have 64 KB, and a command names any.
func TestWhatIsHeardIsBounded(t *testing.T) {
	f := func(clients, length, perClient int, least, most int) {
		t.Helper()
		var a heards
		kept := func() (commands, bytes int) {
			for _, all := range []map[string]*heard{a.before, a.now} {
				for client, h := range all {
					commands, bytes = commands+len(h.open), bytes+len(client)
				}
			}
			return commands, bytes
		}
		for i := range clients {
			for at := range perClient {
				a.add(fmt.Sprint(strings.Repeat("x", length), i), heardMark{stream: 1, offset: int64(i*perClient + at)}, true)
			}
		}
		commands, bytes := kept()
		require.GreaterOrEqual(t, commands, least)
		require.LessOrEqual(t, commands, most)
		require.Less(t, bytes, 512<<10)
		require.True(t, a.isOpen(fmt.Sprint(strings.Repeat("x", length), clients-1)), "the last")
	}
	f(10_000, 10, 1, heardKept, 2*heardKept)
	f(3, 10, 10_000, heardKept, 2*heardKept)
	f(1000, 65_000, 1, 2, 10)
	f(3, 65_000, 10_000, heardKept/2, 2*heardKept)
}

// TestWhatIsHeardHoldsNoCommand longer than it is in doubt: its place is all that is kept.
func TestWhatIsHeardHoldsNoCommand(t *testing.T) {
	var a heards
	q := &Quest{ClientID: "d1", Stream: 1, Offset: 5}
	a.add(q.ClientID, heardMark{stream: 1, offset: 5, doubt: q}, true)
	a.resolve(q)
	for _, h := range a.of("d1") {
		for _, m := range append(h.last, h.open...) {
			require.Nil(t, m.doubt)
		}
	}
	require.True(t, a.has(q))
}
