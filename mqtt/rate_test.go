package mqtt

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestABucketGivesItsRateAndASecondAtOnce(t *testing.T) {
	for _, rate := range []int{1, 3, 7, 1000, 99_999} {
		cost := newRateLimits(&Config{PublishesPerSecond: rate}).perMessage
		var b bucket
		taken := func(now time.Duration) (n int) {
			for b.wait(now, time.Second) == 0 {
				b.take(now, cost)
				n++
			}
			return n
		}
		require.InDelta(t, rate, taken(0), 0.001*float64(rate), "at once")
		total := 0
		for now := time.Duration(0); now < 10*time.Second; now += 10 * time.Millisecond {
			total += taken(now)
		}
		require.InDelta(t, 10*rate, total, 0.002*float64(10*rate)+1)
		require.InDelta(t, rate, taken(time.Hour), 0.001*float64(rate), "an idle hour saves no more than that")
	}
}

func TestABucketSaysHowLongToWait(t *testing.T) {
	var b bucket
	b.take(0, 5*time.Second) // more than it holds
	wait := b.wait(0, time.Second)
	require.Positive(t, b.wait(wait-1, time.Second))
	require.Zero(t, b.wait(wait, time.Second))
	require.InDelta(t, 4*time.Second, wait, 1)
}

func TestTheLargestPacketAtTheSmallestRateOverflowsNothing(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.PublishBytesPerSecond = 1 })
	c := &Conn{srv: w.s}
	c.countPublish(largestPacket)
	require.Positive(t, c.withinRateWait())
	c.now = clockStart.Add((largestPacket + 1) * time.Second)
	require.Zero(t, c.withinRateWait())
}

func (c *Conn) withinRateWait() time.Duration { return c.rates.bytes.wait(c.age(), time.Second) }

// numbered sends n messages in one piece, so that they come at one moment.
func (c *client) numbered(n int) {
	c.t.Helper()
	var all []byte
	for i := range n {
		all = append(all, pub{topic: "t", payload: fmt.Sprint(i), qos: i % 3, id: uint16(i + 1)}.packet(c.version)...)
	}
	c.send(all)
}

func TestDeviceAboveItsRateIsDisconnected(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.PublishesPerSecond, c.OverRate = 5, DisconnectClient })
		c, other := w.device(v, "dev"), w.device(v, "other")
		c.numbered(6)
		c.goodbye(QuotaExceeded)
		require.Len(t, w.got, 5)
		require.Equal(t, 1, count(w.s.limits.messages))
		other.numbered(5) // a rate is each connection's own
		other.ping()
	})
}

func TestDeviceAboveItsBytesIsDisconnected(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.PublishBytesPerSecond, c.OverRate = 1000, DisconnectClient })
		c := w.device(v, "dev")
		c.publish(pub{topic: "t", payload: strings.Repeat("x", 500)})
		c.publish(pub{topic: "t", payload: strings.Repeat("x", 5000)}) // more than a second's worth, while there is some
		c.ping()
		c.publish(pub{topic: "t"})
		c.goodbye(QuotaExceeded)
		require.Len(t, w.got, 2)
		require.Equal(t, 1, count(w.s.limits.bytes))
	})
}

// TestDeviceAboveItsRateIsDelayed: everything comes, in order, and PINGREQ is answered before it does.
func TestDeviceAboveItsRateIsDelayed(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.PublishesPerSecond = 10 })
		c, other := w.device(v, "dev"), w.device(v, "other")
		c.numbered(15)
		c.send(pingreq)
		c.expect(pingresp)
		require.Less(t, len(w.got), 15)
		w.s.conns.each(func(c *Conn) { // however long it is delayed, keep-alive spares it
			if c.ClientID() == "dev" {
				require.True(t, c.paused.Load())
			}
		})
		other.ping()
		for i := range 15 {
			m := w.next()
			require.Equal(t, fmt.Sprint(i), string(m.Payload))
			w.ack(m)
		}
		require.Positive(t, count(w.s.limits.messages))
	})
}

// TestMessageThatWaitsForMemoryIsCountedOnce: it is looked at twice.
func TestMessageThatWaitsForMemoryIsCountedOnce(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.PublishesPerSecond, c.OverRate = 3, DisconnectClient })
	c := w.device(5, "dev")
	w.setFull(true)
	c.publish(pub{topic: "t", qos: 1, id: 1})
	until(t, "it waits", func() bool { return w.waiting() == 1 })
	w.makeRoom()
	w.ack(w.next())
	c.expect(puback(1))
	c.publish(pub{topic: "t", qos: 1, id: 2})
	w.ack(w.next())
	c.expect(puback(2))
	c.publish(pub{topic: "t", qos: 1, id: 3})
	w.ack(w.next())
	c.expect(puback(3))
}

