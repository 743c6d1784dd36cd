package proxy

import (
	"bufio"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
