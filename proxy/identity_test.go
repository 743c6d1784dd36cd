package proxy

import (
	"bytes"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/mqtt"
	"sluice/tls"
)

const aclForTests = `
acl:
  - {deny: [publish], filter: "devices/{mqtt.username}/locked/#"}
  - {allow: [publish, subscribe, will], filter: "devices/{mqtt.username}/#"}
  - {allow: [publish, retain], filter: "plants/{cert.cn}/+"}
`

func TestExplainAsksTheACL(t *testing.T) {
	cfg := parse(t, rulesForTests, aclForTests)
	refused := func(want string, s Sample) {
		t.Helper()
		s.ClientID, s.Payload = "c1", `{"machine":{"id":1}}`
		e := explain(t, cfg, s)
		require.Equal(t, want, e.Refused)
		if want != "" {
			require.Equal(t, mqtt.NotAuthorized, e.Code)
		}
	}
	refused("", Sample{MQTTTopic: "devices/d1/telemetry/x", Username: "d1"})
	refused("denied", Sample{MQTTTopic: "devices/d1/telemetry/x", Username: "d1", Retain: true})
	refused("denied", Sample{MQTTTopic: "devices/d1/telemetry/x", Username: "d2"})
	refused("denied", Sample{MQTTTopic: "devices/d1/telemetry/x", Username: "+"})
	refused("denied", Sample{MQTTTopic: "devices/d1/locked/x", Username: "d1"})
	refused("", Sample{MQTTTopic: "plants/p1/x", CommonName: "p1", Retain: true})
	refused("denied", Sample{MQTTTopic: "plants/p1/x"})
}

// TestWhatIsDeniedIsNoDeadLetter: or a device without any right could write.
func TestWhatIsDeniedIsNoDeadLetter(t *testing.T) {
	cfg := parse(t, rulesForTests, aclForTests+"unmatched: {dead_letter: dead}\n")
	e := explain(t, cfg, Sample{MQTTTopic: "elsewhere", Username: "d1", ClientID: "c1"})
	require.Equal(t, "denied", e.Refused)
	require.False(t, e.DeadLetter)
	require.Empty(t, e.KafkaTopic)
}

// TestWithoutAuthADeviceIsWhoItSaysItIs: the ACL counts all the same.
func TestWithoutAuthADeviceIsWhoItSaysItIs(t *testing.T) {
	cfg := parse(t, rulesForTests, "")
	g, err := newGate(cfg, zerolog.Nop(), prometheus.NewRegistry())
	require.NoError(t, err)
	require.Nil(t, g, "nobody to ask")

	cfg = parse(t, rulesForTests, aclForTests)
	g, err = newGate(cfg, zerolog.Nop(), prometheus.NewRegistry())
	require.NoError(t, err)
	id, err := g.Authenticate(t.Context(), &mqtt.Login{ClientID: "c1", Username: "d1", Certificate: &tls.Identity{Name: "n", CommonName: "p1"}})
	require.NoError(t, err)
	require.Equal(t, "d1", id.Name)
	require.Equal(t, "p1", id.CommonName)
	require.True(t, id.Access.Publish([]byte("devices/d1/x")))
	require.True(t, id.Access.Publish([]byte("plants/p1/x")))
	require.False(t, id.Access.Publish([]byte("devices/d2/x")))
	_, err = g.Authenticate(t.Context(), &mqtt.Login{Method: "JWT"})
	var fault *mqtt.ProtocolFault
	require.ErrorAs(t, err, &fault)
	require.Equal(t, mqtt.BadAuthenticationMethod, fault.Code)
}

// TestDevicesThatSayNothingOfThemselvesHaveTheirOwnRights, whatever they share.
func TestDevicesThatSayNothingOfThemselvesHaveTheirOwnRights(t *testing.T) {
	cfg := parse(t, rulesForTests, "acl:\n  - {allow: [publish], filter: \"c/{mqtt.client_id}/#\"}\n")
	g, err := newGate(cfg, zerolog.Nop(), prometheus.NewRegistry())
	require.NoError(t, err)
	names := []string{"a", "b"}
	var ids []*mqtt.Identity
	for _, name := range names {
		id, err := g.Authenticate(t.Context(), &mqtt.Login{ClientID: name})
		require.NoError(t, err)
		ids = append(ids, id)
	}
	for i, id := range ids {
		for k, name := range names {
			require.Equal(t, i == k, id.Access.Publish([]byte("c/"+name+"/x")))
		}
	}
}

