package test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/test/internal/notrun"
	"sluice/test/internal/wire"
	"sluice/tls/tlstest"
)

// guardedGroups are the parts of the table that need security configured.
func guardedGroups() []hostileGroup {
	return []hostileGroup{
		{"TLS", tlsRows()},
		{"PROXY protocol", proxyRows()},
		{"Logins", loginRows()},
		{"Rights", rightRows()},
		{"Limits", limitRows()},
		{"WebSocket", webRows()},
	}
}

const welcome = "CONNACK 0x00, connected"

// certified connects with a certificate of a CA. With TLS 1.3 the server says no after the client's handshake is done.
func certified(issue func(a *attacker) (cert, key string)) func(*attacker) string {
	return func(a *attacker) string {
		cert, key := issue(a)
		return a.introduced(a.secured(cert, key))
	}
}

// introduced says CONNECT as nobody but the owner of the certificate.
func (a *attacker) introduced(err error) string {
	if err != nil {
		return ending(err)
	}
	h := a.greeting()
	h.Username, h.Password = "", ""
	a.send(h.Packet())
	return a.answer()
}

// ours is a certificate of the CA that signs devices.
func ours(cn string, opts ...tlstest.Option) func(a *attacker) (cert, key string) {
	return func(a *attacker) (string, string) { return a.guard.ca.Client(a.t, a.guard.dir, cn, opts...) }
}

func tlsRows() []hostileRow {
	const clause = "RFC 8446"
	raw := func(b ...byte) func(*attacker) string {
		return func(a *attacker) string {
			a.at(a.guard.tls)
			a.send(b)
			return a.shut()
		}
	}
	return []hostileRow{
		{"a good certificate, for comparison", welcome, welcome, "", certified(ours("good"))},
		{"an expired certificate", closed, closed, clause, certified(ours("late", tlstest.Expired()))},
		{"a certificate that is not valid yet", closed, closed, clause, certified(ours("early", tlstest.NotYet()))},
		{"a revoked certificate", closed, closed, clause, certified(ours("gone", tlstest.Serial(revokedCert)))},
		{"a certificate of another CA", closed, closed, clause, func(a *attacker) string {
			cert, key := a.guard.foreign.Client(a.t, a.guard.dir, "stranger")
			return a.introduced(a.obtrusive(cert, key))
		}},
		{"a certificate for servers", closed, closed, clause, certified(func(a *attacker) (string, string) {
			return a.guard.ca.Server(a.t, a.guard.dir, "127.0.0.1")
		})},
		{"a common name with +, #, / or a control character", closed, closed, "", each(certified(ours("a/+")), certified(ours("#")), certified(ours("a\x1bb")))},
		{"MQTT or HTTP on a TLS listener", closed, closed, clause, each(raw(wire.Hello{Version: 5, ID: "x"}.Packet()...), raw([]byte("GET / HTTP/1.1\r\n\r\n")...))},
		{"half a ClientHello, then silence", closed, closed, "limits.connect_timeout", raw(0x16, 3, 1, 2, 0, 1, 0, 1)},
		{"a ClientHello that is no ClientHello", closed, closed, clause, raw(append([]byte{0x16, 3, 1, 0, 64, 1, 0, 0, 60}, make([]byte, 60)...)...)},
		{"a record of 64 KiB", closed, closed, clause, raw(append([]byte{0x16, 3, 3, 0xFF, 0xFF}, make([]byte, 70_000)...)...)},
		{"renegotiation, in TLS 1.2", closed, closed, "RFC 5246, 7.2.2", renegotiating},
		{"records that are no ciphertext, after the handshake", closed, closed, clause, tornRecords},
	}
}

// renegotiating has openssl, for whom the line R means that, do it. It ends when the server ends the connection.
func renegotiating(a *attacker) string {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		notrun.Because(a.t, false, "", "there is no openssl on this machine. Remedy: install it")
	}
	ctx, cancel := context.WithTimeout(a.t.Context(), 20*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, openssl, "s_client", "-connect", a.guard.tls, "-tls1_2", "-CAfile", a.guard.authority)
	ask, err := c.StdinPipe() // stays open, so that it is not openssl that ends
	require.NoError(a.t, err)
	defer ask.Close()
	_, err = ask.Write([]byte("R\n"))
	require.NoError(a.t, err)
	said, _ := c.CombinedOutput()
	require.NoError(a.t, ctx.Err(), "the connection goes on: %s", said)
	require.Contains(a.t, string(said), "RENEGOTIATING")
	require.Contains(a.t, string(said), "SSL alert number", "the server says why")
	return closed
}

