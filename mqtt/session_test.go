package mqtt

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func newConn() *Conn { return &Conn{srv: &Server{}} }

func TestHolderAndItsEndAreSeenTogether(t *testing.T) {
	r := newRegistry(10)
	a, b, c := newConn(), newConn(), newConn()
	s := r.attach(a, "dev", false, 100).session
	waits := r.attach(b, "dev", false, 100)
	require.Equal(t, a, waits.old)
	require.NotNil(t, waits.gone, "b waits")
	r.detach(s, nil, 0)
	<-waits.gone
	require.True(t, r.attach(c, "dev", false, 100).present) // c was faster than b
	waits = r.attach(b, "dev", false, 100)
	require.Equal(t, c, waits.old)
	require.NotNil(t, waits.gone, "b waits again, for c")
}

func TestStoredSessionsExpireNotBeforeTheirTime(t *testing.T) {
	r := newRegistry(10)
	s := r.attach(newConn(), "dev", false, 10).session
	before := time.Now()
	r.detach(s, &Message{}, 5)
	after := time.Now()
	due, _ := r.sweep(before.Add(5*time.Second-time.Millisecond), false)
	require.Empty(t, due, "not before the Will Delay Interval has passed [MQTT-3.1.3-9]")
	due, _ = r.sweep(after.Add(5*time.Second+time.Millisecond), false)
	require.Len(t, due, 1)
	r.sweep(before.Add(10*time.Second-time.Millisecond), false)
	require.Equal(t, 1, r.storedCount())
	r.sweep(after.Add(10*time.Second+time.Millisecond), false)
	require.Zero(t, r.storedCount())
}

func TestExpiredSessionIsNotPresentThoughNobodySwept(t *testing.T) {
	r := newRegistry(10)
	s := r.attach(newConn(), "dev", false, 10).session
	will := &Message{}
	due, ended := r.detach(s, will, 1000)
	require.Nil(t, due)
	require.False(t, ended)
	s.endsAt = time.Now().Add(-time.Second).UnixMilli()
	again := r.attach(newConn(), "dev", false, 10)
	require.False(t, again.present)
	require.Same(t, s, again.replaced)
	require.Same(t, will, again.due, "its session ended, so the will is due")
	require.Zero(t, r.storedCount())
}

func TestSessionThatNeverExpires(t *testing.T) {
	r := newRegistry(10)
	s := r.attach(newConn(), "dev", false, neverExpires).session
	r.detach(s, nil, 0)
	r.sweep(time.Now().AddDate(900, 0, 0), false)
	require.Equal(t, 1, r.storedCount())
	s = r.attach(newConn(), "dev", false, neverExpires-1).session
	r.detach(s, nil, 0)
	r.sweep(time.Now().Add((neverExpires-2)*time.Second), false)
	require.Equal(t, 1, r.storedCount())
	r.sweep(time.Now().Add(neverExpires*time.Second), false)
	require.Zero(t, r.storedCount())
}

func TestStoredSessionsAreBoundedExactly(t *testing.T) {
	r := newRegistry(7)
	for i := range 20 {
		s := r.attach(newConn(), fmt.Sprint(i), false, 100).session
		will := &Message{}
		due, ended := r.detach(s, will, 50)
		require.Equal(t, i >= 7, ended)
		require.Equal(t, i >= 7, due == will, "the will of a session that is not stored is due at once")
		require.Equal(t, min(i+1, 7), r.storedCount())
	}
	require.False(t, r.attach(newConn(), "3", true, 0).present) // back, and clean
	require.Equal(t, 6, r.storedCount())
}

// connOfTest is a Conn of a Server that nobody connects to.
func connOfTest() *Conn { return &Conn{srv: &Server{cfg: DefaultConfig()}} }

func TestLateOutcomeOfAForgottenMessageSettlesNoOther(t *testing.T) {
	s := &session{}
	c := connOfTest()
	first, second := &Message{id: 1, conn: c}, &Message{id: 1, conn: c}
	require.Equal(t, receivedFirst, s.receive(first).how)
	s.forget(1, first)
	require.Equal(t, receivedFirst, s.receive(second).how)
	s.settle(first, outcome{state: slotAcked})
	require.Equal(t, receivedAgain, s.receive(&Message{id: 1, conn: c}).how, "the second is still awaited")
	s.settle(second, outcome{state: slotAcked})
	require.Equal(t, receivedStored, s.receive(&Message{id: 1, conn: c}).how)
}

func TestFewerStoredIDsHoldNoMap(t *testing.T) {
	s := &session{}
	c := connOfTest()
	m := &Message{id: 1, conn: c}
	s.receive(m)
	s.settle(m, outcome{state: slotAcked})
	require.True(t, s.release(1, c.srv))
	require.Nil(t, s.received)
	require.False(t, s.release(1, c.srv))
}

