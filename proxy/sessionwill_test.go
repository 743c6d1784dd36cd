package proxy

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/kafka"
	"sluice/proxy/config"
	"sluice/tls/tlstest"
)

// withWills has a rule for the wills of the tests.
const withWills = "publish: [{match: \"wills/{id}\", topic: wills, key: \"{id}\"}]\npresence: {topic: presence}\n" + toOne

// wills gives the payloads of the wills that Kafka has, sorted.
func (s *site) wills() (all []string) {
	for _, r := range s.of("wills") {
		all = append(all, string(r.Value))
	}
	slices.Sort(all)
	return all
}

// published waits until Kafka has these wills, and as many.
func (s *site) published(want ...string) {
	s.t.Helper()
	s.until(fmt.Sprint("wills ", want), func() bool { return len(s.wills()) >= len(want) })
	require.Equal(s.t, want, s.wills())
}

// TestWillIsPublishedOnceWhenTheConnectionIsLost, not when the device says DISCONNECT, and when another connection
// takes the client ID, wherever.
func TestWillIsPublishedOnceWhenTheConnectionIsLost(t *testing.T) {
	t.Parallel()
	all := fleetOf(t, 3, withWills)
	with := func(id string) connecting { return connecting{id: id, will: "wills/" + id, expiry: 3600} }
	left := with("left").to(t, all[0].addr, false)
	lost := with("lost").to(t, all[1].addr, false)
	fleeting := connecting{id: "fleeting", clean: true, will: "wills/fleeting"}.to(t, all[2].addr, false)
	moved := with("moved").to(t, all[0].addr, false)
	left.leave()
	_ = lost.nc.Close()
	_ = fleeting.nc.Close()
	again := with("moved").to(t, all[1].addr, true)
	moved.ended(0x8E)
	all[0].published("wills/fleeting", "wills/lost", "wills/moved")
	again.leave()
	with("lost").to(t, all[2].addr, true).leave()
	for _, in := range all {
		in.stop()
	}
	all[0].published("wills/fleeting", "wills/lost", "wills/moved")
	for _, r := range all[0].of("wills") {
		require.Contains(t, []string{"lost", "fleeting", "moved"}, string(r.Key))
	}
}

// TestWillOfAConnectionThatIsTakenOver is published before what the next connection publishes, at the same instance and
// at another, unless that goes on with the session and the will has a delay.
func TestWillOfAConnectionThatIsTakenOver(t *testing.T) {
	t.Parallel()
	all := fleetOf(t, 2, withWills)
	var devices []*device
	want := map[string][]string{}
	f := func(name string, c connecting, clean, due bool) {
		for i, in := range all {
			for _, cut := range []bool{false, true} {
				c.id = fmt.Sprintf("%s %d %t", name, i, cut)
				c.will = "wills/" + c.id
				before := c.to(t, all[0].addr, false)
				if cut {
					_ = before.nc.Close()
				}
				next := connecting{id: c.id, clean: clean, expiry: c.expiry, v4: c.v4}
				d := next.to(t, in.addr, !clean && (c.expiry > 0 || c.v4))
				d.publish(c.will, "next")
				devices = append(devices, d)
				switch {
				case !due:
					want[c.id] = []string{"next"}
				default:
					want[c.id] = []string{c.will, "next"}
				}
			}
		}
	}
	f("clean, clean", connecting{clean: true}, true, true)
	f("clean, clean with a delay", connecting{clean: true, willDelay: 30}, true, true)
	f("kept, kept", connecting{expiry: 3600}, false, true)
	f("kept, kept with a delay", connecting{expiry: 3600, willDelay: 30}, false, false)
	f("kept, clean", connecting{expiry: 3600}, true, true)
	f("kept, clean with a delay", connecting{expiry: 3600, willDelay: 30}, true, true)
	f("3.1.1 clean, clean", connecting{v4: true, clean: true}, true, true)
	f("3.1.1 kept, kept", connecting{v4: true}, false, true)
	f("3.1.1 kept, clean", connecting{v4: true}, true, true)
	for _, d := range devices {
		d.send(0xE0, nil)
	}
	for _, in := range all {
		in.stop()
	}
	var n int
	for _, payloads := range want {
		n += len(payloads)
	}
	all[0].until("all", func() bool { return len(all[0].of("wills")) >= n })
	got := map[string][]string{}
	for _, r := range all[0].of("wills") {
		got[string(r.Key)] = append(got[string(r.Key)], string(r.Value))
	}
	for id, payloads := range want {
		if strings.HasPrefix(id, "kept, clean with a delay 1") {
			require.ElementsMatch(t, payloads, got[id], id) // the clean start ended the session, and made the will due
		} else {
			require.Equal(t, payloads, got[id], id)
		}
	}
	require.Len(t, got, len(want))
}