// tornRecords writes past the encryption.
func tornRecords(a *attacker) string {
	nc := a.at(a.guard.tls)
	c, err := tlstest.Client(a.t.Context(), nc, a.guard.ca.ClientConfig(a.t, "127.0.0.1"))
	require.NoError(a.t, err)
	_, err = c.Write(a.greeting().Packet())
	require.NoError(a.t, err)
	a.send(append([]byte{0x17, 3, 3, 0, 200}, make([]byte, 200)...))
	return a.shut()
}

func proxyRows() []hostileRow {
	header := func(address func(a *attacker) string, b string) func(*attacker) string {
		return func(a *attacker) string {
			a.at(address(a))
			a.send([]byte(b), a.greeting().Packet())
			return a.answer()
		}
	}
	trusted := func(a *attacker) string { return a.guard.proxied }
	distrusted := func(a *attacker) string { return a.guard.other }
	const one = "PROXY TCP4 10.9.9.9 10.1.1.2 1000 1883\r\n"
	const two = "\r\n\r\n\x00\r\nQUIT\n"
	bad := []string{"", "PROXY\r\n", "PROXY TCP4 10.9.9.9\r\n", "PROXY TCP4 300.1.1.1 10.1.1.2 1000 1883\r\n", "PROXY TCP4 10.9.9.9 10.1.1.2 99999 1883\r\n",
		"PROXY " + strings.Repeat("x", 200), "PROXY TCP4 10.9.9.9 10.1.1.2 1000 1883\n", two + "\x31\x11\x00\x0c" + strings.Repeat("\x01", 12),
		two + "\x21\x11\x00\x04" + strings.Repeat("\x01", 4)}
	var tries []func(*attacker) string
	for _, b := range bad {
		tries = append(tries, header(trusted, b))
	}
	const clause = "proxy_protocol"
	return []hostileRow{
		{"a header of a trusted peer, for comparison", welcome, welcome, clause, header(trusted, one)},
		{"a header, version 1 or 2, of an untrusted peer", closed, closed, clause, each(header(distrusted, one),
			header(distrusted, two+"\x21\x11\x00\x0c"+strings.Repeat("\x01", 12)))},
		{"no header, a broken one, one without an end, from a trusted peer", closed, closed, clause, each(tries...)},
		{"half a header, then silence", closed, closed, "limits.connect_timeout", func(a *attacker) string {
			a.at(a.guard.proxied)
			a.send([]byte("PROXY TCP4 10.9"))
			return a.shut()
		}},
		{"two headers", closed, closed, clause, header(trusted, one+one)},
	}
}

func loginRows() []hostileRow {
	login := func(user, password string) func(*attacker) string {
		return saying(func(h *wire.Hello) { h.Username, h.Password = user, password })
	}
	return []hostileRow{
		{"no user name", "CONNACK 0x04, closed", "CONNACK 0x86, closed", "section 3.2.2.2", login("", "")},
		{"a wrong password", "CONNACK 0x04, closed", "CONNACK 0x86, closed", "section 3.2.2.2", login(goodUser, hostilePassword)},
		{"an unknown user: the same answer", "CONNACK 0x04, closed", "CONNACK 0x86, closed", "section 3.2.2.2", login("nobody", hostilePassword)},
		{"a password of 60 000 bytes, or with U+0000", "CONNACK 0x04, closed", "CONNACK 0x86, closed", "section 3.2.2.2", each(
			login(goodUser, strings.Repeat("p", 60_000)), login(goodUser, goodPassword+"\x00"))},
		{"10 000 wrong passwords from one address", "", "CONNACK 0x89, closed", "limits.failed_logins", passwordStorm},
	}
}

// guesses is how many passwords are tried, at so many connections at a time as one address may have.
const (
	guesses       = 10_000
	guessesAtOnce = 1000
)

// passwordStorm guesses from an address of its own. Each of the many gets the answer, and other addresses are served.
func passwordStorm(a *attacker) string {
	todo := make(chan int)
	answers := make(chan string, guesses)
	var wg sync.WaitGroup
	for w := range guessesAtOnce {
		wg.Go(func() {
			for n := range todo {
				answers <- a.guess(fmt.Sprintf("guess-%d-%d", w, n))
			}
		})
	}
	for n := range guesses {
		todo <- n
		if n%1000 == 0 {
			other := *a
			other.from, other.id = net.IPv4(127, 0, 4, 1), "other"
			other.connect()
			require.Equal(a.t, connected, other.ping(nil))
		}
	}
	close(todo)
	wg.Wait()
	close(answers)
	last := ""
	for last = range answers {
		require.Contains(a.t, []string{"CONNACK 0x86, closed", "CONNACK 0x89, closed"}, last)
	}
	return last
}

// guess tries a password, of a user that may not exist.
func (a *attacker) guess(password string) string {
	b := *a
	b.dial()
	defer b.conn.Close()
	h := b.greeting()
	h.ID, h.Password = password, password
	b.send(h.Packet())
	return b.answer()
}