// TestTheLogSaysAtStartWhatIsOpen: and nothing else.
func TestTheLogSaysAtStartWhatIsOpen(t *testing.T) {
	said := func(extra string) string {
		var log bytes.Buffer
		warn(parse(t, rulesForTests, extra), zerolog.New(&log))
		return log.String()
	}
	open := said("")
	require.Contains(t, open, "devices are not authenticated")
	require.Contains(t, open, "there is no acl")
	require.NotContains(t, open, "in the clear")
	guarded := said(aclForTests + "auth: {jwt: {secret: 0123456789abcdef0123456789abcdef}}\n")
	require.NotContains(t, guarded, "not authenticated")
	require.NotContains(t, guarded, "no acl")
	require.Contains(t, guarded, "in the clear", "a listener without TLS")
}

func TestConnectionsAreBoundedByTheOpenFiles(t *testing.T) {
	require.Equal(t, 7, mostConnections(7))
	most := mostConnections(0)
	require.True(t, most == 0 || most >= 100, most)
}

// TestOneSessionTooManyIsRefused: limits.sessions bounds those that outlive their connection, wherever that is. Who has one
// may come back, and who wants none is let in and does not count.
func TestOneSessionTooManyIsRefused(t *testing.T) {
	all := fleetOf(t, 2, "limits: {sessions: 2}\npublish: [{match: \"#\", topic: t}]\n"+toOne)
	in := all[0]
	clean := func(id string) *device { return connecting{id: id, clean: true}.to(t, in.addr, false) }
	lasts := func(n float64) {
		t.Helper()
		for _, in := range all {
			in.until("sessions", func() bool { return in.value("sluice_session_stored_sessions") == n })
		}
	}
	refused := func(id string) {
		t.Helper()
		lasts(2)
		_, _, code := lasting(id).try(t, in.addr)
		require.Equal(t, byte(mqtt.QuotaExceeded), code)
	}
	clean("x")
	clean("y")
	lasts(0)
	first := lasting("a").to(t, in.addr, false)
	second := lasting("b").to(t, all[1].addr, false)
	refused("c")
	require.Equal(t, 1.0, in.value("sluice_session_opens_total", "too_many"))
	clean("d")
	refused("d") // also of a device that is connected and has none yet
	first.leave()
	second.leave()
	refused("c")
	moved := lasting("a").to(t, all[1].addr, true)
	refused("c") // although two instances have a record of it
	moved.leave()
	connecting{id: "b", clean: true}.to(t, in.addr, false)
	lasts(1)
	lasting("c").to(t, in.addr, false)
	refused("b")
}

// TestAConnectedDeviceKeepsItsClientID: from other users, also where connections are not claimed in Kafka.
func TestAConnectedDeviceKeepsItsClientID(t *testing.T) {
	t.Parallel()
	for _, claim := range []string{"always", "stored"} {
		in := prepare(t, 2, "sessions: {claim: "+claim+"}\npublish: [{match: \"#\", topic: t}]\n")
		in.serve()
		alice := connecting{id: "pump", user: "alice", clean: true}.to(t, in.addr, false)
		_, _, code := connecting{id: "pump", user: "bob", clean: true}.try(t, in.addr)
		require.Equal(t, byte(mqtt.NotAuthorized), code, claim)
		alice.publish("still/here", "x")
		alice.leave()
	}
}

// TestAWillFromKafkaNeedsItsRightStill: it may have been taken from the device since its CONNECT.
func TestAWillFromKafkaNeedsItsRightStill(t *testing.T) {
	list, err := parse(t, rulesForTests, aclForTests).AccessList()
	require.NoError(t, err)
	p := &publisher{access: list}
	will := func(topic, username string, retain bool) error {
		return p.deniedWill(&mqtt.Message{Topic: []byte(topic), ClientID: "c1", Username: username, Retain: retain, Will: true}, "")
	}
	require.NoError(t, will("devices/d1/gone", "d1", false))
	require.ErrorIs(t, will("devices/d1/gone", "d2", false), errPublishDenied)
	require.ErrorIs(t, will("devices/d1/gone", "d1", true), errRetainDenied)
	require.NoError(t, (&publisher{}).deniedWill(&mqtt.Message{Topic: []byte("any")}, ""), "there is no acl")
}
