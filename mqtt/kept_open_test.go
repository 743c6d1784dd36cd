package mqtt

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

func TestOpenThatFailsIsToldInConnack(t *testing.T) {
	fail := func(v byte, err error, want int) {
		t.Helper()
		w := keeping(t, nil)
		failing := true
		w.v.opening = func(context.Context, *Opening) error {
			if failing {
				return err
			}
			return nil
		}
		c := w.dial(v)
		c.send(persistent(v, "dev").packet())
		first, body := c.read()
		require.Equal(t, byte(0x20), first)
		require.Equal(t, []byte{0, byte(want)}, body[:2])
		c.closed()
		failing = false
		w.stored(v, "dev") // the client ID is free
	}
	fail(5, errNotNow, 0x88)
	fail(4, errNotNow, 3)
	fail(5, &ProtocolFault{NotAuthorized, "somebody else's"}, 0x87)
	fail(4, &ProtocolFault{NotAuthorized, "somebody else's"}, 5)
	fail(5, &ProtocolFault{ServerBusy, "not now"}, 0x89)
}

func TestClientIDIsFreeAfterAPanicOfTheStore(t *testing.T) {
	w := keeping(t, nil)
	w.v.opening = func(_ context.Context, o *Opening) error {
		if o.Username == "bad" {
			w.v.leave(o.ClientID)
			panic("a bug")
		}
		return nil
	}
	h := persistent(5, "dev")
	h.username = "bad"
	c := w.dial(5)
	c.send(h.packet())
	c.closed()
	w.stored(5, "dev")
}

func TestOpeningSaysWhatConnectSaid(t *testing.T) {
	w := keeping(t, func(c *Config) { c.SessionExpiryMax = time.Minute })
	h := delayed("dev", 7)
	h.username = "ada"
	w.connect(h)
	o := w.v.keeper("dev").o
	require.Equal(t, "dev", o.ClientID)
	require.Equal(t, "dev", o.Session.ClientID())
	require.Equal(t, "ada", o.Username)
	require.False(t, o.Clean)
	require.Equal(t, uint32(60), o.Expiry, "as granted")
	require.Equal(t, "will/dev", string(o.Will.Topic))
	require.Equal(t, uint32(7), o.WillDelay)
	require.Equal(t, "5", o.Version)
	require.NotNil(t, o.Remote)
	w.device(4, "other")
	o = w.v.keeper("other").o
	require.True(t, o.Clean)
	require.Zero(t, o.Expiry)
	require.Nil(t, o.Will)
	require.Equal(t, "3.1.1", o.Version)
}

// waiting is an opening of a vault that waits for its context, and tells that it does.
func waiting(begun chan<- struct{}) func(context.Context, *Opening) error {
	return func(ctx context.Context, _ *Opening) error {
		begun <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
}

// TestOpenIsGivenUpAfterTheConnectTimeout: the device hears that, and the log why.
func TestOpenIsGivenUpAfterTheConnectTimeout(t *testing.T) {
	log := &safeBuffer{}
	w := keeping(t, func(c *Config) { c.ConnectTimeout, c.Logger = time.Second, zerolog.New(log) })
	w.v.opening = waiting(make(chan struct{}, 1))
	c := w.dial(5)
	c.send(persistent(5, "dev").packet())
	first, body := c.read()
	require.Equal(t, byte(0x20), first)
	require.Equal(t, ServerUnavailable.String(), Code(body[1]).String())
	c.closed()
	require.NotContains(t, string(body), context.DeadlineExceeded.Error())
	until(t, "the line of the end", func() bool { return strings.Contains(log.String(), "device refused") })
	require.Contains(t, log.String(), `"error":"`+context.DeadlineExceeded.Error()+`"`)
}

func TestShutdownEndsAnOpen(t *testing.T) {
	w := keeping(t, nil)
	begun := make(chan struct{}, 1)
	w.v.opening = waiting(begun)
	c := w.dial(4)
	c.send(persistent(4, "dev").packet())
	<-begun
	done, _ := w.shutdown()
	w.returned(done)
}

// TestSecondConnectWaitsForTheOpenOfTheFirst: and then takes it over. If it ended the open, devices that share a client
// ID and connect again at once would never let one another through.
func TestSecondConnectWaitsForTheOpenOfTheFirst(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := keeping(t, nil)
		begun, proceed := make(chan struct{}, 1), make(chan struct{})
		var once sync.Once
		w.v.opening = func(context.Context, *Opening) error {
			once.Do(func() {
				begun <- struct{}{}
				<-proceed
			})
			return nil
		}
		first, second := w.dial(v), w.dial(v)
		first.send(persistent(v, "dev").packet())
		<-begun
		second.send(persistent(v, "dev").packet())
		close(proceed)
		for _, c := range []*client{first, second} {
			kind, body := c.read()
			require.Equal(t, []byte{0x20, 0}, []byte{kind, body[1]})
		}
		if v == 5 {
			_, body := first.read()
			require.Equal(t, SessionTakenOver, Code(body[0]))
		}
		first.closed()
		second.ping()
	})
}

