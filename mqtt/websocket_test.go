package mqtt

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/require"
)

// TestTheRequestForAWebSocketIsHeldToItsRules: path, subprotocol, origin, and what RFC 6455 asks for.
func TestTheRequestForAWebSocketIsHeldToItsRules(t *testing.T) {
	open := &WebSocket{Path: "/mqtt"}
	listed := &WebSocket{Path: "/mqtt", Origins: []string{"https://console.example"}}
	every := &WebSocket{Path: "/mqtt", Origins: []string{"*"}}
	f := func(e *WebSocket, want int, request []byte) {
		t.Helper()
		answer, err := e.upgrade(request)
		resp, perr := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
		require.NoError(t, perr)
		require.Equal(t, want, resp.StatusCode)
		require.Equal(t, want != http.StatusSwitchingProtocols, err != nil)
	}
	ask := func(fields ...string) []byte { return upgradeRequest("/mqtt", "mqtt", fields...) }

	f(open, 101, ask())
	f(open, 101, upgradeRequest("/mqtt?token=x", "mqtt"))
	f(open, 101, upgradeRequest("/mqtt", "chat, mqtt"))
	f(open, 101, ask("Sec-Websocket-Extensions", "permessage-deflate"))
	f(open, 400, upgradeRequest("/mqtt", ""))
	f(open, 101, upgradeRequest("/mqtt", "mqttv3.1"))
	f(open, 404, upgradeRequest("/", "mqtt"))
	unnamed := &WebSocket{}
	f(unnamed, 101, upgradeRequest("/mqtt", "mqtt"))
	f(unnamed, 101, upgradeRequest("/", "mqtt"))
	f(unnamed, 101, upgradeRequest("/?token=x", "mqtt"))
	f(unnamed, 404, upgradeRequest("/ws", "mqtt"))
	f(open, 404, upgradeRequest("/", "mqtt"))
	f(open, 404, upgradeRequest("/mqtt/", "mqtt"))
	f(open, 404, upgradeRequest("/MQTT", "mqtt"))

	f(open, 101, ask("Origin", "http://broker.example:8083"))
	f(open, 101, ask("Origin", "https://BROKER.example:8083"))
	f(open, 403, ask("Origin", "https://broker.example"))
	f(open, 403, ask("Origin", "https://evil.example"))
	f(open, 403, ask("Origin", "null"))
	f(open, 403, ask("Origin", "https://evil.example/broker.example:8083"))
	f(open, 403, ask("Origin", "https://broker.example:8083.evil.example"))
	f(open, 403, ask("Origin", "http://broker.example:8083", "origin", "https://evil.example"))
	f(listed, 101, ask("Origin", "https://console.example"))
	f(listed, 101, ask("Origin", "https://Console.example"))
	f(listed, 101, ask("Origin", "http://broker.example:8083"))
	f(listed, 403, ask("Origin", "http://console.example"))
	f(listed, 403, ask("Origin", "https://console.example.evil"))
	f(every, 101, ask("Origin", "https://evil.example"))
	f(every, 101, ask("Origin", "null"))

	f(open, 400, ask("Host", ""))
	f(open, 400, ask("Upgrade", "h2c"))
	f(open, 400, ask("Connection", "close"))
	f(open, 400, ask("Sec-WebSocket-Key", "short"))
	f(open, 400, ask("Sec-WebSocket-Version", ""))
	f(open, 426, ask("Sec-WebSocket-Version", "8"))
	f(open, 405, bytes.Replace(ask(), []byte("GET"), []byte("PUT"), 1))
	f(open, 505, bytes.Replace(ask(), []byte("HTTP/1.1"), []byte("HTTP/1.0"), 1))
	f(open, 400, bytes.Replace(ask(), []byte("HTTP/1.1"), []byte("MQTT/5"), 1))
	f(open, 400, bytes.Replace(ask(), []byte(": "), []byte("  "), -1))
}

