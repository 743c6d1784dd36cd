package mqtt

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A plight is a device with commands of every kind under way.
type plight struct {
	*dispatcher
	c     *client
	began *Command // QoS 2, PUBREC came
	sent  *Command // QoS 1
	next  *Command // QoS 2, waits
	over  *Command // its time is over, but nobody swept
	live  *Command // waits, for connected devices only
}

func newPlight(t *testing.T, h hello, change func(*Config)) *plight {
	t.Helper()
	d := commands(t, func(c *Config) {
		c.CommandsInFlight = 2
		if change != nil {
			change(c)
		}
	})
	c := d.connect(h)
	c.subscribe("t", 2)
	p := &plight{dispatcher: d, c: c, began: d.command("t", "0", 2), sent: d.command("t", "1", 1), next: d.command("t", "2", 2)}
	p.over = &Command{Topic: []byte("t"), QoS: 1, Expires: past()}
	p.live = &Command{Topic: []byte("t"), QoS: 1, Connected: true}
	d.send(p.over)
	d.send(p.live)
	c.gets(0, 1, 2, 1)
	c.gets(1, 1, 1, 2)
	c.send(pubrec(1))
	c.expect(pubrel(1))
	d.waits(p.began, p.sent, p.next, p.over, p.live)
	require.Equal(t, 1, d.s.backlog.len())
	return p
}

// allOver holds that everything has the fate of a session that ended.
func (p *plight) allOver() {
	p.t.Helper()
	p.became(p.began, "dev delivered") // the device answers for it since PUBREC
	p.became(p.sent, "dev offline: "+reasonNotAnswered)
	p.became(p.next, "dev offline: "+reasonSessionEnded)
	p.became(p.over, "dev expired")
	p.became(p.live, "dev offline: "+reasonNotSent)
	p.settled()
	require.Zero(p.t, p.s.index.len())
	require.Zero(p.t, p.s.backlog.len())
}

// kept holds that only what can't wait is settled, and that the device completes the rest on c.
func (p *plight) kept(c *client) {
	p.t.Helper()
	p.became(p.live, "dev offline: "+reasonNotSent)
	p.waits(p.began, p.sent, p.next)
	c.expect(pubrel(1), command(1, 1, 2).again().packet(c.version))
	c.send(puback(2), pubcomp(1))
	c.gets(2, 1, 2, 3)
	p.became(p.over, "dev expired")
	c.send(pubrec(3))
	c.expect(pubrel(3))
	c.send(pubcomp(3))
	for _, cmd := range []*Command{p.began, p.sent, p.next} {
		p.became(cmd, "dev delivered")
	}
	p.settled()
}

func TestCommandsAreSettledWhenTheirSessionEnds(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		transient, stored := hello{version: v, id: "dev"}, persistent(v, "dev")
		newPlight(t, transient, nil).leaves(func(p *plight) { p.drop("dev") })
		newPlight(t, transient, nil).leaves(func(p *plight) { p.c.send(packet(0xE0)) })
		newPlight(t, transient, nil).leaves(func(p *plight) { p.c.send(packet(0x00)) })
		newPlight(t, transient, nil).leaves(func(p *plight) { _ = p.c.nc.SetLinger(0); _ = p.c.nc.Close() })
		newPlight(t, transient, nil).leaves(func(p *plight) { p.device(v, "dev").ping() })
		newPlight(t, transient, nil).leaves(func(p *plight) { p.stored(v, "dev").ping() })
		newPlight(t, stored, nil).leaves(func(p *plight) { p.device(v, "dev").ping() })
		newPlight(t, stored, nil).leaves(func(p *plight) { p.drop("dev"); p.device(v, "dev").ping() })
		newPlight(t, stored, nil).leaves(func(p *plight) {
			p.drop("dev")
			p.outbox("dev").session.endsAt = 1
			p.pass(1)
		})
		newPlight(t, stored, nil).leaves(func(p *plight) {
			p.drop("dev")
			p.outbox("dev").session.endsAt = 1
			require.False(t, p.stored(v, "dev").present())
		})
		newPlight(t, stored, nil).leaves(func(p *plight) { p.stop() })
		newPlight(t, stored, nil).leaves(func(p *plight) { p.drop("dev"); p.stop() })
		newPlight(t, stored, func(c *Config) { c.MaxStoredSessions = 1 }).leaves(func(p *plight) {
			p.stored(v, "other")
			p.drop("other")
			p.drop("dev")
		})
		newPlight(t, stored, func(c *Config) { c.SessionExpiryMax = 0 }).leaves(func(p *plight) { p.drop("dev") })
	})
}