func rightRows() []hostileRow {
	const forbidden = "PUBACK 0x87, connected"
	claiming := func(id string, then func(h wire.Hello) []byte) func(*attacker) string {
		return func(a *attacker) string {
			h := a.greeting()
			h.ID = id
			a.connectAs(h)
			a.send(then(h))
			return a.answer()
		}
	}
	subscribe := func(filter string) func(wire.Hello) []byte {
		return func(h wire.Hello) []byte { return wire.Subscribe(h.Version, 1, nil, wire.Filter{Name: filter}) }
	}
	will := func(w wire.Will) func(*attacker) string {
		return saying(func(h *wire.Hello) {
			own := w
			own.Topic = strings.ReplaceAll(w.Topic, "MINE", h.ID)
			h.Will = &own
		})
	}
	const acl = "acl"
	return []hostileRow{
		{"a will on a topic that is denied", "CONNACK 0x05, closed", "CONNACK 0x87, closed", acl, will(wire.Will{Topic: "devices/other/telemetry/x"})},
		{"a retained will without the right", "CONNACK 0x05, closed", "CONNACK 0x87, closed", acl, will(wire.Will{Topic: "devices/MINE/telemetry/x", Retain: true})},
		{"PUBLISH to a topic that is denied, or another's", closed, forbidden, acl, each(to("devices/other/telemetry/x"), publishing(func(p *wire.Publish) {
			p.Topic = strings.TrimSuffix(p.Topic, "t") + "forbidden"
		}))},
		{"the same by a topic alias", "", "PUBACK 0x87, connected", acl, deniedAlias},
		{"a retained PUBLISH without the right", closed, forbidden, acl, publishing(func(p *wire.Publish) { p.Retain = true })},
		{"SUBSCRIBE to #, +/+/x, $share/g/#, another's topic", failure, "SUBACK 0x87, connected", acl, each(
			subscribing("#", 0), subscribing("+/+/x", 0), subscribing("$share/g/#", 0), subscribing("devices/other/x", 0))},
		{"the client IDs +, #, a/b: no filter gets wider", failure, "SUBACK 0x87, connected", acl, each(
			claiming("+", subscribe("devices/+/x")), claiming("#", subscribe("devices/#")), claiming("a/b", subscribe("devices/a/b/x")))},
	}
}

// deniedAlias sets an alias for a topic that is denied, then uses it.
func deniedAlias(a *attacker) string {
	a.connect()
	for _, topic := range []string{"devices/other/telemetry/x", ""} {
		a.send(wire.Publish{Topic: topic, QoS: 1, ID: 5, Properties: wire.Properties(0x23, uint16(1))}.Packet(5))
		r, err := wire.Read(a.in)
		require.NoError(a.t, err)
		require.Equal(a.t, "PUBACK 0x87", r.String())
	}
	return a.ping([]string{"PUBACK 0x87"})
}

func limitRows() []hostileRow {
	users := func(n int) []byte {
		var b []byte
		for range n {
			b = append(b, wire.User("k", "v")...)
		}
		return wire.Properties(b)
	}
	deep := strings.Repeat("/x", 30)
	return []hostileRow{
		{"more User Properties than limits.user_properties in CONNECT", "", "CONNACK 0x97, closed", "section 3.2.2.2",
			saying(func(h *wire.Hello) { h.Properties = users(20) })},
		{"the same in PUBLISH", "", "DISCONNECT 0x97, closed", "section 3.14.2.1", publishing(func(p *wire.Publish) { p.Properties = users(20) })},
		{"more levels than limits.topic_levels in PUBLISH", closed, "PUBACK 0x90, connected", "section 3.4.2.1", publishing(func(p *wire.Publish) { p.Topic += deep })},
		{"the same in SUBSCRIBE", failure, "SUBACK 0x8F, connected", "section 3.9.3", greeted(func(a *attacker) []byte {
			return wire.Subscribe(a.version, 1, nil, wire.Filter{Name: "devices/" + a.id + deep})
		})},
		{"more messages a second than limits.publishes_per_second, over_rate: disconnect", closed, "DISCONNECT 0x97, closed", "section 3.14.2.1", tooFast},
		{"more connections than limits.connections_per_address", closed, closed, "", tooMany},
	}
}

// tooFast sends messages with QoS 0 in one go.
func tooFast(a *attacker) string {
	a.connect()
	one := wire.Publish{Topic: a.topic(), Payload: "x"}.Packet(a.version)
	a.send(bytes.Repeat(one, 5000))
	return a.answer()
}

// tooMany opens idle connections from an address of its own until one is closed.
func tooMany(a *attacker) string {
	for range 1200 {
		a.dial()
	}
	a.send(a.greeting().Packet())
	return a.answer()
}
