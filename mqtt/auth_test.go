package mqtt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A doorman is an Authenticator.
type doorman func(ctx context.Context, l *Login) (*Identity, error)

func (d doorman) Authenticate(ctx context.Context, l *Login) (*Identity, error) { return d(ctx, l) }

// guarded is a Config with a doorman.
func guarded(d doorman) func(*Config) {
	return func(c *Config) { c.Authenticator = d }
}

// trusting lets in whoever has a password, as who the user name says, with the rights of everybody.
func trusting(a Access) doorman {
	return func(_ context.Context, l *Login) (*Identity, error) {
		if !l.HasPassword {
			return nil, &ProtocolFault{BadUserNameOrPassword, "no password"}
		}
		return &Identity{Name: l.Username, Access: a}, nil
	}
}

// as is h with a user name and a password.
func (h hello) as(username string) hello {
	h.username, h.password = username, "secret"
	return h
}

// turnedAway says h, and takes the CONNACK that says no with this code and the end; code 0: no CONNACK.
func (w *world) turnedAway(h hello, code byte) {
	w.t.Helper()
	c := w.dial(h.version)
	c.send(h.packet())
	if code != 0 {
		first, body := c.read()
		require.Equal(w.t, byte(0x20), first, "CONNACK")
		require.Equal(w.t, []byte{0, code}, body[:2], "Session Present and reason code")
	}
	c.closed()
	_ = c.nc.Close() // the server would wait for it a moment
}

func TestRefusalsAreToldInTheCodesOfTheVersion(t *testing.T) {
	refuse := func(err error, v3, v5 byte) {
		t.Helper()
		w := newWorld(t, guarded(func(context.Context, *Login) (*Identity, error) { return nil, err }))
		w.turnedAway(hello{version: 4, id: "dev"}, v3)
		w.turnedAway(hello{version: 5, id: "dev"}, v5)
		w.ended()
	}
	refuse(&ProtocolFault{BadUserNameOrPassword, "x"}, 4, 0x86)
	refuse(fmt.Errorf("wrapped: %w", &ProtocolFault{BadUserNameOrPassword, "x"}), 4, 0x86)
	refuse(&ProtocolFault{NotAuthorized, "x"}, 5, 0x87)
	refuse(&ProtocolFault{Banned, "x"}, 5, 0x8A)
	refuse(&ProtocolFault{ServerUnavailable, "x"}, 3, 0x88)
	refuse(&ProtocolFault{ServerBusy, "x"}, 3, 0x89)
	refuse(&ProtocolFault{ServerShuttingDown, "x"}, 3, 0x88) // 0x8B is of DISCONNECT
	refuse(&ProtocolFault{QuotaExceeded, "x"}, 3, 0x97)
	refuse(&ProtocolFault{ClientIdentifierNotValid, "x"}, 2, 0x85)
	refuse(&ProtocolFault{BadAuthenticationMethod, "x"}, 0, 0x8C)
	refuse(errors.New("no connection to the users"), 3, 0x88)
	refuse(&ProtocolFault{Success, "a fault that is none"}, 3, 0x88)
	refuse(nil, 3, 0x88) // neither an error nor an identity: nobody gets in by mistake
}

func TestLoginSaysWhatConnectSaid(t *testing.T) {
	var got Login
	w := newWorld(t, guarded(func(ctx context.Context, l *Login) (*Identity, error) {
		got = *l
		got.Password, got.Data = []byte(string(l.Password)), []byte(string(l.Data))
		_, limited := ctx.Deadline()
		require.True(t, limited)
		return &Identity{Name: l.Username}, nil
	}))
	bothVersions(t, func(t *testing.T, v byte) {
		w.connect(hello{version: v, id: "dev"}.as("ann"))
		require.Equal(t, Login{ClientID: "dev", Username: "ann", HasUsername: true, Password: []byte("secret"), HasPassword: true, Remote: got.Remote, Data: []byte{}}, got)
		require.Contains(t, got.Remote.String(), "127.0.0.1:")
		w.device(v, "other")
		require.False(t, got.HasUsername || got.HasPassword)
		c := w.dial(v)
		c.send(packet(0x10, str("MQTT"), v, 0xC2, uint16(0), c.none(), str("dev2"), str(""), str("")))
		_, body := c.read()
		require.Zero(t, body[1])
		require.True(t, got.HasUsername && got.HasPassword, "empty ones are there too")
		w.device(v, "")
		require.Contains(t, got.ClientID, "auto-")
	})
	w.connect(hello{version: 5, id: "other", props: cat(0x15, str("token"), 0x16, str("abc"))})
	require.Equal(t, "token", got.Method)
	require.Equal(t, "abc", string(got.Data))
}

