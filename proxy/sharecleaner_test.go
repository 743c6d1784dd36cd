package proxy

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/kafka"
	"sluice/kafka/kafkatest"
)

// TestGroupsThatNobodyUsesAreRemoved after a while without members: those of shares, and of this fleet.
func TestGroupsThatNobodyUsesAreRemoved(t *testing.T) {
	t.Parallel()
	k := cluster(t)
	a := share(t, k)
	one, two := dial(t, a.addr, "one", false), dial(t, a.addr, "two", false)
	one.subscribe("$share/stays/t/#", 1)
	two.subscribe("$share/goes/t/#", 1)
	a.joined(one)
	admin := kafkatest.NewAdmin(t, k.Brokers())
	var foreign kafkatest.Offsets
	foreign.AddOffset("cmds", 0, 0, -1)
	require.NoError(t, admin.CommitAllOffsets(t.Context(), "other-fleet-share-x", foreign))
	states := func() map[string]string {
		groups, err := admin.ListGroups(t.Context())
		require.NoError(t, err)
		all := map[string]string{}
		for _, g := range groups.Sorted() {
			all[g.Group] = g.State
		}
		return all
	}
	goes, stays := a.shares.groupName("goes", "t/#"), a.shares.groupName("stays", "t/#")
	until(t, "both are there", func() bool { s := states(); return s[goes] == "Stable" && s[stays] == "Stable" })
	require.NoError(t, two.depart())
	until(t, "one is empty", func() bool { return states()[goes] == "Empty" })

	groups, err := kafka.NewGroups(a.shares.cfg)
	require.NoError(t, err)
	t.Cleanup(groups.Close)
	c := &shareCleaner{s: a.shares, groups: groups}
	began := time.Now()
	require.NoError(t, c.look(t.Context(), began))
	require.NoError(t, c.look(t.Context(), began.Add(a.shares.kept-time.Second)))
	require.Contains(t, states(), goes, "it may be used again")
	require.NoError(t, c.look(t.Context(), began.Add(a.shares.kept)))
	left := states()
	require.NotContains(t, left, goes)
	require.Contains(t, left, stays)
	require.Contains(t, left, "other-fleet-share-x")

	removed, err := groups.Remove(t.Context(), stays)
	require.NoError(t, err)
	require.False(t, removed, "it has members")
	removed, err = groups.Remove(t.Context(), goes)
	require.NoError(t, err)
	require.False(t, removed, "it is gone")
}
