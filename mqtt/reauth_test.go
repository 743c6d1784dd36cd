package mqtt

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// authPacket is an AUTH.
func authPacket(code Code, method, data string) []byte {
	return packet(0xF0, code, props(0x15, str(method), 0x16, str(data)))
}

// tokens is a doorman with a method "token", whose data is a word of its own.
func tokens(words map[string]*Identity) doorman {
	return func(ctx context.Context, l *Login) (*Identity, error) {
		switch who := words[string(l.Data)]; {
		case l.Method != "token":
			return nil, &ProtocolFault{BadAuthenticationMethod, "only tokens"}
		case string(l.Data) == "slow":
			<-ctx.Done()
			return nil, ctx.Err()
		case who == nil:
			return nil, &ProtocolFault{BadUserNameOrPassword, "no such token"}
		default:
			return who, nil
		}
	}
}

func withToken(id, word string) hello {
	return hello{version: 5, id: id, props: cat(0x15, str("token"), 0x16, str(word))}
}

// authenticated is connect with a token, and holds that CONNACK names the method [MQTT-4.12.0-5].
func (w *world) authenticated(word string) *client {
	w.t.Helper()
	c := w.connect(withToken("dev", word))
	r := cursor{b: c.connack[2:]}
	require.Contains(w.t, string(r.take(r.varint())), "\x15\x00\x05token")
	return c
}

func TestUnknownAuthenticationMethodIsRefused(t *testing.T) {
	refused := func(a Authenticator, method string) {
		t.Helper()
		w := newWorld(t, func(c *Config) { c.Authenticator = a })
		w.turnedAway(hello{version: 5, id: "dev", props: cat(0x15, str(method))}, 0x8C)
	}
	refused(nil, "token")
	refused(nil, "")
	refused(tokens(nil), "SCRAM-SHA-1")
	refused(tokens(nil), "")
	refused(trusting(nil), "") // it would look like none
}

func TestDeviceMayAuthenticateAgain(t *testing.T) {
	access := &rights{}
	soon := time.Now().Add(time.Hour)
	var again *Identity
	words := map[string]*Identity{
		"a": {Name: "ann", Until: soon},
		"b": {Name: "ann", Until: soon.Add(time.Hour), Access: access},
	}
	w := commands(t, guarded(func(ctx context.Context, l *Login) (*Identity, error) {
		again = l.Again
		return tokens(words)(ctx, l)
	}))
	c := w.authenticated("a")
	require.Nil(t, again)
	c.subscribe("t", 1)
	c.subscribe("u", 1)
	access.deny("subscribe t", "receive x")
	c.send(authPacket(ReAuthenticate, "token", "b"), pingreq)
	c.expect(packet(0xF0, Success, props(0x15, str("token"))), pingresp)
	require.Same(t, words["a"], again)
	w.s.sweep(soon)
	c.ping()
	n, _ := w.send(&Command{Topic: []byte("t")})
	require.Zero(t, n, "its new rights are less")
	c.publish(pub{topic: "t"})
	require.Same(t, words["b"], w.next().Identity())
	c.send(authPacket(ReAuthenticate, "token", "b"))
	c.expect(packet(0xF0, Success, props(0x15, str("token"))))
	w.s.sweep(soon.Add(time.Hour))
	c.goodbye(NotAuthorized)
}

func TestFailedReauthenticationEndsTheConnection(t *testing.T) {
	fails := func(what string, code Code, packet []byte) {
		t.Helper()
		words := map[string]*Identity{"a": {Name: "ann"}, "b": {Name: "bob"}, "over": {Name: "ann"}}
		w := newWorld(t, func(c *Config) {
			c.ConnectTimeout, c.Authenticator = time.Second, tokens(words)
		})
		c := w.authenticated("a")
		words["over"].Until = past()
		c.send(packet)
		c.goodbye(code)
		w.ended()
	}
	fails("a bad token", NotAuthorized, authPacket(ReAuthenticate, "token", "none")) // DISCONNECT has no 0x86
	fails("one that is over", NotAuthorized, authPacket(ReAuthenticate, "token", "over"))
	fails("another user", NotAuthorized, authPacket(ReAuthenticate, "token", "b"))
	fails("another method", ProtocolError, authPacket(ReAuthenticate, "tokem", "a"))
	fails("no answer in time", ServerBusy, authPacket(ReAuthenticate, "token", "slow")) // and no 0x88
	fails("no method", ProtocolError, packet(0xF0, ReAuthenticate, props(0x16, str("a"))))
	fails("no properties", ProtocolError, packet(0xF0, ReAuthenticate))
	fails("nothing", ProtocolError, packet(0xF0))
	fails("success, which is ours to say", ProtocolError, authPacket(Success, "token", "a"))
	fails("continue, where nothing goes on", ProtocolError, authPacket(ContinueAuthentication, "token", "a"))
	fails("reserved code", ProtocolError, authPacket(0x1A, "token", "a"))
	fails("method twice", ProtocolError, packet(0xF0, ReAuthenticate, props(0x15, str("token"), 0x15, str("token"))))
	fails("a property of others", MalformedPacket, packet(0xF0, ReAuthenticate, props(0x11, uint32(1))))
	fails("cut", MalformedPacket, packet(0xF0, ReAuthenticate, 9, 0x15))
	fails("bytes left over", MalformedPacket, packet(0xF0, ReAuthenticate, props(0x15, str("token")), 0))
}