func TestPrincipalIsTheUserOfMessagesAndSessions(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		who := &Identity{Name: "plant-7", CommonName: "cn"}
		door := guarded(func(context.Context, *Login) (*Identity, error) { return who, nil })
		w := newWorld(t, door)
		h := willed(v, "dev")
		h.username = "whatever"
		c := w.connect(h)
		c.publish(pub{topic: "t", qos: 1, id: 1})
		m := w.next()
		require.Equal(t, "plant-7", m.Username)
		require.Same(t, who, m.Identity())
		w.ack(m)
		c.lost()
		m = w.expectWill("dev")
		require.Equal(t, "plant-7", m.Username)
		require.Same(t, who, m.Identity())

		k := keeping(t, door)
		k.connect(h)
		require.Equal(t, "plant-7", k.v.keeper("dev").o.Username)
		require.Equal(t, "plant-7", k.v.keeper("dev").o.Will.Username)
	})
}

// TestNothingIsTouchedBeforeAuthentication: a device that is not let in ends no connection, publishes no will, and
// leaves stored sessions as they are.
func TestNothingIsTouchedBeforeAuthentication(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		d := commands(t, guarded(trusting(nil)))
		on := d.connect(persistent(v, "on").as("ann"))
		away := d.connect(persistent(v, "away").as("ann"))
		away.subscribe("t", 1)
		away.lost()
		d.left("away")
		cmd := d.command("t", "0", 1)
		for _, clean := range []bool{false, true} {
			for _, id := range []string{"on", "away", "new"} {
				h := willed(v, id)
				h.persist = !clean
				d.turnedAway(h, map[byte]byte{4: 4, 5: 0x86}[v])
			}
		}
		on.ping()
		d.waits(cmd)
		s, _ := d.s.sessions.find("new")
		require.Nil(t, s)
		away = d.connect(persistent(v, "away").as("ann"))
		require.True(t, away.present())
		away.gets(0, 1, 1, 1)
		until(t, "those turned away have gone", func() bool { return d.open() == 2 })
		d.noMessage()
	})
}

func TestStoreIsNotAskedBeforeAuthentication(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := keeping(t, guarded(trusting(nil)))
		w.turnedAway(persistent(v, "dev"), map[byte]byte{4: 4, 5: 0x86}[v])
		w.v.mu.Lock()
		defer w.v.mu.Unlock()
		require.Empty(t, w.v.keepers)
		require.Empty(t, w.v.stored)
	})
}

// TestClientIDOfAnotherUserIsRefused as long as that has a session, with a connection or without.
func TestClientIDOfAnotherUserIsRefused(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, guarded(trusting(nil)))
		foreign := map[byte]byte{4: 5, 5: 0x87}[v]
		thief := persistent(v, "dev").as("bob")
		clean := hello{version: v, id: "dev"}.as("bob")
		c := w.connect(persistent(v, "dev").as("ann"))
		w.turnedAway(thief, foreign)
		w.turnedAway(clean, foreign)
		c.ping()
		c.lost()
		w.left("dev")
		w.turnedAway(thief, foreign)
		w.turnedAway(clean, foreign)
		require.True(t, w.connect(persistent(v, "dev").as("ann")).present())
		c = w.connect(hello{version: v, id: "dev"}.as("ann")) // ends with its connection
		c.lost()
		until(t, "the session has ended", func() bool { s, _ := w.s.sessions.find("dev"); return s == nil })
		require.False(t, w.connect(thief).present())
	})
}

func TestPanicOfTheAuthenticatorCostsOneConnection(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, guarded(func(_ context.Context, l *Login) (*Identity, error) {
			if l.ClientID == "bad" {
				panic("a bug")
			}
			return &Identity{}, nil
		}))
		c := w.device(v, "dev")
		w.turnedAway(hello{version: v, id: "bad"}, 0)
		c.ping()
		require.Equal(t, 1, count(w.s.m.panics))
	})
}