func TestConnectionThatEndsWhileItIsDelayedIsForgotten(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.PublishBytesPerSecond = 1 })
	c := w.device(4, "dev")
	c.publish(pub{topic: "t", payload: "five days' worth"})
	c.publish(pub{topic: "t"})
	until(t, "delayed", func() bool { return count(w.s.m.paused) == 1 })
	require.NoError(t, c.nc.Close())
	until(t, "forgotten", func() bool { return w.open() == 0 && w.s.pacer.idle() })
	require.Zero(t, count(w.s.m.paused))
}

func TestFloodOfSubscribeIsDelayed(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c, other := w.device(v, "dev"), w.device(v, "other")
		var filters []byte
		for i := range 400 {
			filters = cat(filters, str(fmt.Sprint("f/", i)), 1)
		}
		for id := range uint16(4) {
			c.send(packet(0x82, id+1, c.none(), filters))
		}
		for range 3 { // 1200 filters: the last of them began within the burst
			first, _ := c.read()
			require.Equal(t, byte(0x90), first)
		}
		until(t, "delayed", func() bool { return count(w.s.limits.control) > 0 })
		other.ping()
	})
}

// TestFloodOfPingsIsReadSlowly: what is not read is the device's own matter.
func TestFloodOfPingsIsReadSlowly(t *testing.T) {
	w := newWorld(t, nil)
	c, other := w.device(4, "dev"), w.device(4, "other")
	const pings = 30_000
	go func() { _, _ = c.nc.Write([]byte(strings.Repeat(string(pingreq), pings))) }() // ends with the socket
	for range 10_000 {
		c.expect(pingresp)
	}
	until(t, "delayed", func() bool { return count(w.s.limits.control) > 0 })
	other.ping()
	_ = c.nc.Close()
}

// TestFloodOfAnswersToNothingIsReadSlowly: of exchanges that do not exist.
func TestFloodOfAnswersToNothingIsReadSlowly(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c, other := w.device(v, "dev"), w.device(v, "other")
		c.send(bytes.Repeat(cat(puback(7), pubcomp(7), pubrel(7)), 4000))
		until(t, "delayed", func() bool { return count(w.s.limits.control) > 0 })
		other.ping()
	})
}

// TestFloodOfPingsInAPauseIsReadSlowly: also while messages wait for Kafka.
func TestFloodOfPingsInAPauseIsReadSlowly(t *testing.T) {
	w := newWorld(t, nil)
	c := w.device(4, "dev")
	w.setFull(true)
	c.publish(pub{topic: "t", qos: 1, id: 1})
	until(t, "it waits", func() bool { return w.waiting() == 1 })
	c.send([]byte(strings.Repeat(string(pingreq), 10_500)))
	for range 10_500 {
		c.expect(pingresp)
	}
	w.makeRoom()
	w.ack(w.next())
	c.expect(puback(1))
}

func TestTopicOfTooManyLevelsIsMarked(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.TopicLevels = 3 })
	c := w.device(5, "dev")
	c.publish(pub{topic: "a/b/c", qos: 1, id: 1})
	w.ack(w.next())
	c.expect(puback(1))
	for qos := range 3 {
		c.publish(pub{topic: "a/b/c/", qos: qos, id: 7})
		m := w.next()
		require.True(t, m.TooDeep, "for the Handler to refuse")
		w.refuse(m, TopicNameInvalid, "")
		if qos > 0 {
			c.expect(packet(0x30+0x10*qos, uint16(7), TopicNameInvalid))
		}
	}
	c.publish(pub{topic: "a/b", qos: 2, id: 7}) // the packet identifier is free again
	m := w.next()
	require.False(t, m.TooDeep)
	require.Equal(t, "a/b", string(m.Topic))
	w.noMessage()
	require.Equal(t, 3, count(w.s.limits.levels))
}

func TestFilterAndWillOfTooManyLevelsAreRefused(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.TopicLevels = 3 })
		c := w.device(v, "dev")
		c.send(packet(0x82, uint16(1), c.none(), str("a/+/c"), 1, str("a/b/+/#"), 1))
		refused := map[byte]Code{4: UnspecifiedError, 5: TopicFilterInvalid}[v]
		c.expect(subackPacket(v, 1, 1, refused))
		bad := w.dial(v)
		bad.send(hello{version: v, id: "bad", will: &lastWill{topic: "a/b/c/d"}}.packet())
		if v == 5 {
			first, body := bad.read()
			require.Equal(t, byte(0x20), first)
			require.Equal(t, byte(TopicNameInvalid), body[1])
		}
		bad.closed()
	})
}

