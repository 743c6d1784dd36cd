package driver

import (
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/fleet"
)

const forever = fleet.NeverExpires

// TestTellersBoth: the session that is replaced is stored and has subscribed to the command, which waits for it: who opens the new
// session tells that it has ended with the command, and must not tell too that nobody wanted it.
func TestTellersBoth(t *testing.T) {
	telling(t, []string{"A", "B"}, func(t *testing.T, w *world) {
		a, b := w.nodes[0], w.nodes[1]
		a.owns()
		a.open(true, forever)
		a.subscribe()
		a.settle()
		b.catchUp()
		b.claims(true, forever)
		require.Len(t, b.records, 1, "the record that begins the session")
		w.written()
		b.command() // read while it is on its way
		b.land()
		b.catchUp()
		require.NotNil(t, b.dev.conn)
		a.catchUp()
		a.leave()
	})
}

// TestTellersNone: the device subscribes before the last word on the session before is there.
func TestTellersNone(t *testing.T) {
	telling(t, []string{"A", "B"}, func(t *testing.T, w *world) {
		a, b := w.nodes[0], w.nodes[1]
		a.owns()
		a.open(true, 0)
		a.settle()
		b.catchUp()
		b.claims(true, forever)
		w.written()
		b.command()
		b.land()
		b.catchUp()
		require.NotNil(t, b.dev.conn)
		b.subscribe()
		b.settle()
		a.catchUp()
		a.leave()
		w.over()
		require.Empty(t, w.given)
	})
}

// TestTellersClaim: the command was left to a claim of which the session was not read yet; who opens the next session tells of it at
// once, though the session that came of the claim has told, or has given it to the device.
func TestTellersClaim(t *testing.T) {
	for _, subscribed := range []bool{false, true} {
		tellingOf(t, fmt.Sprint("subscribed ", subscribed), []string{"A", "B"}, func(t *testing.T, w *world) {
			a, b := w.nodes[0], w.nodes[1]
			a.owns()
			b.connect(true, 0)
			b.land()
			a.catchUp() // the claim
			b.settle()
			require.NotNil(t, b.dev.conn)
			if subscribed {
				b.subscribe()
				b.settle()
			}
			w.written()
			b.command() // it has the only connection that there is, and tells
			require.Len(t, w.receipts[0], 1)
			a.command() // it is left to who has the claim
			a.open(true, 0)
		})
	}
}

// TestTellersGivenUp: the command was read while the record of an attempt was on its way that is given up. Its instance and who looks
// after the partition tell.
func TestTellersGivenUp(t *testing.T) {
	telling(t, []string{"A", "B"}, func(t *testing.T, w *world) {
		a, b := w.nodes[0], w.nodes[1]
		a.owns()
		a.open(true, 0)
		a.settle()
		b.catchUp()
		b.claims(true, 0)
		w.written()
		b.command() // left to the connection of A
		b.giveUp()
		b.settle()
		a.catchUp()
		a.leave() // it has not read the command
	})
}

// TestTellersLeft: the session has ended before the last word on the one before. Its last word does not say that its instance is to
// tell of the command.
func TestTellersLeft(t *testing.T) {
	telling(t, []string{"A", "B", "O"}, func(t *testing.T, w *world) {
		a, b, o := w.nodes[0], w.nodes[1], w.nodes[2]
		o.owns()
		a.open(true, 0)
		a.settle()
		b.catchUp()
		b.claims(true, 0)
		w.written()
		b.command() // left to the connection of A
		b.settle()
		require.NotNil(t, b.dev.conn)
		b.leave()
		b.settle()
		a.catchUp()
		a.leave() // it has not read the command
	})
}

// TestTellersMoved: the session goes on at a third instance before the last word on the one before: its positions lie behind the
// command by then, though nobody has told of it.
func TestTellersMoved(t *testing.T) {
	telling(t, []string{"A", "B", "C"}, func(t *testing.T, w *world) {
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		a.owns()
		a.open(true, 0)
		a.settle()
		b.catchUp()
		b.claims(true, 3600)
		w.written()
		b.command() // left to the connection of A
		b.settle()
		require.NotNil(t, b.dev.conn)
		b.dev.joined = 1 // it has subscribed to something else
		b.leave()
		b.settle()
		c.catchUp()
		c.open(false, 3600)
		require.True(t, c.dev.conn.Present)
		b.catchUp()
		a.catchUp()
		a.leave() // it has not read the command
	})
}

// TestTellersPastReplaced: a second clean start comes before the last word on the session that the first one has taken the place of.
// Nobody tells of what waited for that.
func TestTellersPastReplaced(t *testing.T) {
	for _, givenUp := range []bool{false, true} {
		tellingOf(t, fmt.Sprint("given up ", givenUp), []string{"A", "B"}, func(t *testing.T, w *world) {
			a, b := w.nodes[0], w.nodes[1]
			a.owns()
			a.open(true, 3600)
			a.subscribe()
			a.settle()
			w.written()
			b.catchUp()
			b.command() // it waits for the session of A, which has not come to it
			b.claims(true, 0)
			if givenUp {
				b.giveUp()
			} else {
				b.settle()
				require.NotNil(t, b.dev.conn)
				b.leave()
			}
			b.connect(true, 0)
			for b.at != nil {
				b.step()
			}
			a.catchUp()
			a.leave()
		})
	}
}