// TestDelayedWillIsCancelledByAReturnAnywhere and published when there is none, or when the session ends first.
func TestDelayedWillIsCancelledByAReturnAnywhere(t *testing.T) {
	t.Parallel() // most of it is waiting
	all := fleetOf(t, 3, withWills)
	lose := func(c connecting, in *instance) {
		c.will = "wills/" + c.id
		_ = c.to(t, in.addr, false).nc.Close()
	}
	lose(connecting{id: "late", expiry: 3600, willDelay: 2}, all[0])
	lose(connecting{id: "back", expiry: 3600, willDelay: 2}, all[0])
	lose(connecting{id: "same", expiry: 3600, willDelay: 2}, all[1])
	lose(connecting{id: "over", expiry: 1, willDelay: 3600}, all[1])
	lose(connecting{id: "clean", expiry: 3600, willDelay: 3600}, all[2])
	back := lasting("back").to(t, all[1].addr, true)
	same := lasting("same").to(t, all[1].addr, true)
	connecting{id: "clean", clean: true}.to(t, all[0].addr, false).leave()
	all[0].published("wills/clean", "wills/late", "wills/over")
	back.nothing()
	same.nothing()
	for _, in := range all {
		in.stop()
	}
	all[0].published("wills/clean", "wills/late", "wills/over")
}

// TestDelayedWillOutlivesItsInstance: what a stopped instance still owed is published by the others, in time.
func TestDelayedWillOutlivesItsInstance(t *testing.T) {
	t.Parallel() // most of it is waiting
	all := fleetOf(t, 2, withWills)
	began := time.Now()
	d := connecting{id: "d1", expiry: 3600, will: "wills/d1", willDelay: 3}.to(t, all[0].addr, false)
	_ = d.nc.Close()
	seenAway(all, "d1")
	all[0].stop()
	require.Empty(t, all[1].wills())
	all[1].published("wills/d1")
	require.Greater(t, time.Since(began), 3*time.Second, "not before its time")
	all[1].stop()
	all[1].published("wills/d1")
}

// certified founds a site whose listeners ask devices for a certificate, and gives what a device named cn connects with.
func certified(t *testing.T, cn, text string) (s *site, connect func(addr string, c connecting) *device) {
	t.Helper()
	dir, ca := t.TempDir(), tlstest.NewCA(t, "devices")
	cert, key := ca.Server(t, dir, "127.0.0.1")
	mine, mineKey := ca.Client(t, dir, cn)
	trust := ca.ClientConfig(t, "127.0.0.1", mine, mineKey)
	s = found(t, 2, text)
	s.settings.Listeners[0].TLS = &config.ListenerTLS{
		Certificate: cert, Key: key, ClientCA: ca.File(t, dir), ClientAuth: config.ClientAuthRequire, Identity: "cn", MinVersion: "1.2",
	}
	return s, func(addr string, c connecting) *device {
		t.Helper()
		nc, err := tlstest.Dial(t.Context(), addr, trust)
		require.NoError(t, err)
		t.Cleanup(func() { _ = nc.Close() })
		d := &device{t: t, nc: nc, in: bufio.NewReader(nc), id: c.id}
		d.send(0x10, c.packet())
		first, body := d.read()
		require.Equal(t, []byte{0x20, 0}, []byte{first, body[1]}, "CONNACK")
		return d
	}
}