func TestPacketWithTooManyUserPropertiesEndsTheConnection(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.UserProperties = 3 })
	three, four := strings.Repeat("\x26\x00\x00\x00\x00", 3), strings.Repeat("\x26\x00\x00\x00\x00", 4)
	refused := func(packet func(properties []byte) []byte) {
		t.Helper()
		c := w.device(5, "dev")
		c.send(packet(props(three)))
		c.send(packet(props(four)))
		for {
			first, body := c.read()
			if first == 0xE0 {
				require.Equal(t, QuotaExceeded.String(), Code(body[0]).String())
				break
			}
		}
		c.closed()
	}
	before := count(w.s.limits.properties)
	refused(func(p []byte) []byte { return packet(0x30, str("t"), p) })
	refused(func(p []byte) []byte { return packet(0x82, uint16(1), p, str("t"), 0) })
	refused(func(p []byte) []byte { return packet(0xA2, uint16(1), p, str("t")) })
	refused(func(p []byte) []byte { return packet(0x62, uint16(1), 0, p) })
	refused(func(p []byte) []byte { return packet(0x50, uint16(1), 0, p) })
	until(t, "counted", func() bool { return count(w.s.limits.properties) == before+5 })
	connect := func(h hello, code Code) {
		t.Helper()
		c := w.dial(5)
		c.send(h.packet())
		first, body := c.read()
		require.Equal(t, byte(0x20), first)
		require.Equal(t, code.String(), Code(body[1]).String())
	}
	connect(hello{version: 5, id: "a", props: []byte(three), will: &lastWill{topic: "t", props: []byte(three)}}, Success)
	connect(hello{version: 5, id: "b", props: []byte(four)}, QuotaExceeded)
	connect(hello{version: 5, id: "c", will: &lastWill{topic: "t", props: []byte(four)}}, QuotaExceeded)
}

func TestSessionsAreNeverMoreThanAllowed(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.MaxSessions = 2 })
		kept := func() int { return int(w.s.sessions.kept.Load()) }
		a := w.stored(v, "a")
		w.stored(v, "b")
		refused := w.dial(v)
		refused.send(persistent(v, "c").packet())
		first, body := refused.read()
		require.Equal(t, byte(0x20), first)
		require.Equal(t, map[byte]byte{4: 3, 5: byte(QuotaExceeded)}[v], body[1])
		refused.closed()
		w.device(v, "d") // one that ends with its connection is none of them
		_ = a.nc.Close()
		require.True(t, w.stored(v, "a").present(), "it is one of them already")
		require.Equal(t, 2, kept())
		w.device(v, "a") // takes over with a clean start
		until(t, "its place is free", func() bool { return kept() == 1 })
		w.stored(v, "c")
		require.Equal(t, 1, count(w.s.limits.sessions))
		w.s.sweepSessions(time.Now(), true)
	})
}

func TestPlacesOfSessionsThatExpireAreFree(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxSessions = 2 })
	a, b := w.stored(5, "a"), w.stored(5, "b")
	a.send(packet(0xE0, 0, props(0x11, uint32(0)))) // DISCONNECT with another Session Expiry Interval
	a.closed()
	_ = b.nc.Close()
	until(t, "stored", func() bool { return w.s.sessions.storedCount() == 1 })
	require.EqualValues(t, 1, w.s.sessions.kept.Load())
	w.s.sweepSessions(time.Now().Add(2*time.Hour), false)
	require.Zero(t, w.s.sessions.kept.Load())
}

// TestLimitsCostNoAllocation: the publish path allocates no more with rates than without.
func TestLimitsCostNoAllocation(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.PublishesPerSecond, c.PublishBytesPerSecond = mostPerSecond, 1<<40 })
	c := &Conn{srv: w.s, since: begin.Sub(clockStart), now: begin}
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if c.withinRate() != nil || c.withinControl() != nil || c.tooDeep([]byte("a/b")) {
			t.Fatal("within all limits")
		}
		c.countPublish(256)
		c.now = c.now.Add(time.Microsecond)
	}))
}

func BenchmarkRates(b *testing.B) {
	w := newWorld(b, func(c *Config) { c.PublishesPerSecond, c.PublishBytesPerSecond = mostPerSecond, 1<<40 })
	c := &Conn{srv: w.s, since: begin.Sub(clockStart), now: begin}
	b.ReportAllocs()
	for b.Loop() {
		if c.withinRate() != nil {
			b.Fatal("within the rate")
		}
		c.countPublish(256)
		c.now = c.now.Add(time.Microsecond)
	}
}

// TestNoRateHoldsUpAFarewell: a device that was over a rate says DISCONNECT and goes, and has no will then.
func TestNoRateHoldsUpAFarewell(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.connect(willed(v, "dev"))
		filters := bytes.Repeat(cat(str("a"), 1), 1000)
		c.send(packet(0x82, uint16(1), c.none(), filters), packet(0x82, uint16(2), c.none(), filters), packet(0xE0))
		_ = c.nc.CloseWrite()
		w.ended()
		w.noMessage()
	})
}