// TestARequestThatIsNoneIsClosedAtOnce: and one that is too long has an answer; none waits for the time limit.
func TestARequestThatIsNoneIsClosedAtOnce(t *testing.T) {
	w := newWorldBehind(t, layers{ws: true}, nil)
	f := func(want int, request string) {
		t.Helper()
		nc, err := net.Dial("tcp", w.addr)
		require.NoError(t, err)
		defer nc.Close()
		p := newPipe(nc)
		status, err := p.upgrade([]byte(request))
		require.Equal(t, want, status)
		require.Equal(t, want == 0, err != nil)
	}
	f(0, "\x16\x03\x01\x02\x00\x01")
	f(0, "POST /mqtt HTTP/1.1\r\n")
	f(505, "PRI * HTTP/2.0\r\n\r\n")
	f(431, "GET /mqtt HTTP/1.1\r\nCookie: "+strings.Repeat("x", upgradeMax))
	f(431, "GET /"+strings.Repeat("x", 64<<10))
	w.ends(5, "no WebSocket handshake")
}

// TestTheRequestMayComeByteByByte: however it is cut, and whatever follows.
func TestTheRequestMayComeByteByByte(t *testing.T) {
	w := newWorldBehind(t, layers{ws: true}, nil)
	nc, err := net.Dial("tcp", w.addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = nc.Close() })
	_, err = (&slicer{nc}).Write(append(upgradeRequest("/mqtt", "mqtt"), masked(0x82, hello{version: 5, id: "dev"}.packet())...))
	require.NoError(t, err)
	p := newPipe(nc)
	status, err := p.upgrade(nil)
	require.NoError(t, err)
	require.Equal(t, 101, status)
	first, err := bufio.NewReader(p).ReadByte()
	require.NoError(t, err)
	require.Equal(t, byte(0x20), first, "CONNACK")
}

// wsDevice is a device past CONNECT over WebSocket, and its pipe.
func wsDevice(w *world) (*client, *pipe) {
	w.t.Helper()
	c := w.device(5, "dev")
	return c, c.pipe.(*pipe)
}

// TestFramesThatBreakTheRulesEndTheConnection with the status for it, and what came before them was handled.
func TestFramesThatBreakTheRulesEndTheConnection(t *testing.T) {
	w := newWorldBehind(t, layers{ws: true}, nil)
	f := func(name string, want ws.StatusCode, frames ...[]byte) {
		t.Helper()
		c, p := wsDevice(w)
		c.publish(pub{topic: "t", payload: name})
		_, err := c.nc.Write(bytes.Join(frames, nil))
		require.NoError(t, err)
		require.Equal(t, name, string(w.next().Payload))
		c.closed()
		require.Equal(t, want, p.status, name)
	}
	half := masked(0x02, []byte{0xC0})
	f("text", ws.StatusUnsupportedData, masked(0x81, pingreq))
	f("begun text", ws.StatusUnsupportedData, masked(0x01, pingreq))
	f("not masked", ws.StatusProtocolError, []byte{0x82, 2, 0xC0, 0})
	f("control frame not masked", ws.StatusProtocolError, []byte{0x89, 0})
	f("reserved bit 1", ws.StatusProtocolError, masked(0xC2, pingreq))
	f("reserved bit 2", ws.StatusProtocolError, masked(0xA2, pingreq))
	f("reserved bit 3", ws.StatusProtocolError, masked(0x92, pingreq))
	f("reserved opcode", ws.StatusProtocolError, masked(0x83, pingreq))
	f("reserved control opcode", ws.StatusProtocolError, masked(0x8B, nil))
	f("long ping", ws.StatusProtocolError, masked(0x89, make([]byte, 126)))
	f("fragmented ping", ws.StatusProtocolError, masked(0x09, nil))
	f("continuation of nothing", ws.StatusProtocolError, masked(0x80, pingreq))
	f("a message in a message", ws.StatusProtocolError, half, masked(0x82, pingreq))
	f("half a status", ws.StatusProtocolError, masked(0x88, []byte{3}))
	f("larger than packets are", ws.StatusMessageTooBig, []byte{0x82, 0xFF, 0, 0, 0, 0, 1, 0, 0, 0, 1, 2, 3, 4})
	f("64 bits", ws.StatusProtocolError, []byte{0x82, 0xFF, 0xFF, 0, 0, 0, 1, 0, 0, 0, 1, 2, 3, 4})
	f("close", ws.StatusNormalClosure, masked(0x88, []byte{3, 0xE8}))
	f("close without a status", ws.StatusNormalClosure, masked(0x88, nil))
	w.ends(16, "bad WebSocket frame")
	w.ends(2, "connection lost")
}