// TestWillHasTheCommonNameOfItsDevice, also when another instance than the device's publishes it, which never saw the
// certificate.
func TestWillHasTheCommonNameOfItsDevice(t *testing.T) {
	t.Parallel() // most of it is waiting
	s, connect := certified(t, "p1", "publish: [{match: \"wills/{id}\", topic: wills, key: \"{cert.cn}\"}]\n"+toOne)
	all := []*instance{s.instance(), s.instance()}
	for _, in := range all {
		in.serve()
	}
	s.owned(all...)
	now := connect(all[0].addr, connecting{id: "now", expiry: 3600, will: "wills/now"})
	later := connect(all[0].addr, connecting{id: "later", expiry: 3600, will: "wills/later", willDelay: 2})
	_ = now.nc.Close()
	s.published("wills/now")
	_ = later.nc.Close()
	seenAway(all, "later")
	all[0].stop()
	s.published("wills/later", "wills/now")
	for _, r := range s.of("wills") {
		require.Equal(t, "p1", string(r.Key))
	}
}

// TestPresenceTellsOfEachConnection, where it was and why it ended.
func TestPresenceTellsOfEachConnection(t *testing.T) {
	all := fleetOf(t, 2, withWills)
	d := connecting{id: "d1", user: "u", expiry: 3600}.to(t, all[0].addr, false)
	d2 := connecting{id: "d1", user: "u", expiry: 3600}.to(t, all[1].addr, true)
	d.ended(0x8E)
	d2.leave()
	d = connecting{id: "d1", user: "u", expiry: 3600}.to(t, all[1].addr, true)
	_ = d.nc.Close()
	all[0].until("presence", func() bool { return len(all[0].of("presence")) >= 6 })
	var events []string
	epochs := map[int64]string{}
	for _, p := range all[0].presences() {
		require.Equal(t, "d1", p.ClientID)
		require.Equal(t, "u", p.Username)
		require.Equal(t, "5", p.Protocol)
		require.NotEmpty(t, p.Address)
		require.Equal(t, p.Event == "disconnected", p.Disconnected != nil)
		if was, ok := epochs[p.Epoch]; ok {
			require.Equal(t, p.Instance, was)
		}
		epochs[p.Epoch] = p.Instance
		events = append(events, fmt.Sprintf("%s present=%v %s", p.Event, p.SessionPresent, p.Reason))
	}
	require.ElementsMatch(t, []string{
		"connected present=false ", "connected present=true ", "connected present=true ",
		"disconnected present=false session taken over", "disconnected present=false normal disconnection", "disconnected present=false connection lost",
	}, events)
	require.Len(t, epochs, 3)
}

// TestRetainedWillComesBehindTheRetainedMessagesOfItsConnection, however long Kafka takes for those: else the topic would say
// for good what a device said that is gone.
func TestRetainedWillComesBehindTheRetainedMessagesOfItsConnection(t *testing.T) {
	t.Parallel()
	s := found(t, 4, withWills)
	in := s.instance()
	still, err := kafka.NewProducer(kafka.Config{Brokers: s.cluster.Brokers(), Linger: time.Millisecond, Burst: func() { in.server.Flush() }})
	require.NoError(t, err)
	in.keeping.writer.producer = still // does not run yet
	in.serve()
	s.owned(in)
	ctx, stop := context.WithCancel(context.Background())
	run := sync.OnceFunc(func() { go func() { _ = still.Run(ctx) }() }) // ends with ctx
	t.Cleanup(func() { run(); _ = still.Close(context.Background()); stop() })
	lost := connecting{id: "lost", expiry: 3600, will: "wills/lost", retain: true}.to(t, in.addr, false)
	lost.send(0x33, append(append(text16("wills/lost"), 0, 1, 0), "here"...))
	other := connecting{id: "other", expiry: 3600, will: "wills/other", retain: true}.to(t, in.addr, false)
	other.send(0x33, append(append(text16("wills/else"), 0, 1, 0), "else"...))
	in.until("it is on its way", func() bool { return still.Budget().InUse() > 0 })
	_ = lost.nc.Close()
	in.until("its end is seen", func() bool { return in.value("sluice_mqtt_connections") == 1 })
	_ = other.nc.Close()
	in.published("wills/other") // it waits for no other topic
	run()
	in.published("else", "here", "wills/lost", "wills/other")
	in.until("all is retained", func() bool { return len(s.of("sluice-retained")) == 4 })
	var retained []string
	for _, r := range s.of("sluice-retained") {
		if string(r.Key) == "wills/lost" {
			retained = append(retained, string(r.Value))
		}
	}
	require.Equal(t, []string{"here", "wills/lost"}, retained)
	in.stop()
}
