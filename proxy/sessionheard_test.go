package proxy

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/fleet/driver"
	"sluice/kafka"
	"sluice/mqtt"
)

// TestCommandLeftToAConnectionElsewhereIsToldOf if the instance that has the connection reads it only when that is over, by who
// tells of absent devices and has read it before; once, wherever the device goes on.
func TestCommandLeftToAConnectionElsewhereIsToldOf(t *testing.T) {
	for name, c := range map[string]struct {
		begin, again connecting
		expiry       uint32
		want         string
	}{
		"stored":                    {begin: lasting(""), expiry: 3600, want: "dropped not_subscribed"},
		"stored, resumed elsewhere": {begin: lasting(""), expiry: 3600, again: lasting(""), want: "dropped not_subscribed"},
		"ended":                     {begin: lasting(""), want: "offline not_connected"},
		"never stored":              {begin: connecting{clean: true}, want: "offline not_connected"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			all := fleetOf(t, 3, toOne)
			holder, owner := all[0], all[1]
			c.begin.id = ""
			for i := 0; c.begin.id == "" || owner.sessions.driver.Owns(c.begin.id) != driver.Mine; i++ {
				c.begin.id = fmt.Sprint("d", i)
			}
			id := c.begin.id
			want := []string{fmt.Sprintf("%s %s offline not_connected (first)", id, id)}
			holder.write(now("commands", id, "x", "name", "x", "id", "first"))
			first := holder.became(want...)[0]
			st := func(in *instance) *stream { return in.sessions.streams.of("commands", first.Partition) }
			read := func(in *instance, n int64) {
				t.Helper()
				in.until("it is read", func() bool { return st(in).next.Load() > first.Offset+n })
			}
			for _, in := range all {
				read(in, 0)
			}
			d := c.begin.to(t, holder.addr, false)
			d.subscribe("devices/+/y", 1)
			owner.until("the session is known", func() bool { _, connected := owner.sessions.driver.Whereabouts(id, millis()); return connected })
			st(holder).mu.Lock()
			holder.write(now("commands", id, "x", "name", "x", "id", "second"))
			read(owner, 1)
			d.disconnects(c.expiry)
			want = append(want, fmt.Sprintf("%s %s %s (second)", id, id, c.want))
			holder.became(want...)
			if c.again.id = id; c.again.expiry > 0 {
				c.again.to(t, all[2].addr, true)
			}
			st(holder).mu.Unlock()
			read(holder, 1)
			for _, in := range all {
				in.stop()
			}
			holder.became(want...)
		})
	}
}

// TestCommandReadBeforeItsSessionIsResumedIsToldOf by who tells of absent devices, though that one reads it when the session is
// open, there or by then here, or has come and gone.
func TestCommandReadBeforeItsSessionIsResumedIsToldOf(t *testing.T) {
	for name, then := range map[string]func(all []*instance, id string){
		"open there": func([]*instance, string) {},
		"come here":  func(all []*instance, id string) { lasting(id).to(all[1].t, all[1].addr, true) },
		"gone": func(all []*instance, id string) {
			lasting(id).to(all[0].t, all[0].addr, true).leave()
			seenAway(all, id)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			all := fleetOf(t, 2, toOne)
			holder, owner := all[0], all[1]
			id, want, next, release := lags(all)
			d := lasting(id).to(t, holder.addr, false)
			d.subscribe("devices/+/y", 1)
			d.leave()
			seenAway(all, id)
			holder.write(now("commands", id, "x", "name", "x", "id", "second"))
			holder.until("the other one has read it", func() bool { return next(holder) > 0 })
			lasting(id).to(t, holder.addr, true)
			owner.until("the session is known", func() bool { _, connected := owner.sessions.driver.Whereabouts(id, millis()); return connected })
			then(all, id)
			release()
			want = append(want, fmt.Sprintf("%s %s dropped not_subscribed (second)", id, id))
			holder.becameForGood(all, want...)
		})
	}
}

// TestCommandInAGapIsToldOfOnceThoughAReplayIsAhead: who hands it to the devices that are here tells of it, also if the session
// has left by then.
func TestCommandInAGapIsToldOfOnceThoughAReplayIsAhead(t *testing.T) {
	in := prepare(t, 1, toOne)
	var gap atomic.Bool
	in.commands.skipped = func(*command) (skipped, tells bool) { return gap.Load(), gap.Load() }
	in.serve()
	d := lasting("d1").to(t, in.addr, false)
	d.subscribe("devices/+/y", 1)
	d.leave()
	st := in.sessions.streams.of("commands", 0)
	st.mu.Lock() // so that the replay goes on
	lasting("d1").to(t, in.addr, true)
	next := st.next.Load()
	command := func(id string) *command {
		r := now("commands", "d1", "x", "name", "x", "id", id)
		r.Partition, r.Offset = 0, next
		cmd, err := in.commands.translate(r)
		require.NoError(t, err)
		cmd.Place = mqtt.Place{Stream: st.id, Offset: next}
		return cmd
	}
	in.until("the replay is ahead", func() bool {
		in.commands.replayAt(command("first"), true)
		return in.value("sluice_command_receipts_total", "stored") > 0
	})
	next++
	gap.Store(true)
	in.commands.replayAt(command("second"), true)
	in.commands.send(command("second"))
	st.mu.Unlock()
	in.stop()
	in.became("d1 d1 dropped not_subscribed (first)", "d1 d1 dropped not_subscribed (second)")
}