func TestAuthenticationIsGivenUpAfterTheConnectTimeout(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, func(c *Config) {
			c.ConnectTimeout = time.Second // enough to read CONNECT on a busy machine
			c.Authenticator = doorman(func(ctx context.Context, _ *Login) (*Identity, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
		})
		w.turnedAway(hello{version: v, id: "dev"}, map[byte]byte{4: 3, 5: 0x88}[v])
	})
}

func TestShutdownEndsAnAuthentication(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		begun := make(chan struct{}, 1)
		w := newWorld(t, guarded(func(ctx context.Context, _ *Login) (*Identity, error) {
			begun <- struct{}{}
			<-ctx.Done()
			return &Identity{}, nil // too late
		}))
		c := w.dial(v)
		c.send(willed(v, "dev").packet())
		<-begun
		done, _ := w.shutdown()
		w.returned(done)
		first, body := c.read()
		require.Equal(t, []byte{0x20, map[byte]byte{4: 3, 5: 0x88}[v]}, []byte{first, body[1]})
		c.closed()
		w.noMessage()
	})
}

// TestSlowAuthenticationHoldsUpNobodyElse, not even one with the same client ID.
func TestSlowAuthenticationHoldsUpNobodyElse(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		begun, proceed := make(chan struct{}), make(chan struct{})
		w := newWorld(t, guarded(func(_ context.Context, l *Login) (*Identity, error) {
			if l.Username == "slow" {
				close(begun)
				<-proceed
			}
			return &Identity{Name: "ann"}, nil
		}))
		slow := w.dial(v)
		slow.send(persistent(v, "dev").as("slow").packet())
		<-begun
		c := w.stored(v, "dev")
		c.ping()
		close(proceed)
		first, body := slow.read()
		require.Equal(t, []byte{0x20, 1, 0}, []byte{first, body[0], body[1]})
		c.goodbye(SessionTakenOver)
	})
}

func TestManyAuthenticateAtOnce(t *testing.T) {
	access := &rights{}
	access.deny("receive u", "will no")
	w := commands(t, guarded(func(_ context.Context, l *Login) (*Identity, error) {
		if l.Username == "out" {
			return nil, &ProtocolFault{NotAuthorized, "out"}
		}
		return &Identity{Name: l.Username, Access: access}, nil
	}))
	w.answer = func(m *Message) { m.Ack(Success) }
	var devices sync.WaitGroup
	for i := range 8 {
		devices.Go(func() {
			for n := range 20 {
				h := persistent(byte(4+n%2), fmt.Sprint("dev", i%4))
				h.username = []string{"ann", "bob", "out"}[n%3]
				h.will = &lastWill{topic: []string{"t", "no"}[n%2]}
				c := w.dial(h.version)
				c.post(h.packet(), subscribePacket(h.version, 1, "#", 1), pub{topic: "t", qos: 1, id: 1}.packet(h.version))
				_, _, _ = c.tryRead()
				_ = c.nc.Close()
			}
		})
	}
	for range 50 {
		w.send(&Command{Topic: []byte("t"), QoS: 1})
		w.send(&Command{Topic: []byte("u"), QoS: 1})
		access.deny("subscribe #")
		access.allow("subscribe #")
		w.pass(1)
	}
	devices.Wait()
	w.ended()
	require.Zero(t, count(w.s.m.panics))
}

// TestConnectionEndsWithItsCredentials at the first second after that.
func TestConnectionEndsWithItsCredentials(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		until := time.Now().Add(time.Hour)
		w := newWorld(t, guarded(func(_ context.Context, l *Login) (*Identity, error) {
			if l.Username == "" {
				return &Identity{}, nil
			}
			return &Identity{Until: until}, nil
		}))
		other := w.device(v, "other")
		h := willed(v, "dev")
		h.username = "ann"
		c := w.connect(h)
		w.s.sweep(until.Add(-time.Second))
		c.ping()
		w.s.sweep(until)
		c.goodbye(NotAuthorized)
		w.expectWill("dev")
		other.ping()
	})
}

func TestCredentialsThatAreOverLetNobodyIn(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := newWorld(t, guarded(func(context.Context, *Login) (*Identity, error) { return &Identity{Until: past()}, nil }))
		w.turnedAway(hello{version: v, id: "dev"}, map[byte]byte{4: 5, 5: 0x87}[v])
	})
}