// TestTellersPastIdle: the session that a clean start has begun has ended before the last word on the one before. What waited for that
// by the last that its instance had written is told of, though it was given to the device since.
func TestTellersPastIdle(t *testing.T) {
	telling(t, []string{"A", "B"}, func(t *testing.T, w *world) {
		a, b := w.nodes[0], w.nodes[1]
		a.owns()
		a.open(true, 3600)
		a.subscribe()
		a.settle()
		w.written()
		a.command()
		require.Equal(t, 1, w.given[0])
		b.catchUp()
		b.command()
		b.open(true, 0)
		b.leave()
		b.settle()
		a.catchUp()
		a.leave()
	})
}

// TestTellersGap: a command in a gap of a session waited for it and was replayed to the device. Who looks after the partition reads it
// when the session has ended, alone or with another one that has begun since, and takes it for one that nobody was offered.
func TestTellersGap(t *testing.T) {
	for _, again := range []bool{false, true} {
		tellingOf(t, fmt.Sprint("again ", again), []string{"A", "B", "O"}, func(t *testing.T, w *world) {
			a, b, o := w.nodes[0], w.nodes[1], w.nodes[2]
			o.owns()
			a.open(true, 3600)
			a.subscribe()
			a.settle()
			a.leave()
			a.settle()
			w.written()
			b.catchUp()
			b.command() // it waits for the session
			b.open(false, 3600)
			require.Equal(t, 1, w.given[0])
			b.dev.expiry = 0
			b.leave()
			b.settle()
			if again {
				b.open(true, 0)
				b.settle()
			}
		})
	}
}

// TestTellersRecursion: a record whose began is above its state, which no release writes and the table takes in, ends the process of
// all who read it with a stack overflow.
func TestTellersRecursion(t *testing.T) {
	if os.Getenv("SLUICE_RECURSION") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=TestTellersRecursion$")
		cmd.Env = append(os.Environ(), "SLUICE_RECURSION=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%.300s", out)
		return
	}
	debug.SetMaxStack(1 << 20)
	_, d := beginning()
	host := new(lagging)
	d.host = host
	write := func(inc string, s fleet.Session) {
		value, err := s.Encode()
		require.NoError(t, err)
		host.read(d, fleet.SessionKey("d1", inc), value)
	}
	write("before", fleet.Session{Claim: 1, StateEpoch: 1, Began: 1})
	require.Equal(t, Elsewhere, d.Seek(&Quest{ClientID: "d1", Stream: 1, Offset: 5, Subscribed: awaits}))
	write("after", fleet.Session{Claim: 2, StateEpoch: 2, Began: 9, Ended: true, Released: true})
}

// TestTellersBirth: a command came before a session of a third instance, and waited for the one before. It tells, and so does who has
// the next one.
func TestTellersBirth(t *testing.T) {
	telling(t, []string{"A", "B", "C"}, func(t *testing.T, w *world) {
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		b.owns()
		a.open(true, 3600)
		a.subscribe()
		a.settle()
		c.catchUp()
		w.written()
		c.command() // left to the connection of A
		c.open(true, 3600)
		c.settle()
		b.catchUp()
		b.claims(true, 0)
		b.command() // it came before the session of C
		b.settle()
		require.NotNil(t, b.dev.conn)
		a.catchUp()
		a.leave() // it has not read the command
	})
}

// TestTellersLeftOffered: the session before has given the command to the device. The session after it, whose instance had read the
// command behind its own record, does not say so, and who had left the command to that one tells.
func TestTellersLeftOffered(t *testing.T) {
	telling(t, []string{"A", "B", "O"}, func(t *testing.T, w *world) {
		a, b, o := w.nodes[0], w.nodes[1], w.nodes[2]
		o.owns()
		a.open(true, 3600)
		a.subscribe()
		a.settle()
		b.catchUp()
		w.written()
		a.command()
		require.Equal(t, 1, w.given[0])
		b.claims(true, 0)
		b.command() // left to the connection of A
		b.settle()
		require.NotNil(t, b.dev.conn)
		o.catchUp()
		o.command() // left to the connection of B
		a.catchUp()
		a.leave()
		a.settle()
		b.catchUp()
		b.leave()
	})
}

// TestTellersPastAndOver: the session that a clean start has begun has expired when the last word on the one before comes: it ends
// once.
func TestTellersPastAndOver(t *testing.T) {
	telling(t, []string{"A", "B"}, func(t *testing.T, w *world) {
		a, b := w.nodes[0], w.nodes[1]
		b.owns()
		a.open(true, 3600)
		a.settle()
		b.catchUp()
		b.open(true, 1)
		b.subscribe()
		b.settle()
		b.leave()
		b.settle()
		w.written()
		b.command() // it waits for the session
		time.Sleep(2 * time.Second)
		a.catchUp()
		a.leave()
	})
}

// TestTellersAtAnEndWithTheNextUnread: the owner has left a command to a connection elsewhere, whose end it reads, and not yet that the
// device has connected there again and that the command was told of.
func TestTellersAtAnEndWithTheNextUnread(t *testing.T) {
	for i := range 4 {
		subscribed, over := i&1 > 0, i&2 > 0
		tellingOf(t, fmt.Sprint("subscribed ", subscribed, ", over ", over), []string{"A", "B"}, func(t *testing.T, w *world) {
			a, b := w.nodes[0], w.nodes[1]
			a.owns()
			b.open(true, 0)
			b.settle()
			a.catchUp()
			b.leave()
			b.settle()
			b.open(true, 0)
			if subscribed {
				b.subscribe()
				b.settle()
			}
			w.written()
			b.command() // it is for the connection that there is
			require.Len(t, w.receipts[0], 1)
			if over { // and removed
				b.leave()
				b.settle()
			}
			a.command() // left to the one before
			a.read()    // the end of that
		})
	}
}
