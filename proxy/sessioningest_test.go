package proxy

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/kafka/kafkatest"
)

// once has a rule whose QoS 2 messages are stored together with their packet identifiers.
const once = "publish: [{match: \"once/#\", topic: once, key: \"{mqtt.topic}\", exactly_once: true}, {match: \"plain/#\", topic: once, key: \"{mqtt.topic}\"}]\n" + toOne

// publish2 sends a PUBLISH with QoS 2 and waits for PUBREC.
func (d *device) publish2(topic string, id uint16, payload string) {
	d.t.Helper()
	d.publishOnly(topic, id, payload)
	first, body := d.read()
	require.Equal(d.t, byte(0x50), first, "PUBREC")
	require.Equal(d.t, id, binary.BigEndian.Uint16(body))
	require.Len(d.t, body, 2, "Success")
}

func (d *device) publishOnly(topic string, id uint16, payload string) {
	d.t.Helper()
	body := binary.BigEndian.AppendUint16(text16(topic), id)
	if !d.v4 {
		body = append(body, 0)
	}
	d.send(0x34, append(body, payload...))
}

// pubrel ends the exchange.
func (d *device) pubrel(id uint16) {
	d.t.Helper()
	d.send(0x62, binary.BigEndian.AppendUint16(nil, id))
	first, body := d.read()
	require.Equal(d.t, byte(0x70), first, "PUBCOMP")
	require.Equal(d.t, id, binary.BigEndian.Uint16(body))
}

// payloads gives what a topic has got.
func (s *site) payloads(topic string) (all []string) {
	for _, r := range s.of(topic) {
		all = append(all, string(r.Value))
	}
	return all
}

// TestMessageIsStoredOnceThoughItComesAgainElsewhere: with and without exactly_once, to the instance that has the
// session now, until PUBREL; after PUBREL the packet identifier is a new message's.
func TestMessageIsStoredOnceThoughItComesAgainElsewhere(t *testing.T) {
	t.Parallel()
	for _, topic := range []string{"once/a", "plain/a"} {
		t.Run(topic, func(t *testing.T) {
			all := fleetOf(t, 3, once)
			d := lasting("d1").to(t, all[0].addr, false)
			d.publish2(topic, 7, "one")
			d.publish2(topic, 8, "two")
			for _, in := range []*instance{all[1], all[2], all[0]} {
				before := d
				d = lasting("d1").to(t, in.addr, true)
				before.ended(0x8E)
				d.publish2(topic, 7, "one")
				d.publish2(topic, 8, "two")
			}
			d.pubrel(7)
			d.publish2(topic, 7, "three")
			_ = d.nc.Close()
			d = lasting("d1").to(t, all[1].addr, true)
			d.publish2(topic, 7, "three")
			d.pubrel(7)
			d.pubrel(8)
			d.leave()
			for _, in := range all {
				in.stop()
			}
			all[0].until("three records", func() bool { return len(all[0].payloads("once")) >= 3 })
			require.Equal(t, []string{"one", "two", "three"}, all[0].payloads("once"))
		})
	}
}

// TestMessageIsStoredOnceThoughItComesAgainHere: at the instance that had the session before, however the connection
// ended, as often as it comes.
func TestMessageIsStoredOnceThoughItComesAgainHere(t *testing.T) {
	t.Parallel()
	in := begin(t, 4, once)
	ways := map[string]func(d *device){
		"cut": func(d *device) { _ = d.nc.Close() }, "disconnect": func(d *device) { d.send(0xE0, nil) }, "takeover": func(*device) {},
	}
	want := map[string]int{}
	for _, topic := range []string{"once/", "plain/"} {
		for way, end := range ways {
			for _, v4 := range []bool{false, true} {
				for _, told := range []bool{false, true} {
					id := fmt.Sprintf("%s%s-%t-%t", topic, way, v4, told)
					want[id] = 1
					c := connecting{id: strings.ReplaceAll(id, "/", "-"), expiry: 3600, v4: v4}
					d := c.to(t, in.addr, false)
					for range 3 {
						if d.publishOnly(id, 7, id); told {
							first, _ := d.read()
							require.Equal(t, byte(0x50), first, "PUBREC")
						}
						end(d)
						d = c.to(t, in.addr, true)
					}
					d.publish2(id, 7, id)
					d.pubrel(7)
					d.leave()
				}
			}
		}
	}
	in.stop()
	in.until("all", func() bool { return len(in.payloads("once")) >= len(want) })
	got := map[string]int{}
	for _, p := range in.payloads("once") {
		got[p]++
	}
	require.Equal(t, want, got)
}

