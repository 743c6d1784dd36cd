package mqtt

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// say writes down a message as it was handed over, for comparison.
func say(m *Message) string {
	return fmt.Sprintf("%s|%s|%x|%d|%v|%s|%s|%x|%v|%d %v|%s|%s", m.ClientID, m.Topic, m.Payload, m.QoS, m.Retain,
		m.ContentType, m.ResponseTopic, m.CorrelationData, m.User, m.Expiry, m.HasExpiry, m.Username, fmt.Sprint(m.Will))
}

// replay sends a stream in the given pieces to a fresh connection and gives all that the Handler was told and
// all that the device was answered, by kind: PUBACK and PUBREC have one order, PUBCOMP has its own, and how
// the two mix depends on what is read together. Every message is acknowledged at once.
func replay(t testing.TB, version byte, pieces [][]byte) (told []string, answers [3][]byte) {
	t.Helper()
	w := newWorld(t, func(c *Config) { c.ReceiveMaximum = 1000 })
	w.answer = func(m *Message) {
		told = append(told, say(m))
		m.Ack(Success)
	}
	c := w.dial(version)
	_ = c.nc.SetNoDelay(true)
	sent := 0
	for _, p := range pieces {
		if _, err := c.pipe.Write(p); err != nil {
			break
		}
		sent += len(p)
		until(t, "the piece was read", func() bool { return count(w.s.m.bytesIn) >= sent || w.open() == 0 })
	}
	_ = c.nc.CloseWrite()
	for {
		first, body, err := c.tryRead()
		if err != nil {
			break
		}
		kind := map[byte]int{0x40: 1, 0x50: 1, 0x70: 2}[first]
		answers[kind] = append(answers[kind], packet(int(first), body)...)
	}
	w.ended()
	return told, answers
}

// validStream draws a CONNECT and packets that may follow it.
func validStream(rt *rapid.T, version byte) []byte {
	stream := hello{version: version, id: "dev", username: "anna", will: &lastWill{topic: "w", payload: "gone"}}.packet()
	short := rapid.StringMatching(`[a-z]{1,5}`)
	for i := range rapid.IntRange(0, 12).Draw(rt, "packets") {
		switch rapid.IntRange(0, 5).Draw(rt, "kind") {
		case 0:
			stream = append(stream, pingreq...)
		case 1:
			stream = append(stream, pubrel(uint16(rapid.IntRange(1, 20).Draw(rt, "id")))...)
		case 2:
			var none []byte
			if version == 5 {
				none = props()
			}
			stream = append(stream, packet(0x82, uint16(i+1), none, str(short.Draw(rt, "filter")), 1)...)
		default:
			p := pub{topic: short.Draw(rt, "topic"), id: uint16(i + 1), qos: rapid.IntRange(0, 2).Draw(rt, "qos")}
			size := rapid.SampledFrom([]int{0, 1, 100, 127, 128, 16383, 20000, 70000}).Draw(rt, "size")
			p.payload = strings.Repeat(short.Draw(rt, "x"), size)[:size]
			if version == 5 {
				p.props = cat(0x23, uint16(1+i%3), user(short.Draw(rt, "k"), short.Draw(rt, "v")), 0x03, str("text"))
			}
			stream = append(stream, p.packet(version)...)
		}
	}
	return stream
}

// TestAnySplitOfAStreamMeansTheSame: where the packets are cut on their way changes nothing.
func TestAnySplitOfAStreamMeansTheSame(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		rapid.Check(t, func(rt *rapid.T) {
			stream := validStream(rt, v)
			wantTold, wantAnswers := replay(t, v, [][]byte{stream})
			var pieces [][]byte
			for rest := stream; len(rest) > 0; {
				most := rapid.SampledFrom([]int{1, 3, 20, 5000, 50000}).Draw(rt, "most")
				n := min(len(rest), rapid.IntRange(1, most).Draw(rt, "n"))
				if len(pieces) > 60 {
					n = len(rest)
				}
				pieces = append(pieces, rest[:n])
				rest = rest[n:]
			}
			told, answers := replay(t, v, pieces)
			require.Equal(rt, wantTold, told)
			require.Equal(rt, wantAnswers, answers)
		})
	})
}