// TestFramesAndPacketsHaveNothingToDoWithEachOther [MQTT-6.0.0-2]: packets in pieces, several in one frame, fragments
// with pings among them, empty frames.
func TestFramesAndPacketsHaveNothingToDoWithEachOther(t *testing.T) {
	for _, l := range []layers{{ws: true}, {tls: true, ws: true}} {
		w := newWorldBehind(t, l, nil)
		c, p := wsDevice(w)
		packets := cat(pub{topic: "t", payload: "a", qos: 1, id: 1}.packet(5), pub{topic: "t", payload: "b", qos: 1, id: 2}.packet(5))
		for size := 1; size <= len(packets); size++ {
			p.size = size
			c.send(packets)
			for _, id := range []uint16{1, 2} {
				w.ack(w.next())
				c.expect(puback(id))
			}
		}
		var b []byte
		b = append(b, masked(0x02, packets[:3])...)
		b = append(b, masked(0x89, []byte("ping"))...)
		b = append(b, masked(0x00, nil)...)
		b = append(b, masked(0x8A, []byte("a pong nobody asked for"))...)
		b = append(b, masked(0x80, packets[3:])...)
		b = append(b, masked(0x82, nil)...)
		_, err := p.Conn.Write(b)
		require.NoError(t, err)
		w.ack(w.next())
		w.ack(w.next())
		c.expect(puback(1), puback(2))
		c.ping()
		require.Equal(t, []string{"ping"}, p.pongs)
	}
}

// TestWebSocketPingsKeepNobodyAlive: the keep-alive of MQTT wants packets of MQTT.
func TestWebSocketPingsKeepNobodyAlive(t *testing.T) {
	w := newWorldBehind(t, layers{ws: true}, nil)
	c := w.connect(hello{version: 5, id: "dev", keep: 10})
	p := c.pipe.(*pipe)
	for range 20 {
		_, err := p.Conn.Write(masked(0x89, nil))
		require.NoError(t, err)
		w.pass(1)
	}
	c.goodbye(KeepAliveTimeout)
}

// TestPingsCostNoMemory: of a flood, those whose turn has passed have no answer, and the device is served on.
func TestPingsCostNoMemory(t *testing.T) {
	w := newWorldBehind(t, layers{ws: true}, nil)
	c, p := wsDevice(w)
	flood := bytes.Repeat(masked(0x89, bytes.Repeat([]byte("x"), 125)), 10_000)
	_, err := p.Conn.Write(flood)
	require.NoError(t, err)
	c.ping()
	require.NotEmpty(t, p.pongs)
	require.Less(t, len(p.pongs), 10_000)
}

// TestAPingIsAnsweredDuringAPause: a browser must not think that we are gone while Kafka is.
func TestAPingIsAnsweredDuringAPause(t *testing.T) {
	for _, l := range []layers{{ws: true}, {tls: true, ws: true}} {
		w := newWorldBehind(t, l, func(cfg *Config) { cfg.ReceiveMaximum = 1 })
		c := w.device(4, "dev")
		p := c.pipe.(*pipe)
		c.publish(pub{topic: "t", qos: 1, id: 1})
		c.publish(pub{topic: "t", qos: 1, id: 2})
		m := w.next()
		until(t, "the pause", func() bool { return count(w.s.m.paused) == 1 })
		_, err := p.Conn.Write(masked(0x89, []byte("there?")))
		require.NoError(t, err)
		c.ping()
		require.Equal(t, []string{"there?"}, p.pongs)
		_, err = p.Conn.Write(masked(0x88, []byte{3, 0xE8}))
		require.NoError(t, err)
		w.ends(1, "connection lost")
		m.Ack(Success)
	}
}