// TestNewSessionForgetsPacketIdentifiers: after a clean start the same ones are new messages.
func TestNewSessionForgetsPacketIdentifiers(t *testing.T) {
	all := fleetOf(t, 2, once)
	d := lasting("d1").to(t, all[0].addr, false)
	d.publish2("once/a", 1, "one")
	_ = d.nc.Close()
	d = connecting{id: "d1", clean: true, expiry: 3600}.to(t, all[1].addr, false)
	d.publish2("once/a", 1, "two")
	_ = d.nc.Close()
	d = lasting("d1").to(t, all[0].addr, true)
	d.publish2("once/a", 1, "two")
	d.pubrel(1)
	all[0].until("both", func() bool { return len(all[0].payloads("once")) >= 2 })
	require.Equal(t, []string{"one", "two"}, all[0].payloads("once"))
}

// TestMessagesOnTheirWayAtATakeoverAreStoredOnce: the device does not know which were taken, and sends all again.
func TestMessagesOnTheirWayAtATakeoverAreStoredOnce(t *testing.T) {
	t.Parallel()
	all := fleetOf(t, 2, once)
	const n, rounds = 20, 6
	d := lasting("d1").to(t, all[0].addr, false)
	var want []string
	for round := range rounds {
		for i := range n {
			want = append(want, fmt.Sprint(round, "-", i))
			d.publishOnly("once/a", uint16(i+1), want[len(want)-1])
		}
		before := d
		d = lasting("d1").to(t, all[(round+1)%2].addr, true)
		_ = before.nc.Close()
		for i := range n {
			d.publish2("once/a", uint16(i+1), fmt.Sprint(round, "-", i))
		}
		for i := range n {
			d.pubrel(uint16(i + 1))
		}
	}
	all[0].until("all", func() bool { return len(all[0].payloads("once")) >= len(want) })
	require.Equal(t, want, all[0].payloads("once"))
}

// TestFleetingConnectionIsSparedTheClaim with claim: stored: Kafka hears nothing of it, unless it ends a session that
// is stored.
func TestFleetingConnectionIsSparedTheClaim(t *testing.T) {
	t.Parallel()
	all := fleetOf(t, 2, "sessions: {claim: stored}\n"+withWills)
	fleeting := connecting{id: "d1", clean: true, will: "wills/d1"}
	d := fleeting.to(t, all[0].addr, false)
	d.subscribe("devices/d1/x", 1)
	all[0].write(now("commands", "d1", "x", "name", "x"))
	d.ack(d.next(), 0)
	again := fleeting.to(t, all[0].addr, false)
	d.ended(0x8E)
	_ = again.nc.Close()
	all[0].published("wills/d1", "wills/d1")
	for _, r := range all[0].of("sluice-sessions") {
		require.NotContains(t, string(r.Key), "d1\x00")
	}

	kept := lasting("d1").to(t, all[0].addr, false)
	kept.subscribe("devices/d1/x", 1)
	kept.leave()
	seenAway(all, "d1")
	fleeting.to(t, all[1].addr, false).leave()
	seenAway(all, "d1")
	lasting("d1").to(t, all[0].addr, false).nothing()
}

// TestConnectIsRefusedWhileKafkaIsAway, in time, and not with a session that may be another.
func TestConnectIsRefusedWhileKafkaIsAway(t *testing.T) {
	t.Parallel() // most of it is waiting
	in := begin(t, 3, toOne+"limits: {shutdown_timeout: 1s, connect_timeout: 1s}\n")
	open := dial(t, in.addr, "open", true)
	in.noKafka()
	d, _, code := lasting("d1").try(t, in.addr)
	require.EqualValues(t, 0x88, code)
	_, _, err := d.tryRead()
	require.ErrorIs(t, err, io.EOF)
	open.nothing()
	_ = in.end() // it can't be stopped in order
}

// send012 sends messages one after the other, with the QoS 0, 1 and 2 in turn, and waits for all answers.
func (d *device) send012(topic string, from, n int) {
	d.t.Helper()
	for i := from; i < from+n; i++ {
		body := text16(topic)
		if qos := i % 3; qos > 0 {
			body = binary.BigEndian.AppendUint16(body, uint16(1+i))
		}
		d.send(byte(0x30+2*(i%3)), append(append(body, 0), fmt.Sprint(i)...))
	}
	for i := from; i < from+n; i++ {
		if i%3 == 0 {
			continue
		}
		first, body := d.read()
		require.Equal(d.t, byte(0x30+0x10*(i%3)), first, "PUBACK or PUBREC")
		require.Equal(d.t, uint16(1+i), binary.BigEndian.Uint16(body))
		require.Len(d.t, body, 2, "Success")
	}
}

