package test

import (
	"bufio"
	"errors"
	"fmt"
	"strings"

	"sluice/test/internal/wire"
)

// upgrading asks for a WebSocket and says CONNECT on it.
func upgrading(path string, fields ...string) func(*attacker) string {
	return func(a *attacker) string {
		if got := a.upgrade(path, fields...); got != "" {
			return got
		}
		a.send(a.greeting().Packet())
		return a.answer()
	}
}

// upgrade opens a WebSocket; "" if the server agrees.
func (a *attacker) upgrade(path string, fields ...string) string {
	nc := a.at(a.guard.web)
	s, err := wire.OpenSocket(nc, wire.Upgrade(a.guard.web, path, fields...))
	var status wire.StatusError
	if errors.As(err, &status) {
		return fmt.Sprintf("HTTP %d, %s", status, a.shut())
	}
	if err != nil {
		return ending(err)
	}
	a.conn, a.in = s, bufio.NewReader(s)
	return ""
}

// framing sends bytes past the framing on a WebSocket on which CONNECT was accepted.
func framing(b ...[]byte) func(*attacker) string {
	return func(a *attacker) string {
		if got := a.upgrade("/mqtt", wire.SubprotocolMQTT); got != "" {
			return got
		}
		a.send(a.greeting().Packet())
		if r, err := wire.Read(a.in); err != nil || r.String() != "CONNACK 0x00" {
			return fmt.Sprint(r, err)
		}
		for _, p := range b {
			_ = a.conn.(*wire.Socket).Raw(p)
		}
		return a.status()
	}
}

// status is the close frame in the end; packets before it are not looked at.
func (a *attacker) status() string {
	for {
		_, err := a.in.ReadByte()
		var code wire.CloseError
		switch {
		case errors.As(err, &code):
			return fmt.Sprintf("close %d, %s", code, closed)
		case err != nil:
			return ending(err)
		}
	}
}

func webRows() []hostileRow {
	const rfc = "RFC 6455"
	unmasked := []byte{wire.Final | wire.OpBinary, 2, wire.PINGREQ, 0}
	huge := []byte{wire.Final | wire.OpBinary, 0xFF, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4}
	negative := []byte{wire.Final | wire.OpBinary, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}
	origin := func(o string) string { return "Origin: " + o + "\r\n" }
	plain := func(b string) func(*attacker) string {
		return func(a *attacker) string {
			a.at(a.guard.web)
			a.send([]byte(b))
			return a.shut()
		}
	}
	return []hostileRow{
		{"a page of an allowed origin, for comparison", welcome, welcome, "", upgrading("/mqtt", wire.SubprotocolMQTT, origin("https://console.example"))},
		{"a page of a foreign origin", "HTTP 403, closed", "HTTP 403, closed", "RFC 6455, 4.2.2", each(
			upgrading("/mqtt", wire.SubprotocolMQTT, origin("https://evil.example")), upgrading("/mqtt", wire.SubprotocolMQTT, origin("null")),
			upgrading("/mqtt", wire.SubprotocolMQTT, origin("https://console.example"), origin("https://evil.example")))},
		{"another path", "HTTP 404, closed", "HTTP 404, closed", rfc, upgrading("/elsewhere", wire.SubprotocolMQTT)},
		{"without the subprotocol mqtt", "HTTP 400, closed", "HTTP 400, closed", "MQTT-6.0.0-3", upgrading("/mqtt")},
		{"MQTT or TLS on a WebSocket listener", closed, closed, rfc, each(plain(string(wire.Hello{Version: 5, ID: "x"}.Packet())), plain("\x16\x03\x01\x02\x00\x01"))},
		{"an HTTP request without an end, of more than 8 KiB", closed, closed, rfc, plain("GET /mqtt HTTP/1.1\r\nHost: " + strings.Repeat("x", 20_000))},
		{"half an HTTP request, then silence", closed, closed, "limits.connect_timeout", plain("GET /mqtt HTTP/1.1\r\nHost: x\r\n")},
		{"a text frame", "close 1003, closed", "close 1003, closed", "MQTT-6.0.0-1", framing(wire.Frame(wire.Final|wire.OpText, wire.Ping()))},
		{"a frame without a mask, with reserved bits, with a reserved opcode", "close 1002, closed", "close 1002, closed", rfc, each(
			framing(unmasked), framing(wire.Frame(wire.Final|0x40|wire.OpBinary, wire.Ping())), framing(wire.Frame(wire.Final|3, wire.Ping())))},
		{"a continuation of nothing, a control frame in pieces, one of 200 bytes", "close 1002, closed", "close 1002, closed", rfc, each(
			framing(wire.Frame(wire.Final|wire.OpContinuation, wire.Ping())), framing(wire.Frame(wire.OpPing, []byte("x"))),
			framing(wire.Frame(wire.Final|wire.OpPing, make([]byte, 200))))},
		{"a frame of a terabyte", "close 1009, closed", "close 1009, closed", rfc, framing(huge)},
		{"a frame of a negative length", "close 1002, closed", "close 1002, closed", rfc, framing(negative)},
	}
}