func TestNoSessionIsStoredWhenNoneMayBe(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.SessionExpiryMax = 0 })
		c := w.stored(v, "dev")
		if v == 5 {
			require.Equal(t, "\x00\x00\x00\x00", serverProps(t, c.connack[2:])[0x11], "the device is told")
			c.send(packet(0xE0, 0, props(0x11, uint32(60)))) // legal: CONNECT asked for more than 0 [MQTT-3.14.2-2]
		} else {
			c.send(packet(0xE0))
		}
		c.closed()
		w.ended()
		require.Zero(t, w.s.sessions.storedCount())
		require.False(t, w.stored(v, "dev").present())
	})
}

// TestSubscriptionExcludesOnlyWhatItsDevicePublishedBefore whatever the clock does, and all of it while that goes on.
func TestSubscriptionExcludesOnlyWhatItsDevicePublishedBefore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &session{clientID: "dev"}
		clock, back := time.UnixMilli(1_700_000_000_000), rapid.IntRange(0, 1).Draw(t, "back")*2_000_000
		var subs []subscriber
		var published []*Command
		made := map[*Command]int{} // how many subscriptions there were
		for range rapid.IntRange(1, 40).Draw(t, "packets") {
			clock = clock.Add(time.Duration(rapid.IntRange(-back, 2_000_000).Draw(t, "step")/rapid.SampledFrom([]int{1, 1000, 1_000_000}).Draw(t, "scale")) * time.Microsecond)
			if rapid.Bool().Draw(t, "subscribe") {
				subs = append(subs, subscriber{s, subscription{origin: s.begin(clock)}})
			} else {
				at := s.timeOf(clock)
				require.LessOrEqual(t, at.Sub(clock).Abs(), stepBack)
				c := &Command{From: "dev", Published: at.UnixMilli()}
				published, made[c] = append(published, c), len(subs)
			}
			for _, c := range published {
				for i, sub := range subs {
					switch before := i >= made[c]; {
					case !before:
						require.False(t, sub.excludes(c), "published after it")
					case back == 0:
						require.True(t, sub.excludes(c), "published before it")
					}
				}
			}
		}
	})
}

// A deaf Keeper is told what is to be stored, and the test stores it.
type deaf struct{ Keeper }

func (deaf) Changed() {}

func (deaf) Streams() ([]int32, func(int32) (int64, bool)) { return nil, nil }

// TestStoredSubscriptionExcludesOnlyWhatItsDevicePublishedBefore: the session goes from one server to another, whose clock
// is ahead or behind, with what was stored of it last, and clocks are set.
func TestStoredSubscriptionExcludesOnlyWhatItsDevicePublishedBefore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clock, skew := time.UnixMilli(1_700_000_000_000), time.Duration(0)
		most := rapid.SampledFrom([]int{0, 5, 900, 5000}).Draw(t, "most skew")
		var stored Snapshot
		var s *session
		var o *outbox
		open := func(state Snapshot) {
			s, stored = &session{clientID: "dev"}, state
			for i, sub := range stored.Subscriptions {
				if sub.Origin != nil && sub.Origin.At > clock.Add(skew+stepBack).UnixMilli() {
					stored.Subscriptions[i].Origin = nil // as who opens a session does
				}
			}
			s.restoreFloor(stored.Subscriptions)
			o = newOutbox(new(Server), s)
			o.durable, o.keeper = true, deaf{}
			for _, sub := range stored.Subscriptions {
				o.subs = append(o.subs, filterRequest{sub.Filter, subscription{origin: sub.Origin}})
			}
			o.behind = map[int32]lag{1: {}} // something is open all the time
			s.outbox.Store(o)
		}
		save := func() {
			stored = s.snapshotOf()
			o.stored(stored.Version)
		}
		open(Snapshot{})
		type message struct {
			*Command
			filters map[string]bool // that were there
		}
		var published []message
		n := 0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			clock = clock.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "pause")) * 100 * time.Microsecond)
			switch rapid.IntRange(0, 6).Draw(t, "step") {
			case 0, 1:
				n++
				o.subs = append(o.subs, filterRequest{fmt.Sprint(n), subscription{origin: s.begin(clock.Add(skew))}})
				o.changed()
				save() // and SUBACK
			case 2:
				save()
			case 3: // a crash, or a takeover
				skew = time.Duration(rapid.IntRange(-most, most).Draw(t, "skew")) * time.Millisecond
				open(stored)
			case 4:
				skew = time.Duration(rapid.IntRange(-most, most).Draw(t, "skew")) * time.Millisecond
			default:
				at := s.timeOf(clock.Add(skew))
				m := message{&Command{From: "dev", Published: at.UnixMilli()}, map[string]bool{}}
				for _, sub := range o.subs {
					m.filters[sub.filter] = true
				}
				published = append(published, m)
			}
			for _, m := range published {
				for _, sub := range o.subs {
					switch excluded := (&subscriber{s, sub.subscription}).excludes(m.Command); {
					case m.filters[sub.filter]:
						require.False(t, excluded, "published after it")
					case most == 0:
						require.True(t, excluded, "published before it")
					}
				}
			}
		}
	})
}

// snapshotOf is the session's snapshot.
func (s *session) snapshotOf() Snapshot { return (&Session{session: s}).Snapshot(nil, nil) }