// TestPacketWithoutBodyInTwoPieces: its last byte is one of the fixed header, and nothing follows.
func TestPacketWithoutBodyInTwoPieces(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, nil)
		c := w.device(v, "dev")
		pieces := func(p []byte) {
			before := count(w.s.m.bytesIn)
			c.send(p[:1])
			until(t, "the piece was read", func() bool { return count(w.s.m.bytesIn) > before })
			c.send(p[1:])
		}
		pieces(pingreq)
		c.expect(pingresp)
		pieces(packet(0xE0))
		c.closed()
	})
}

func TestByteByByteMeansTheSame(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		stream := cat(hello{version: v, id: "dev", will: &lastWill{topic: "w"}}.packet(), pub{topic: "t", payload: "abc", qos: 1, id: 1}.packet(v),
			pub{topic: "t", payload: strings.Repeat("x", 200), qos: 2, id: 2}.packet(v), pingreq, pubrel(2), pub{topic: "u"}.packet(v))
		wantTold, wantAnswers := replay(t, v, [][]byte{stream})
		require.Len(t, wantTold, 4, "three messages and the will")
		var pieces [][]byte
		for i := range stream {
			pieces = append(pieces, stream[i:i+1])
		}
		told, answers := replay(t, v, pieces)
		require.Equal(t, wantTold, told)
		require.Equal(t, wantAnswers, answers)
	})
}

func TestFrameReadsEveryLength(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.OneOf(rapid.IntRange(0, 268435455), rapid.SampledFrom([]int{0, 127, 128, 16383, 16384, 2097151, 2097152, 268435455})).Draw(rt, "n")
		b := cat(0x30, vbi(n))
		for cut := range b {
			header, size, err := frame(b[:cut])
			require.NoError(rt, err)
			require.Zero(rt, header+size, "too short to tell")
		}
		header, size, err := frame(append(b, 0xFF))
		require.NoError(rt, err)
		require.Equal(rt, len(b), header)
		require.Equal(rt, len(b)+n, size)
		r := cursor{b: vbi(n)}
		require.Equal(rt, n, r.varint())
		require.NoError(rt, r.err)
	})
}

func TestPartialMemoryIsChargedAndGivenBack(t *testing.T) {
	s := &Server{cfg: DefaultConfig(), rates: newRateLimits(&Config{})}
	s.cfg.MaxPartialBytes = 100_000
	c := &Conn{srv: s}
	require.False(t, c.charge(partialUncounted), "a little is not counted")
	require.Zero(t, s.partial.Load())
	require.False(t, c.charge(50_000))
	require.False(t, c.charge(100_000))
	require.Equal(t, int64(100_000), s.partial.Load())
	require.True(t, c.charge(100_001))
	require.False(t, c.charge(20_000))
	require.Equal(t, int64(20_000), s.partial.Load())
	c.holding = true
	require.False(t, c.charge(20_000), "what waits for Kafka makes nobody's packet be refused")
	require.Zero(t, s.partial.Load())
	require.Equal(t, int64(20_000), s.waiting.Load())
	require.True(t, c.charge(100_001))
	c.holding = false
	require.False(t, c.charge(5_000))
	require.Zero(t, s.waiting.Load())
	require.Equal(t, int64(5_000), s.partial.Load())
	require.False(t, c.charge(0))
	require.Zero(t, s.partial.Load())
}

// TestHalfPacketsAreCounted, those that fit in a read buffer too.
func TestHalfPacketsAreCounted(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) { c.MaxPartialBytes = 50_000 })
		half := pub{topic: "t", payload: strings.Repeat("x", 12_000)}.packet(v)
		var slow []*client
		for i := range 4 {
			c := w.device(v, fmt.Sprint(i))
			c.send(half[:10_000])
			until(t, "counted", func() bool { return w.s.partial.Load() >= int64(10_000*(i+1)) })
			slow = append(slow, c)
		}
		greedy := w.device(v, "greedy")
		_, _ = greedy.pipe.Write(half[:11_000])
		greedy.goodbye(ServerBusy)
		short := w.device(v, "short")
		short.send(pub{topic: "t", payload: "fine"}.packet(v)[:5])
		short.send(pub{topic: "t", payload: "fine"}.packet(v)[5:])
		require.Equal(t, "fine", string(w.next().Payload))
		for _, c := range slow {
			c.send(half[10_000:])
			require.Len(t, w.next().Payload, 12_000)
		}
		until(t, "given back", func() bool { return w.s.partial.Load() == 0 })
	})
}
