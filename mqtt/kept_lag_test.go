package mqtt

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// restarts goes on at another server, which has read the first stream up to tail.
func (w *keptWorld) restarts(tail int64) *keptWorld {
	w = w.crash(nil)
	w.v.mu.Lock()
	defer w.v.mu.Unlock()
	w.v.next[1] = tail
	return w
}

// recorded gives the command of an offset of the first stream, as this server reads it.
func (w *keptWorld) recorded(at int64) *Command {
	w.v.mu.Lock()
	defer w.v.mu.Unlock()
	return w.v.copyOf(Place{1, at})
}

// readsOn has the server read the first stream from tail up to end, early or late: while the session is still replayed what
// it had not got, or after that.
func (w *keptWorld) readsOn(tail, end int64, early bool) (receipts []string) {
	live := func() {
		for ; tail < end; tail++ {
			c := w.recorded(tail)
			if reach := w.reach(c); reach == (Reach{Known: true}) {
				receipts = append(receipts, fmt.Sprintf("%d not subscribed", tail))
			}
			w.v.mu.Lock()
			w.v.next[1] = tail + 1
			w.v.mu.Unlock()
		}
	}
	if early {
		live()
	}
	s := w.v.keeper("dev").o.Session
	until(w.t, "its connection is there", func() bool { _, ok := s.At(1); return ok })
	at, ok := s.Join(1)
	for ok && !(at >= tail && s.GoLive(1, tail, false)) {
		require.Less(w.t, at, end)
		if c := w.recorded(at); !c.Connected {
			w.replay(c)
		}
		at++
		ok = s.Passed(1, at)
	}
	live()
	return receipts
}

// TestSessionAtAServerThatHasReadLess than the session has got: what is in flight or settled is not given again, whether it
// is replayed there or comes live, and what was for nobody is told of once.
func TestSessionAtAServerThatHasReadLess(t *testing.T) {
	const end = 8
	for _, variant := range []*Command{{}, {To: "dev"}, {Connected: true}, {To: "dev", Connected: true}} {
		for second := range int64(end + 1) {
			for _, third := range []int64{0, second} {
				for _, early := range []bool{false, true} {
					t.Run(fmt.Sprintf("to %q, connected %v, tails %d and %d, early %v", variant.To, variant.Connected, second, third, early), func(t *testing.T) {
						w := keeping(t, func(c *Config) { c.CommandsInFlight = 20 })
						c, _ := w.promptly(persistent(5, "dev"), 2)
						w.v.setPrompt(true)
						for i, qos := range []byte{1, 1, 2, 2, 2, 1, 0, 1} {
							topic := "t"
							if i == 7 {
								topic = "for nobody"
							}
							w.put(&Command{Topic: []byte(topic), Payload: fmt.Append(nil, i), QoS: qos, To: variant.To, Connected: variant.Connected, Place: Place{1, int64(i)}})
							if i < 7 {
								id := uint16(i + 1)
								if qos == 0 {
									id = 0
								}
								c.gets(i, 1, int(qos), id)
							}
						}
						c.send(puback(2), pubrec(4), pubrec(5))
						c.expect(pubrel(4), pubrel(5))
						c.send(pubcomp(5), puback(6))
						c.ping()
						again := func() {
							c.expect(command(0, 1, 1).again().packet(5), command(2, 2, 3).again().packet(5), pubrel(4))
							c.ping()
						}
						for i, tail := range []int64{second, third} {
							w.drop("dev")
							w = w.restarts(tail)
							c = w.stored(5, "dev")
							require.True(t, c.present())
							again()
							if i == 0 && early {
								continue // it is not there for long enough
							}
							require.Empty(t, w.readsOn(tail, end, early))
							c.ping()
						}
						k := w.v.keeper("dev")
						c.send(puback(1), pubrec(3))
						c.expect(pubrel(3))
						c.send(pubcomp(3), pubcomp(4))
						c.ping()
						w.put(&Command{Topic: []byte("t"), Payload: []byte("8"), QoS: 1, To: variant.To, Connected: variant.Connected, Place: Place{1, end}})
						c.gets(8, 1, 1, 1)
						c.send(puback(1))
						c.ping()
						s := k.snapshot()
						require.Empty(t, s.Flight)
						require.Empty(t, s.Done)
						require.Empty(t, s.Met)
						require.Equal(t, []Place{{1, end + 1}}, s.Next)
						require.Empty(t, k.o.Session.Behind())
					})
				}
			}
		}
	}
}

