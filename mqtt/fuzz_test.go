package mqtt

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"
)

// strict is a Handler that acknowledges at once and holds every message to what the specification lets a
// message be.
type strict struct{ t *testing.T }

func (strict) Admit(*Message, func()) bool { return true }
func (strict) Release(*Message)            {}
func (h strict) Publish(m *Message) {
	require.NotEmpty(h.t, m.Topic)
	require.True(h.t, utf8.Valid(m.Topic))
	require.False(h.t, bytes.ContainsAny(m.Topic, "+#\x00"))
	require.LessOrEqual(h.t, m.QoS, byte(2))
	for _, u := range m.User {
		require.True(h.t, utf8.Valid(u.Key) && utf8.Valid(u.Value))
	}
	m.Ack(Success)
}

// A fuzzed is a connection that is fed by hand. What it sends goes to a socket nobody reads; the messages of a
// fuzzer are too few to fill it.
type fuzzed struct {
	*Conn
	far *net.TCPConn
}

// finish resets the connection first: an orderly end of each would leave the kernel no port after half a minute.
func (c *fuzzed) finish(err error) {
	_ = c.far.SetLinger(0)
	_ = c.far.Close()
	c.Conn.finish(err)
}

// fuzzConn gives a connection of a new server.
func fuzzConn(t *testing.T) *fuzzed {
	t.Helper()
	return fuzzConnOf(t, fuzzServer(t))
}

func fuzzServer(t *testing.T) *Server {
	t.Helper()
	cfg := DefaultConfig()
	cfg.ReceiveMaximum = 100
	cfg.CommandsInFlight, cfg.CommandsQueued, cfg.CommandMemory = 5, 5, 40_000
	s, err := New(cfg, strict{t})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
	})
	return s
}

func fuzzConnOf(t *testing.T, s *Server) *fuzzed {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	near, err := l.Accept()
	require.NoError(t, err)
	raw, err := near.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = far.Close()
		_ = near.Close()
	})
	return &fuzzed{&Conn{srv: s, nc: near.(*net.TCPConn), raw: raw}, far.(*net.TCPConn)}
}

// opened is a fuzzConn past CONNECT.
func opened(t *testing.T, version byte) *fuzzed {
	t.Helper()
	c := fuzzConn(t)
	require.NoError(t, c.feed(hello{version: version, id: "dev"}.packet()))
	require.Equal(t, version, c.version)
	return c
}

func FuzzFrame(f *testing.F) {
	for _, v := range []byte{4, 5} {
		f.Add(v == 5, pub{topic: "t", payload: "x", qos: 1, id: 1}.packet(v), 3)
		f.Add(v == 5, cat(pub{topic: "t", qos: 2, id: 1}.packet(v), pubrel(1), pingreq, packet(0xE0)), 1)
		f.Add(v == 5, packet(0x82, uint16(1), str("a"), 1), 2)
	}
	f.Add(true, cat(pub{topic: "t", props: cat(0x23, uint16(1), user("a", "b"))}.packet(5), pub{props: cat(0x23, uint16(1))}.packet(5)), 7)
	f.Add(true, []byte{0xFF, 0xFF, 0xFF, 0xFF, 0xFF}, 1)
	f.Fuzz(func(t *testing.T, five bool, b []byte, cut int) {
		version := byte(4)
		if five {
			version = 5
		}
		c := opened(t, version)
		cut = min(max(cut, 0), len(b))
		err := c.feed(b[:cut])
		if err == nil {
			err = c.feed(b[cut:])
		}
		require.NotErrorIs(t, err, errPause, "there is always room")
		c.flush()
		c.finish(err)
		require.Zero(t, c.srv.partial.Load())
	})
}

func FuzzConnect(f *testing.F) {
	will := &lastWill{topic: "w", payload: "gone", qos: 1}
	f.Add(packet(0x10, str("MQIsdp"), 0x83, 0xC6, uint16(0), str("dev"), str("w"), str("gone"), str("u"), str("p"))[2:])
	for _, v := range []byte{3, 4, 5, 6, 0x84} {
		f.Add(hello{version: v, id: "dev", persist: true, username: "u", password: "p", will: will}.packet()[2:])
	}
	f.Add(hello{version: 5, will: &lastWill{topic: "w", props: cat(0x18, uint32(1), user("a", "b"))}, props: cat(0x11, uint32(9), 0x27, uint32(50))}.packet()[2:])
	f.Fuzz(func(t *testing.T, body []byte) {
		c := fuzzConn(t)
		err := c.connect(body, false)
		if err == nil {
			require.NotEmpty(t, c.ClientID())
			require.True(t, utf8.ValidString(c.ClientID()))
			require.Contains(t, []byte{3, 4, 5}, c.version)
		} else {
			require.Nil(t, c.session, "a CONNECT that failed holds no session")
			require.Nil(t, c.will)
		}
		c.finish(errHungUp) // publishes the will
	})
}