// TestCommandOfATopicThatIsNoMoreIsNotToldOf by the record that has its place in the one that took the topic's name.
func TestCommandOfATopicThatIsNoMoreIsNotToldOf(t *testing.T) {
	in := begin(t, 1, toOne)
	in.write(now("commands", "d1", "x", "name", "x", "id", "first"))
	want := "d1 d1 offline not_connected (first)"
	in.became(want)
	st := in.sessions.streams.of("commands", 0)
	in.commands.begin("commands", "another", 0, 0)
	in.sessions.Unwanted("d1", st.id, 0, nil)
	in.stop()
	in.became(want)
}

// TestCommandReadBeforeACleanStartIsToldOf once: by who opens the new session if it waited for the one before, else by who tells of
// absent devices, though that one reads it last.
func TestCommandReadBeforeACleanStartIsToldOf(t *testing.T) {
	for name, c := range map[string]struct {
		filter, want string
		before       int
	}{
		"not for it":                   {"y", "dropped not_subscribed", 0},
		"not for it, left elsewhere":   {"y", "dropped not_subscribed", 2},
		"waited for it":                {"x", "offline session_ended", 0},
		"waited for it elsewhere":      {"x", "offline session_ended", 2},
		"not for it, left at owner":    {"y", "dropped not_subscribed", 1},
		"waited for it at the owner's": {"x", "offline session_ended", 1},
	} {
		for _, gone := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", gone ", gone), func(t *testing.T) {
				t.Parallel() // most of it is waiting
				all := fleetOf(t, 3, toOne)
				holder, owner := all[0], all[1]
				id, want, next, release := lags(all)
				d := lasting(id).to(t, all[c.before].addr, false)
				d.subscribe("devices/+/"+c.filter, 1)
				d.leave()
				seenAway(all, id)
				holder.write(now("commands", id, "x", "name", "x", "id", "second"))
				holder.until("the other ones have read it", func() bool { return next(holder) > 0 && next(all[2]) > 0 })
				d = connecting{id: id, expiry: 3600, clean: true}.to(t, holder.addr, false)
				owner.until("the session is known", func() bool { _, connected := owner.sessions.driver.Whereabouts(id, millis()); return connected })
				if gone {
					d.disconnects(0)
					seenAway(all, id)
				}
				release()
				want = append(want, fmt.Sprintf("%s %s %s (second)", id, id, c.want))
				holder.becameForGood(all, want...)
			})
		}
	}
}

// TestCommandReadBeforeATakeoverIsToldOf if the instance that is left has not read it, by who tells of absent devices: the session
// there ended with its connection.
func TestCommandReadBeforeATakeoverIsToldOf(t *testing.T) {
	for name, from := range map[string]int{"of who tells of absent devices": 1, "of another one": 2} {
		t.Run(name, func(t *testing.T) { testTakeover(t, from) })
	}
}

func testTakeover(t *testing.T, from int) {
	t.Parallel() // most of it is waiting
	all := fleetOf(t, 3, toOne)
	holder, owner, left := all[0], all[1], all[from]
	id, want, next, release := lags(all)
	d := connecting{id: id, clean: true}.to(t, left.addr, false)
	d.subscribe("devices/+/x", 1)
	holder.until("the session is known", func() bool { return holder.sessions.driver.Knows(id) })
	st := left.sessions.streams.of("commands", kafka.PartitionOf([]byte(id), 4))
	if left != owner { // which stands still
		st.mu.Lock()
	}
	holder.write(now("commands", id, "x", "name", "x", "id", "second"))
	holder.until("it is read there", func() bool { return next(holder) > 0 })
	after := lasting(id).to(t, holder.addr, false)
	after.subscribe("devices/+/y", 1)
	owner.until("the new session is known", func() bool {
		state, connected := owner.sessions.driver.Whereabouts(id, millis())
		return connected && state.Expiry > 0
	})
	d.ended(0x8E)
	if left != owner {
		st.mu.Unlock()
		left.until("it is read there too", func() bool { return next(left) > 0 })
	}
	release()
	want = append(want, fmt.Sprintf("%s %s offline not_connected (second)", id, id))
	holder.becameForGood(all, want...)
}