func numbers(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

// TestExactlyOnceKeepsTheOrderOfAllQoS: what one connection sends with one key.
func TestExactlyOnceKeepsTheOrderOfAllQoS(t *testing.T) {
	in := begin(t, 4, once)
	d := lasting("d1").to(t, in.addr, false)
	const n = 120
	d.send012("once/a", 0, n)
	in.until("all", func() bool { return len(in.payloads("once")) >= n })
	require.Equal(t, numbers(n), in.payloads("once"))
	d.leave()
	in.stop()
}

// TestLossOfTheTransactionalIDDisconnectsNobody: Kafka forgets who has written nothing for days, and a takeover of another
// device fences those of its shard.
func TestLossOfTheTransactionalIDDisconnectsNobody(t *testing.T) {
	in := begin(t, 4, once)
	d := lasting("d1").to(t, in.addr, false)
	const rounds, n = 5, 30
	for round := range rounds {
		d.send012("once/a", round*n, n)
		state, _ := in.sessions.driver.Whereabouts("d1", millis())
		require.NoError(t, in.sessions.fencer.Fence(t.Context(), state.TxID))
	}
	d.send012("once/a", rounds*n, n)
	in.until("all", func() bool { return len(in.payloads("once")) >= (rounds+1)*n })
	require.Equal(t, numbers((rounds+1)*n), in.payloads("once"))
	d.leave()
	in.stop()
}

// topicAdmin is a Kafka client that changes topics.
func (s *site) topicAdmin() *kafkatest.Admin {
	s.t.Helper()
	return kafkatest.NewAdmin(s.t, s.cluster.Brokers())
}

// TestMessageWithoutAnOutcomeIsStoredOnceThoughTheDeviceMoves: its topic is in trouble for long, and the device comes back
// again and again, here and elsewhere, and sends it again.
func TestMessageWithoutAnOutcomeIsStoredOnceThoughTheDeviceMoves(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := found(t, 4, "publish: [{match: \"plain/#\", topic: once, key: k}, {match: \"other/#\", topic: other, key: k}]\n"+toOne)
	s.settings.Kafka.CreateTopics = nil // nobody makes anew what is deleted here
	all := []*instance{s.instance(), s.instance()}
	for _, in := range all {
		in.serve()
	}
	admin := s.topicAdmin()
	d := lasting("d1").to(t, all[0].addr, false)
	d.publish2("other/a", 7, "one")
	d.publish2("plain/a", 9, "to know the topic")
	d.pubrel(9)
	_, err := admin.DeleteTopic(t.Context(), "once")
	require.NoError(t, err)
	d.publishOnly("plain/a", 8, "two")
	for _, in := range []*instance{all[1], all[0], all[0], all[1]} {
		_ = d.nc.Close()
		d = lasting("d1").to(t, in.addr, true)
		d.publish2("other/a", 7, "one")
		d.publishOnly("plain/a", 8, "two")
		d.nothing()
	}
	_, err = admin.CreateTopic(t.Context(), 4, 1, nil, "once")
	require.NoError(t, err)
	first, body := d.read()
	require.Equal(t, []byte{0x50, 0, 8}, []byte{first, body[0], body[1]}, "PUBREC")
	d.pubrel(8)
	d.pubrel(7)
	d.leave()
	for _, in := range all {
		in.stop()
	}
	listed, err := admin.ListEndOffsets(t.Context(), "once", "other")
	require.NoError(t, err)
	records := map[string]int64{}
	listed.Each(func(o kafkatest.ListedOffset) { records[o.Topic] += o.Offset })
	require.Equal(t, map[string]int64{"once": 1, "other": 1}, records)
}

// TestMessageIsStoredOnceThoughTheLedgerIsHeldBack by a transaction of somebody else, which is open since before: what was
// answered meanwhile can't be read until that has ended, and nobody goes on with the session before.
func TestMessageIsStoredOnceThoughTheLedgerIsHeldBack(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := found(t, 4, once+"limits: {connect_timeout: 3s}\n")
	all := []*instance{s.instance(), s.instance()}
	for _, in := range all {
		in.serve()
	}
	d := lasting("d1").to(t, all[0].addr, false)
	release := kafkatest.HoldBack(t, s.cluster.Brokers(), s.settings.Sessions.Ledger, all[0].sessions.driver.PartitionOf("d1"))
	d.publish2("once/a", 7, "one")
	for _, in := range all {
		_ = d.nc.Close()
		again, _, code := lasting("d1").try(t, in.addr)
		if d = again; code == 0 {
			d.publish2("once/a", 7, "one")
		}
	}
	release()
	_ = d.nc.Close()
	d = lasting("d1").to(t, all[1].addr, true)
	d.publish2("once/a", 7, "one")
	d.pubrel(7)
	d.publish2("once/a", 7, "two")
	s.until("two", func() bool { return slices.Contains(s.payloads("once"), "two") })
	require.Equal(t, []string{"one", "two"}, s.payloads("once"))
}