func FuzzSubscribe(f *testing.F) {
	f.Add(true, []byte{0x82, 0, 1}, cat(uint16(1), props(), str("a/b"))) // cut before its options
	f.Add(true, []byte{0x82}, cat(uint16(1), props(0x0B, 1), str("$share/g/#"), 1))
	f.Add(false, []byte{0x82}, cat(uint16(1), str("a/b"), 1, str("#"), 0))
	f.Add(false, []byte{0xA2}, cat(uint16(1), str("a/b")))
	f.Fuzz(func(t *testing.T, five bool, first, body []byte) {
		version := byte(4)
		if five {
			version = 5
		}
		c := opened(t, version)
		if len(first) > 0 && first[0] == 0xA2 {
			_ = c.unsubscribe(body)
		} else {
			_ = c.subscribe(body)
		}
		c.finish(errHungUp)
	})
}

// FuzzPublish compares our decoder with mochi's: what both accept they must read alike.
func FuzzPublish(f *testing.F) {
	f.Add(true, byte(0x32), cat(str("a/b"), uint16(7), props(0x03, str("text"), user("k", "v"), 0x02, uint32(5)), "payload"))
	f.Add(true, byte(0x3D), cat(str("a"), uint16(1), props(0x01, 1, 0x08, str("re"), 0x09, str("corr"))))
	f.Add(false, byte(0x30), cat(str("a/b"), "payload"))
	f.Add(false, byte(0x35), cat(str("a/b"), uint16(65535)))
	f.Fuzz(func(t *testing.T, five bool, first byte, body []byte) {
		version := byte(4)
		if five {
			version = 5
		}
		c := &Conn{srv: &Server{cfg: DefaultConfig(), rates: newRateLimits(&Config{})}, session: &session{clientID: "dev"}, version: version}
		m := newMessage(body)
		ours := c.decodePublish(m, 0x30|first&0x0F)

		theirs := packets.Packet{ProtocolVersion: version}
		if theirs.FixedHeader.Decode(0x30|first&0x0F) != nil {
			return
		}
		theirs.FixedHeader.Remaining = len(body)
		err := theirs.PublishDecode(append([]byte(nil), body...))
		if err == nil {
			err = validate(&theirs)
		}
		if ours != nil || err != nil {
			return
		}
		require.Equal(t, theirs.FixedHeader.Qos, m.QoS)
		require.Equal(t, theirs.FixedHeader.Retain, m.Retain)
		require.Equal(t, theirs.PacketID, m.id)
		if theirs.TopicName != "" {
			require.Equal(t, theirs.TopicName, string(m.Topic))
		}
		require.Equal(t, string(theirs.Payload), string(m.Payload))
		p := &theirs.Properties
		require.Equal(t, p.ContentType, string(m.ContentType))
		require.Equal(t, p.ResponseTopic, string(m.ResponseTopic))
		require.Equal(t, string(p.CorrelationData), string(m.CorrelationData))
		require.Equal(t, p.MessageExpiryInterval, m.Expiry)
		require.Len(t, m.User, len(p.User))
		for i, u := range p.User {
			require.Equal(t, u.Key, string(m.User[i].Key))
			require.Equal(t, u.Val, string(m.User[i].Value))
		}
	})
}

func validate(p *packets.Packet) error {
	if code := p.PublishValidate(1000); code.Code != packets.CodeSuccess.Code {
		return code
	}
	return nil
}

// TestValidPublishIsAcceptedByBoth keeps FuzzPublish from passing because nothing is accepted.
func TestValidPublishIsAcceptedByBoth(t *testing.T) {
	body := cat(str("a/b"), uint16(7), props(0x03, str("text"), user("k", "v")), strings.Repeat("x", 300))
	c := &Conn{srv: &Server{cfg: DefaultConfig(), rates: newRateLimits(&Config{})}, session: &session{clientID: "dev"}, version: 5}
	require.NoError(t, c.decodePublish(newMessage(body), 0x32))
	theirs := packets.Packet{ProtocolVersion: 5}
	require.NoError(t, theirs.FixedHeader.Decode(0x32))
	theirs.FixedHeader.Remaining = len(body)
	require.NoError(t, theirs.PublishDecode(body))
	require.NoError(t, validate(&theirs))
}
