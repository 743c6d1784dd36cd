package test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/test/internal/wire"
)

// to is a PUBLISH to a topic.
func to(topic string) func(*attacker) string {
	return publishing(func(p *wire.Publish) { p.Topic = topic })
}

// made is a PUBLISH for which a rule makes this Kafka topic.
func made(kafkaTopic string) func(*attacker) string {
	return publishing(func(p *wire.Publish) {
		p.Topic = "made"
		payload, err := json.Marshal(map[string]string{"name": kafkaTopic})
		if err != nil {
			panic(err) // a string has a form in JSON
		}
		p.Payload = string(payload)
	})
}

const (
	storedAnswer   = "PUBACK 0x00, connected"
	noLegalName    = "PUBACK 0x90, connected"
	quotaExceeded  = "PUBACK 0x97, connected"
	nowhereInKafka = "section 3.4.2.1"
)

func storedRows() []hostileRow {
	return []hostileRow{
		{"a Kafka topic named . or ..", closed, noLegalName, nowhereInKafka, each(made("."), made(".."))},
		{"__consumer_offsets, __transaction_state", closed, noLegalName, nowhereInKafka, each(made("__consumer_offsets"), made("__transaction_state"))},
		{"sluice-sessions, sluice-ledger, sluice-retained", closed, noLegalName, nowhereInKafka, each(made("sluice-sessions"), made("sluice-ledger"), made("sluice-retained"))},
		{"a Kafka topic name of 300 characters", closed, noLegalName, nowhereInKafka, made(strings.Repeat("n", 300))},
		{"newline, slash, blank, quote or umlaut in a Kafka topic name", closed, noLegalName, nowhereInKafka, each(
			made("a\nb"), made("a\r\nb"), made("a/b"), made("a b"), made("a'b"), made("ä"), made(""))},
		{"a Kafka topic that does not exist", closed, noLegalName, nowhereInKafka, made("nobody-made-this")},
		{"a topic that no rule takes", closed, noLegalName, nowhereInKafka, to("elsewhere")},
		{"a topic below $SYS", closed, "PUBACK 0x87, connected", "section 4.7.2", to("$SYS/broker/load")},
		{"the state of a bridge", "PUBACK 0x00, connected", "PUBACK 0x00, connected", "section 4.7.2", to("$SYS/broker/connection/x/state")},
		{"a payload above the Kafka topic's max.message.bytes", closed, quotaExceeded, "section 3.4.2.1", publishing(func(p *wire.Publish) {
			p.Topic, p.Payload = "small/x", incompressible(3000)
		})},
		{"User Properties mqtt.client_id, mqtt.qos, sluice.refused: left out", "", storedAnswer, "section 3.3.2.3.7", forgedHeaders},
		{"CR, LF, ESC in the topic: stored byte for byte", storedAnswer, storedAnswer, "section 1.5.4", controlCharacters},
		{"a payload that says UTF-8 and is not", "", storedAnswer, "section 3.3.2.3.2", publishing(func(p *wire.Publish) {
			p.Properties, p.Payload = wire.Properties(0x01, 1), "\xFF"
		})},
	}
}

// record finds what the attacker's last message became: the newest record of its client ID.
func (a *attacker) record() *kgo.Record {
	a.t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(a.kafka.Brokers()...), kgo.ConsumeTopics(a.telemetry), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(a.t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(a.t.Context(), 20*time.Second)
	defer cancel()
	for {
		fetches := c.PollFetches(ctx)
		require.NoError(a.t, ctx.Err(), "no record of %s", a.id)
		for _, r := range fetches.Records() {
			if string(r.Key) == a.id {
				return r
			}
		}
	}
}

// forgedHeaders names headers that are Sluice's own.
func forgedHeaders(a *attacker) string {
	got := carrying(wire.User("mqtt.client_id", "somebody"), wire.User("mqtt.qos", "9"), wire.User("sluice.refused", "x"), wire.User("mine", "kept"))(a)
	if got != a.want {
		return got
	}
	values := map[string][]string{}
	for _, h := range a.record().Headers {
		values[h.Key] = append(values[h.Key], string(h.Value))
	}
	require.Equal(a.t, []string{a.id}, values["mqtt.client_id"])
	require.Equal(a.t, []string{"1"}, values["mqtt.qos"])
	require.Equal(a.t, []string{"kept"}, values["mine"])
	require.NotContains(a.t, values, "sluice.refused")
	return got
}

func controlCharacters(a *attacker) string {
	const metric = "a\r\nlevel=error\x1b[31m\x7f"
	got := greeted(func(a *attacker) []byte {
		return wire.Publish{Topic: a.topic() + metric, QoS: 1, ID: 1, Payload: "x"}.Packet(a.version)
	})(a)
	if got == a.want {
		require.Equal(a.t, a.topic()+metric, headersOf(a.record())["mqtt.topic"])
	}
	return got
}

func sessionRows() []hostileRow {
	return []hostileRow{
		{"a client ID that another user has", "CONNACK 0x05, closed", "CONNACK 0x87, closed", "section 5.4.2", takeover("mallory")},
		{"a client ID that the same user has: the older connection", closed, "DISCONNECT 0x8E, closed", "MQTT-3.1.4-3", displaced},
		{"topics that begin with $, subscribed to as # or +/x", "SUBACK 0x00, PUBLISH, connected", "SUBACK 0x00, PUBLISH, connected", "MQTT-4.7.2-1", each(dollars("#"), dollars("+/x"))},
		{"an 8 KiB user name and password", "CONNACK 0x00, connected", "CONNACK 0x00, connected", "section 3.1.3.5", saying(func(h *wire.Hello) {
			h.Username, h.Password = strings.Repeat("u", 8<<10), strings.Repeat("p", 8<<10)
		})},
	}
}

// owner is the connection of a session that stays.
func (a *attacker) owner(user string) *attacker {
	o := *a
	h := o.greeting()
	h.Username, h.Persist, h.Properties = user, true, wire.Properties(0x11, uint32(60))
	o.connectAs(h)
	return &o
}

// takeover comes as another user for a session that alice has. She keeps it.
func takeover(user string) func(*attacker) string {
	return func(a *attacker) string {
		alice := a.owner("alice")
		got := saying(func(h *wire.Hello) { h.Username = user })(a)
		alice.want = connected
		require.Equal(a.t, connected, alice.answer(), "alice's connection")
		return got
	}
}

// displaced is what the older of two connections of one user is told.
func displaced(a *attacker) string {
	older := a.owner("alice")
	a.owner("alice")
	return older.answer()
}

// dollars sends two commands, of which the filter matches the second alone.
func dollars(filter string) func(*attacker) string {
	return func(a *attacker) string {
		a.connect()
		a.send(wire.Subscribe(a.version, 1, nil, wire.Filter{Name: filter}))
		r, err := wire.Read(a.in)
		require.NoError(a.t, err)
		plain := fmt.Sprintf("p-%s/x", a.id)
		a.command("$SYS/x")
		a.command(plain)
		p, err := wire.Read(a.in)
		require.NoError(a.t, err)
		require.Equal(a.t, plain, p.Topic(), "the command to $SYS/x came before it")
		return a.ping([]string{r.String(), p.Name()})
	}
}

// command appends a record that the instance publishes to the topic.
func (a *attacker) command(topic string) {
	a.t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(a.kafka.Brokers()...))
	require.NoError(a.t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(a.t.Context(), 20*time.Second)
	defer cancel()
	require.NoError(a.t, c.ProduceSync(ctx, &kgo.Record{Topic: a.orders, Key: []byte(topic), Value: []byte("x")}).FirstErr())
}
