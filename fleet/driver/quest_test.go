package driver

import (
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/fleet"
)

// TestCommandThatIsReadBeforeThePartitionsAreDividedIsDoubtful: perhaps this instance is about to look after its client's,
// and nobody else does. A partition that it is given later was another's until then.
func TestCommandThatIsReadBeforeThePartitionsAreDividedIsDoubtful(t *testing.T) {
	d := New(Config{})
	d.Lay(1)
	quest := func() *Quest {
		return &Quest{ClientID: "d1", Subscribed: func(*fleet.Session) bool { return false }}
	}
	q := quest()
	d.company.Store(true)
	require.Equal(t, Doubtful, d.Seek(q))
	require.Equal(t, Undecided, d.Owns("d1"))
	d.Joined()
	require.Equal(t, Elsewhere, d.Resolve(q), "another instance has the partition")
	require.Equal(t, Elsewhere, d.Seek(quest()))
	d.Assigned(0)
	require.Equal(t, Other, d.Owns("d1"), "work has not begun")
	require.Equal(t, Elsewhere, d.Seek(quest()))
	require.NotEqual(t, Mine, d.Turned("d1"))
}