// TestSubscribeWhileTheReplayIsAhead of the commands that come by Send: what it has passed is not for the subscription, so
// somebody is told that, and what another server had met was told of there.
func TestSubscribeWhileTheReplayIsAhead(t *testing.T) {
	for name, live := range map[string]bool{"replayed still": false, "live": true} {
		for _, open := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, open %v", name, open), func(t *testing.T) {
				w := keeping(t, nil)
				for at := range int64(6) {
					topic := "u"
					if at == 0 {
						topic = "t"
					}
					w.v.records[Place{1, at}] = &Command{Topic: []byte(topic), QoS: 1, To: "dev"}
				}
				w.v.next[1] = 1
				s := Snapshot{Subscriptions: []Subscription{{Filter: "t", QoS: 1}}, Next: []Place{{1, 1}}, Met: []Place{{1, 3}}}
				if open {
					s.Next[0].Offset, s.Flight = 0, []Unfinished{{Place: Place{1, 0}, ID: 1, QoS: 1}}
				}
				w.deposits(deposit{snapshot: s})
				w.v.setPrompt(true)
				c := w.stored(5, "dev")
				if open {
					_, _ = c.read()
				}
				session := w.v.keeper("dev").o.Session
				until(t, "its connection is there", func() bool { _, ok := session.At(1); return ok })
				at, _ := session.Join(1)
				for ; at < 5; at++ {
					w.replay(w.recorded(at))
				}
				if live {
					require.True(t, session.Passed(1, at))
					require.True(t, session.GoLive(1, 1, false))
				}
				c.subscribe("u", 1)
				require.Equal(t, Reach{Known: true, Later: true}, w.reach(w.recorded(1)), "told of elsewhere")
				require.Equal(t, Reach{Known: true, Later: true}, w.reach(w.recorded(2)))
				require.Equal(t, Reach{Known: true}, w.reach(w.recorded(3)))
				require.Equal(t, Reach{Known: true}, w.reach(w.recorded(4)))
				c.ping()
				if !live {
					require.True(t, session.Passed(1, at))
					require.True(t, session.GoLive(1, 5, false))
				}
				require.Equal(t, Reach{Devices: 1}, w.reach(w.recorded(5)))
				first, _ := c.read()
				require.EqualValues(t, 0x32, first)
			})
		}
	}
}

// TestReplayAheadOfSendSaysThatACommandIsUnwanted: the session may have left, past it, when Send comes to it, which then says
// that it is told of. What Send had come to is not said again.
func TestReplayAheadOfSendSaysThatACommandIsUnwanted(t *testing.T) {
	w := keeping(t, nil)
	w.records(0)
	for at := range int64(3) {
		w.v.records[Place{1, at}] = &Command{Topic: []byte("other"), QoS: 1, To: "dev"}
	}
	w.deposits(deposit{snapshot: Snapshot{Subscriptions: []Subscription{{Filter: "t", QoS: 1}}, Next: []Place{{1, 0}}, Met: []Place{{1, 1}}}})
	w.v.next[1] = 1
	w.v.setPrompt(true)
	w.stored(5, "dev")
	session := w.v.keeper("dev").o.Session
	until(t, "its connection is there", func() bool { _, ok := session.At(1); return ok })
	_, _ = session.Join(1)
	unwanted := func(at int64, ahead bool) bool {
		_, unwanted := w.s.Replay(w.recorded(at), ahead)
		return unwanted
	}
	require.False(t, unwanted(0, false))
	require.False(t, unwanted(0, true), "what the session had met")
	require.Equal(t, Reach{Known: true}, w.reach(w.recorded(1)))
	require.False(t, unwanted(1, false), "Send has said it")
	require.True(t, unwanted(2, true))
	require.False(t, unwanted(2, true), "once")
	require.Equal(t, Reach{Known: true, Later: true}, w.reach(w.recorded(2)))
	require.Contains(t, session.Snapshot([]int32{1}, func(int32) (int64, bool) { return 2, true }).Next, Place{1, 3})
}