func TestFaultsOfConnackInDisconnect(t *testing.T) {
	code := func(in, want Code) {
		t.Helper()
		var fault *ProtocolFault
		require.ErrorAs(t, disconnectFault(&ProtocolFault{in, "why"}), &fault)
		require.Equal(t, ProtocolFault{want, "why"}, *fault)
	}
	code(BadUserNameOrPassword, NotAuthorized)
	code(Banned, NotAuthorized)
	code(BadAuthenticationMethod, NotAuthorized)
	code(ServerUnavailable, ServerBusy)
	code(QuotaExceeded, QuotaExceeded)
	other := errors.New("x")
	require.Equal(t, other, disconnectFault(other))
}

func TestAuthWithoutAMethodInConnectIsAProtocolError(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		for _, p := range [][]byte{packet(0xF0), authPacket(ReAuthenticate, "", "a"), authPacket(ReAuthenticate, "token", "a")} {
			w := newWorld(t, guarded(func(context.Context, *Login) (*Identity, error) { return &Identity{}, nil }))
			c := w.device(v, "dev")
			c.send(p)
			c.goodbye(ProtocolError)
		}
	})
}

// TestKeepAliveSparesADeviceThatAuthenticatesAgain: what it sends meanwhile is not read.
func TestKeepAliveSparesADeviceThatAuthenticatesAgain(t *testing.T) {
	begun, proceed := make(chan struct{}), make(chan struct{})
	w := newWorld(t, guarded(func(_ context.Context, l *Login) (*Identity, error) {
		if l.Again != nil {
			close(begun)
			<-proceed
		}
		return &Identity{}, nil
	}))
	h := withToken("dev", "")
	h.keep = 2
	c := w.connect(h)
	c.send(authPacket(ReAuthenticate, "token", ""))
	<-begun
	w.pass(20)
	close(proceed)
	c.expect(packet(0xF0, Success, props(0x15, str("token"))))
	c.ping()
	w.pass(20)
	c.goodbye(KeepAliveTimeout)
}

func TestTakeoverAndShutdownEndAReauthentication(t *testing.T) {
	ends := func(code Code, end func(w *world)) {
		t.Helper()
		begun := make(chan struct{}, 1)
		words := map[string]*Identity{"a": {Name: "ann"}}
		w := newWorld(t, guarded(func(ctx context.Context, l *Login) (*Identity, error) {
			if l.Again != nil {
				begun <- struct{}{}
			}
			return tokens(words)(ctx, l)
		}))
		c := w.authenticated("a")
		c.send(authPacket(ReAuthenticate, "token", "slow"))
		<-begun
		end(w)
		c.goodbye(code)
	}
	ends(SessionTakenOver, func(w *world) { w.authenticated("a").ping() })
	ends(ServerShuttingDown, func(w *world) {
		done, _ := w.shutdown()
		w.returned(done)
	})
}

// TestFloodOfReauthenticationsIsReadSlowly: each costs the check of a proof.
func TestFloodOfReauthenticationsIsReadSlowly(t *testing.T) {
	w := newWorld(t, guarded(tokens(map[string]*Identity{"good": {Name: "u"}})))
	c := w.authenticated("good")
	flood := bytes.Repeat(authPacket(ReAuthenticate, "token", "good"), 200)
	c.send(flood)
	until(t, "delayed", func() bool { return count(w.s.limits.control) > 0 })
}