// TestLeftFollowsAnOpenWhoseConnectionIsGone: the Store has taken the client ID, and must hear that nobody wants it.
func TestLeftFollowsAnOpenWhoseConnectionIsGone(t *testing.T) {
	gone := func(end func(w *keptWorld, c *client), reason string) {
		t.Helper()
		w := keeping(t, nil)
		begun, proceed := make(chan struct{}, 1), make(chan struct{})
		var once sync.Once
		w.v.opening = func(context.Context, *Opening) error {
			once.Do(func() {
				begun <- struct{}{}
				<-proceed
			})
			return nil
		}
		c := w.dial(5)
		c.send(persistent(5, "dev").packet())
		<-begun
		end(w, c)
		close(proceed)
		until(t, "opened", func() bool {
			w.v.mu.Lock()
			defer w.v.mu.Unlock()
			return len(w.v.keepers) > 0
		})
		w.v.mu.Lock()
		k := w.v.keepers[0]
		w.v.mu.Unlock()
		l := k.leaving()
		require.Equal(t, reason, l.Reason)
		require.False(t, l.Tidy)
		require.Equal(t, uint32(3600), l.Expiry)
	}
	gone(func(_ *keptWorld, c *client) { _ = c.nc.Close() }, "connection lost")
	gone(func(_ *keptWorld, c *client) { _ = c.nc.SetLinger(0); _ = c.nc.Close() }, "connection lost")
	gone(func(w *keptWorld, _ *client) {
		second := w.dial(5)
		second.send(persistent(5, "dev").packet())
	}, SessionTakenOver.String())
}

// TestLeftComesOnceAndBeforeTheNextOpen: the vault holds that at each Open and at the end.
func TestLeftComesOnceAndBeforeTheNextOpen(t *testing.T) {
	w := keeping(t, nil)
	w.v.setPrompt(true)
	var devices sync.WaitGroup
	for i := range 8 {
		devices.Go(func() {
			for n := range 10 {
				c := w.dial(byte(4 + i%2))
				_, _ = c.nc.Write(persistent(c.version, "dev").packet())
				if n%3 > 0 {
					_, _, _ = c.tryRead()
				}
				_ = c.nc.Close()
			}
		})
	}
	devices.Wait()
	w.ended()
}

func TestSessionPresentIsTheStores(t *testing.T) {
	bothVersions(t, func(t *testing.T, v byte) {
		w := keeping(t, nil)
		w.v.setPrompt(true)
		require.False(t, w.stored(v, "dev").present())
		require.True(t, w.stored(v, "dev").present())
		require.False(t, w.device(v, "dev").present(), "a clean start")
	})
}

// TestSessionWithoutAKeeperIsTheServers: it ends with its connection, and its will is published.
func TestSessionWithoutAKeeperIsTheServers(t *testing.T) {
	d := commands(t, func(c *Config) { c.Store = nobody{} })
	h := delayed("dev", 1000)
	c := d.connect(h)
	c.subscribe("t", 1)
	cmd := d.command("t", "0", 1)
	c.gets(0, 1, 1, 1)
	require.NoError(t, c.nc.Close())
	d.expectWill("dev")
	d.became(cmd, "dev offline: not_acknowledged")
	require.False(t, d.connect(h).present())
}

// nobody is a Store that keeps nothing.
type nobody struct{}

func (nobody) Admits(string, string) bool { return true }

func (nobody) Full() bool { return false }

func (nobody) Open(context.Context, *Opening) (*Opened, error) { return &Opened{}, nil }