func (p *plight) leaves(f func(*plight)) {
	p.t.Helper()
	f(p)
	p.allOver()
}

func TestCommandsAreKeptWithTheirSession(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		back := func(p *plight) *client { return p.stored(v, "dev") }
		kept := func(f func(p *plight) *client) {
			t.Helper()
			p := newPlight(t, persistent(v, "dev"), nil)
			p.kept(f(p))
		}
		kept(func(p *plight) *client { p.drop("dev"); return back(p) })
		kept(func(p *plight) *client { p.c.send(packet(0xE0)); return back(p) })
		kept(func(p *plight) *client { p.c.send(packet(0x00)); return back(p) })
		kept(func(p *plight) *client { _ = p.c.nc.SetLinger(0); _ = p.c.nc.Close(); return back(p) })
		kept(back) // takeover
		kept(func(p *plight) *client { p.drop("dev"); p.pass(3); return back(p) })
		kept(func(p *plight) *client { // the keep-alive of an hour, which is ours, is over
			p.pass(6000)
			return back(p)
		})
	})
}

// TestPanicOfTheHandlerSettlesTheCommandsOfThatConnection: a bug costs the connection and nothing else.
func TestPanicOfTheHandlerSettlesTheCommandsOfThatConnection(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		for _, h := range []hello{{version: v, id: "dev"}, persistent(v, "dev")} {
			p := newPlight(t, h, nil)
			p.answer = func(*Message) { panic("a bug") }
			p.c.publish(pub{topic: "bug"})
			p.c.goodbye(UnspecifiedError)
			p.left("dev")
			if h.persist {
				p.kept(p.stored(v, "dev"))
			} else {
				p.ended()
				p.allOver()
			}
		}
	})
}

// TestQoS0IsSettledByWhatBecameOfItsBytes: sent once the network took them, else not. A large command is in the output, and
// others behind it: that a socket takes nothing for now does not mean that it is full, but so much it never takes.
func TestQoS0IsSettledByWhatBecameOfItsBytes(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorldOn(t, narrowListener(t), func(c *Config) { c.MaxUnreadBytes = 1 << 30 })
		d := w.dispatcher()
		d.subscribed(v, "dev", 1)
		d.drop("dev")
		const before, behind = 3, 100
		var all []*Command
		for i := range before + 1 + behind {
			bytes := 4000
			if i == before {
				bytes = 2 << 20
			}
			all = append(all, d.command("t", string(make([]byte, bytes)), 0))
		}
		o := d.outbox("dev")
		_ = d.stored(v, "dev").nc.SetReadBuffer(32 << 10)
		until(t, "stuck", func() bool { return o.waiting() < behind && d.holder("dev").isStuck() })
		d.drop("dev")
		queued := o.waiting()
		require.Positive(t, queued)
		d.waits(all[len(all)-queued:]...)
		c := d.stored(v, "dev")
		for range queued {
			_, _ = c.read()
		}
		d.settled()
		for i, cmd := range all {
			if i >= before && i < len(all)-queued {
				d.became(cmd, "dev offline: "+reasonNotSent)
				continue
			}
			d.became(cmd, "dev sent")
			d.wasSent(cmd, 1)
		}
	})
}

// waiting is the number of commands in the queue.
func (o *outbox) waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.queue)
}

func (c *Conn) isStuck() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stuck
}

// TestSendAfterTheEndReachesNobody: what Send counts is settled, also when it comes after Shutdown.
func TestSendAfterTheEndReachesNobody(t *testing.T) {
	d := commands(t, nil)
	d.subscribed(5, "dev", 1)
	o := d.outbox("dev")
	found := d.s.index.match([]byte("t"), nil)
	d.stop()
	for _, to := range []string{"", "dev"} {
		n, known := d.send(&Command{Topic: []byte("t"), QoS: 1, To: to})
		require.Zero(t, n)
		require.False(t, known)
	}
	for _, a := range gather(found, &Command{Topic: []byte("t"), QoS: 1}) { // matched just before
		require.Equal(t, absent, a.session.offer(a.delivery, late))
	}
	require.True(t, o.ended)
}