// TestShutdownSaysGoingAway to browsers, behind the DISCONNECT.
func TestShutdownSaysGoingAway(t *testing.T) {
	w := newWorldBehind(t, layers{ws: true}, nil)
	c, p := wsDevice(w)
	go w.s.Shutdown(t.Context())
	c.goodbye(ServerShuttingDown)
	require.Equal(t, ws.StatusGoingAway, p.status)
}

// unframed is what an unframer makes of pieces.
func unframed(u *unframer, pieces ...[]byte) (content []byte, err error) {
	for _, b := range pieces {
		var part []byte
		part, _, err = u.open(bytes.Clone(b))
		content = append(content, part...)
		if err != nil {
			return content, err
		}
	}
	return content, nil
}

// FuzzUnframe: whatever comes, and however it is cut, the outcome is the same, what is kept is no more than a header and
// a control frame, and what the library reads is what comes out.
func FuzzUnframe(f *testing.F) {
	f.Add(masked(0x82, pingreq), 3)
	f.Add(bytes.Join([][]byte{masked(0x02, []byte("abc")), masked(0x89, []byte("p")), masked(0x80, []byte("def"))}, nil), 9)
	f.Add(masked(0x82, bytes.Repeat([]byte("x"), 300)), 5)
	f.Add(masked(0x82, bytes.Repeat([]byte("x"), 70_000)), 70_001)
	f.Add(masked(0x88, []byte{3, 0xE8}), 1)
	f.Add([]byte{0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0, 5, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 12)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		cut = min(max(cut, 0), len(b))
		whole, pieces := &unframer{limit: 1 << 20}, &unframer{limit: 1 << 20}
		want, wantErr := unframed(whole, b)
		got, err := unframed(pieces, b[:cut], b[cut:])
		require.Equal(t, wantErr == nil, err == nil)
		require.Equal(t, string(want), string(got))
		require.LessOrEqual(t, len(want), len(b))
		require.Less(t, len(whole.head), ws.MaxHeaderSize)
		require.LessOrEqual(t, len(whole.control), ws.MaxControlFramePayloadSize)
		if wantErr == nil {
			require.Equal(t, string(byLibrary(b)), string(want))
		}
	})
}

// byLibrary reads the content of data frames, and of what there is of the last one.
func byLibrary(b []byte) (content []byte) {
	for r := bytes.NewReader(b); ; {
		h, err := ws.ReadHeader(r)
		if err != nil {
			return content
		}
		n := min(h.Length, int64(r.Len()))
		payload := make([]byte, n)
		_, _ = r.Read(payload)
		ws.Cipher(payload, h.Mask, 0)
		if !h.OpCode.IsControl() {
			content = append(content, payload...)
		}
	}
}

// FuzzUpgrade: whatever is asked, it is answered with HTTP, and yes only with the subprotocol.
func FuzzUpgrade(f *testing.F) {
	f.Add(upgradeRequest("/mqtt", "mqtt"))
	f.Add(upgradeRequest("/mqtt", "mqtt", "Origin", "https://evil.example"))
	f.Add([]byte("GET /mqtt HTTP/1.1\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := headEnd(b)
		require.LessOrEqual(t, n, len(b))
		if n == 0 || n > upgradeMax+readBuffer {
			return
		}
		answer, err := (&WebSocket{Path: "/mqtt"}).upgrade(bytes.Clone(b[:n]))
		resp, perr := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
		require.NoError(t, perr)
		require.Equal(t, err == nil, resp.StatusCode == http.StatusSwitchingProtocols)
		require.Equal(t, err == nil, resp.Header.Get("Sec-WebSocket-Protocol") == "mqtt")
	})
}
