package proxy

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/fleet"
	"sluice/kafka"
	"sluice/kafka/kafkatest"
	"sluice/mqtt"
)

// anew deletes a topic and makes it anew.
func (s *site) anew(topic string, partitions int32) {
	s.t.Helper()
	admin := s.topicAdmin()
	_, err := admin.DeleteTopic(s.t.Context(), topic)
	require.NoError(s.t, err)
	_, err = admin.CreateTopic(s.t.Context(), partitions, 1, nil, topic)
	require.NoError(s.t, err)
	s.writer = writer(s.t, s.cluster.Brokers()) // the one before may not have seen it
}

// stored waits until Kafka has what a device that has left goes on with.
func (in *instance) stored(id string) (state *fleet.Session) {
	in.t.Helper()
	in.until("the session is released", func() bool {
		state, _ = in.sessions.driver.Whereabouts(id, millis())
		return state != nil && state.OfflineSince > 0
	})
	return state
}

// TestTopicMadeAnewIsReadFromItsBeginningForStoredSessions that are connected, away, with something in flight, in the
// middle of a replay, or come back at an instance that was started later.
func TestTopicMadeAnewIsReadFromItsBeginningForStoredSessions(t *testing.T) {
	t.Parallel()
	all := fleetOf(t, 2, toOne+"limits: {commands_in_flight: 5, commands_queued: 10}\n")
	in := all[0]
	names := []string{"connected", "busy", "away", "elsewhere", "late"}
	devices := map[string]*device{}
	for _, id := range names {
		devices[id] = dial(t, in.addr, id, true)
		devices[id].subscribe("devices/#", 2)
	}
	write := func(from, to int) {
		for i := from; i < to; i++ {
			for _, id := range names {
				in.write(now("commands", id, fmt.Sprint(i), "name", "x", "mqtt.qos", fmt.Sprint(1+i%2)))
			}
		}
	}
	const before, after = 20, 12
	write(0, before)
	take := func(d *device, from, to int) {
		t.Helper()
		next, err := d.visit(from, to)
		require.NoError(t, err)
		require.Equal(t, to, next)
	}
	for _, id := range names {
		if id != "busy" { // its window is full, and the most waits in Kafka
			take(devices[id], 0, before)
		}
	}
	for _, id := range []string{"away", "elsewhere", "late"} {
		require.NoError(t, devices[id].depart())
	}
	seenAway(all, "late")
	in.anew("commands", 4)
	for _, in := range all {
		in.until("the new topic is followed", func() bool { return in.value("sluice_command_lost_positions_total", lostAnew) >= 4 })
	}
	write(0, after)
	take(devices["connected"], 0, after)
	require.NoError(t, devices["connected"].depart())
	take(lasting("away").to(t, in.addr, true), 0, after)
	take(lasting("elsewhere").to(t, all[1].addr, true), 0, after)
	third := in.instance()
	third.serve()
	take(lasting("late").to(t, third.addr, true), 0, after)
	d := lasting("connected").to(t, third.addr, true)
	d.send(0xC0, nil)
	for first, body := d.read(); first != 0xD0; first, body = d.read() {
		require.NotEqual(t, byte(0x30), first&0xF0, "it has got all of the new topic")
		require.NoError(t, d.answer(first, body))
	}

	// What is in flight or in memory for the one that is busy is of the topic before; what waited of it in Kafka is gone.
	d = devices["busy"]
	var got, want []string
	for last, times := fmt.Sprint(after-1), 0; times < 2; {
		first, body := d.read()
		if first&0xF0 == 0x30 {
			got = append(got, decode(first, body).payload)
			if got[len(got)-1] == last {
				times++
			}
		}
		require.NoError(t, d.answer(first, body))
	}
	for i := range after {
		want = append(want, fmt.Sprint(i))
	}
	require.Equal(t, want, got[len(got)-after:])
	require.Less(t, len(got), before+after)
}

// TestDeliveriesOfATopicThatIsNoMoreAreNotTakenForThoseOfTheNewOne: the device comes back with one of each QoS in
// flight, and gets no command of the new topic in their place.
func TestDeliveriesOfATopicThatIsNoMoreAreNotTakenForThoseOfTheNewOne(t *testing.T) {
	in := begin(t, 1, toOne)
	d := dial(t, in.addr, "d1", true)
	d.subscribe("devices/#", 2)
	in.write(now("commands", "d1", "old 1", "name", "x", "mqtt.qos", "1"), now("commands", "d1", "old 2", "name", "x", "mqtt.qos", "2"))
	require.Equal(t, "old 1", d.next().payload)
	require.Equal(t, "old 2", d.next().payload)
	d.leave()
	in.anew("commands", 1)
	in.until("the new topic is followed", func() bool { return in.value("sluice_command_lost_positions_total", lostAnew) > 0 })
	in.write(now("commands", "d1", "new 1", "name", "x", "mqtt.qos", "1"), now("commands", "d1", "new 2", "name", "x", "mqtt.qos", "1"))
	d = lasting("d1").to(t, in.addr, true)
	var got []string
	released := false
	for len(got) < 2 || !released {
		first, body := d.read()
		if first&0xF0 == 0x30 {
			got = append(got, decode(first, body).payload)
		}
		released = released || first == 0x62
		require.NoError(t, d.answer(first, body))
	}
	require.Equal(t, []string{"new 1", "new 2"}, got)
	d.nothing()
}

// TestLogThatWasCutGoesOnAtItsEnd, for who is connected and for who comes back with a position past it.
func TestLogThatWasCutGoesOnAtItsEnd(t *testing.T) {
	in := begin(t, 1, toOne)
	d := dial(t, in.addr, "d1", true)
	d.subscribe("devices/#", 1)
	for i := range 10 {
		in.write(now("commands", "d1", fmt.Sprint(i), "name", "x"))
	}
	_, err := d.visit(0, 10)
	require.NoError(t, err)
	in.until("all are settled", func() bool { return len(in.taken()) == 10 })
	st := in.sessions.streams.of("commands", 0)
	in.commands.begin("commands", st.topicID, 0, 6) // as the consumer says when the leader has no more
	r := now("commands", "d1", "after the cut", "name", "x")
	r.Partition, r.Offset = 0, 6
	in.commands.handle(r)
	in.server.Flush()
	m := d.next()
	require.Equal(t, "after the cut", m.payload)
	d.ack(m, 0)
	in.until("it is settled", func() bool { return len(in.taken()) == 11 })
	require.EqualValues(t, 1, in.value("sluice_command_lost_positions_total", lostCut))
	d.leave()
	state := in.stored("d1")
	require.EqualValues(t, 7, state.Pos["commands"][0])

	past := &fleet.Session{}
	past.Start("commands", 0, 5000)
	var to mqtt.State
	require.NoError(t, in.sessions.replays(t.Context(), past, &to))
	require.EqualValues(t, 10, to.Behind[0].Offset, "the end, as Kafka says")
	require.EqualValues(t, 2, in.value("sluice_command_lost_positions_total", lostCut))
}

// TestNewSessionGoesOnAtTheEndOfALogThatWasCut though the one before had come farther.
func TestNewSessionGoesOnAtTheEndOfALogThatWasCut(t *testing.T) {
	in := begin(t, 1, toOne)
	before := fleet.Session{Claim: 1, StateEpoch: 1, Began: 1, Released: true, Expiry: fleet.NeverExpires, OfflineSince: 1, Subs: []fleet.Sub{{Filter: "x"}}}
	before.Start("commands", 0, 5000)
	value, err := before.Encode()
	require.NoError(t, err)
	r := now(in.settings.Sessions.Topic, string(fleet.SessionKey("d1", "other")), string(value))
	done := make(owner, 1)
	in.writer.Produce(&kafka.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Fixed: true, Timestamp: r.Timestamp, Owner: done})
	require.NoError(t, <-done)
	in.stored("d1")
	d := connecting{id: "d1", clean: true, expiry: 3600}.to(t, in.addr, false)
	d.subscribe("devices/#", 1)
	in.write(now("commands", "d1", "new", "name", "x"))
	require.Equal(t, "new", d.next().payload)
}

// TestWhatIsOpenWhenALogIsCutKeepsItsPlace below the cut, and none above it.
func TestWhatIsOpenWhenALogIsCutKeepsItsPlace(t *testing.T) {
	in := begin(t, 1, toOne+"limits: {commands_in_flight: 8}\n")
	d := dial(t, in.addr, "d1", true)
	d.subscribe("devices/#", 1)
	for i := range 8 {
		in.write(now("commands", "d1", fmt.Sprint(i), "name", "x"))
	}
	for range 8 {
		if m := d.next(); m.payload == "4" {
			d.ack(m, 0)
		}
	}
	in.until("one is settled", func() bool { return len(in.taken()) == 1 })
	in.commands.begin("commands", in.sessions.streams.of("commands", 0).topicID, 0, 6)
	d.leave()
	state := in.stored("d1")
	require.EqualValues(t, 0, state.Pos["commands"][0])
	require.Equal(t, [][2]int64{{4, 5}}, state.Settled["commands"][0])
	places := map[int64]bool{}
	for _, o := range state.Out {
		places[o.Offset] = o.Topic != ""
	}
	require.Equal(t, map[int64]bool{0: true, 1: true, 2: true, 3: true, 5: true}, places)
}

// TestDeliveryAboveTheEndOfALogThatWasCutHoldsNoPlace: it is completed, and what is written while the device is away comes.
func TestDeliveryAboveTheEndOfALogThatWasCutHoldsNoPlace(t *testing.T) {
	in := begin(t, 1, toOne)
	before := fleet.Session{
		Claim: 1, StateEpoch: 1, Began: 1, Released: true, Expiry: fleet.NeverExpires, OfflineSince: 1, Subs: []fleet.Sub{{Filter: "devices/#", QoS: 2}},
		Out: []fleet.Out{{ID: 7, Topic: "commands", Offset: 5000, QoS: 2}},
	}
	before.Start("commands", 0, 5000)
	value, err := before.Encode()
	require.NoError(t, err)
	r := now(in.settings.Sessions.Topic, string(fleet.SessionKey("d1", "other")), string(value))
	done := make(owner, 1)
	in.writer.Produce(&kafka.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Fixed: true, Timestamp: r.Timestamp, Owner: done})
	require.NoError(t, <-done)
	in.stored("d1")
	d := lasting("d1").to(t, in.addr, true)
	for _, payload := range []string{"here", "while it was away"} {
		first, body := d.read()
		require.Equal(t, []byte{0x62, 0, 7}, append([]byte{first}, body[:2]...), "PUBREL, which it does not answer")
		if payload == "here" {
			in.write(now("commands", "d1", payload, "name", "x"))
		}
		m := d.next()
		require.Equal(t, payload, m.payload)
		d.ack(m, 0)
		if payload == "here" {
			in.became("d1 d1 delivered")
			require.NoError(t, d.nc.Close())
			in.stored("d1")
			in.write(now("commands", "d1", "while it was away", "name", "x"))
			d = lasting("d1").to(t, in.addr, true)
		}
	}
}

// TestRecordsThatWereDeletedArePassedOverAndSaid when the device returns.
func TestRecordsThatWereDeletedArePassedOverAndSaid(t *testing.T) {
	in := begin(t, 1, toOne)
	d := dial(t, in.addr, "d1", true)
	d.subscribe("devices/#", 1)
	d.leave()
	for i := range 10 {
		in.write(now("commands", "d1", fmt.Sprint(i), "name", "x"))
	}
	var to kafkatest.Offsets
	to.AddOffset("commands", 0, 7, -1)
	_, err := in.topicAdmin().DeleteRecords(t.Context(), to)
	require.NoError(t, err)
	d = lasting("d1").to(t, in.addr, true)
	_, err = d.visit(7, 10)
	require.NoError(t, err)
	d.nothing()
	require.EqualValues(t, 1, in.value("sluice_command_lost_positions_total", lostDeleted))
}

// TestInstanceThatIsBehindWaitsForTheTopicOfASession: the session has met the new topic already, this instance has not.
func TestInstanceThatIsBehindWaitsForTheTopicOfASession(t *testing.T) {
	in := begin(t, 1, toOne)
	in.anew("commands", 1)
	reader, err := kafka.NewReader(kafka.Config{Brokers: in.cluster.Brokers()})
	require.NoError(t, err)
	t.Cleanup(reader.Close)
	id, err := reader.TopicID(t.Context(), "commands")
	require.NoError(t, err)
	s := &fleet.Session{}
	s.Start("commands", 0, 0)
	s.Bind("commands", id)
	var to mqtt.State
	require.NoError(t, in.sessions.replays(t.Context(), s, &to))
	require.Len(t, to.Behind, 1)
	require.Equal(t, id, in.sessions.streams.get(to.Behind[0].Stream).topicID)

	s.Bind("commands", "one that is no more")
	s.Start("commands", 0, 3)
	began := time.Now()
	to = mqtt.State{}
	require.NoError(t, in.sessions.replays(t.Context(), s, &to))
	require.Zero(t, to.Behind[0].Offset)
	require.Less(t, time.Since(began), patience)
}

// TestReplayEndsWithItsStream though the session had come farther there, elsewhere, than the replay.
func TestReplayEndsWithItsStream(t *testing.T) {
	in := begin(t, 1, toOne+"limits: {commands_in_flight: 1, commands_queued: 1}\n")
	d := dial(t, in.addr, "d1", true)
	d.subscribe("devices/#", 1)
	for i := range 5 {
		in.write(now("commands", "d1", fmt.Sprint(i), "name", "x"))
	}
	d.next()
	handledAll([]*instance{in}, 0, "d1", 5)
	d.leave()
	require.EqualValues(t, 5, in.stored("d1").Reach("commands", 0))
	in.hasRead(0, 0)
	d = lasting("d1").to(t, in.addr, true)
	first := d.next()
	in.replayed() // as far as there is room
	in.commands.begin("commands", "another topic of the name", 0, 0)
	d.ack(first, 0)
	d.ack(d.next(), 0)
	in.replayed()
}

// TestDeliveriesOfATopicThatIsDeletedKeepNobodyOut, however many there are.
func TestDeliveriesOfATopicThatIsDeletedKeepNobodyOut(t *testing.T) {
	t.Parallel() // most of it is waiting
	in := begin(t, 1, toOne)
	d := dial(t, in.addr, "d1", true)
	d.subscribe("devices/#", 2)
	for range 8 {
		in.write(now("commands", "d1", "x", "name", "x", "mqtt.qos", "2"))
	}
	for range 8 {
		d.next()
	}
	d.leave()
	in.stored("d1")
	_, err := in.topicAdmin().DeleteTopic(t.Context(), "commands")
	require.NoError(t, err)
	d = lasting("d1").to(t, in.addr, true)
	for range 8 {
		first, body := d.read()
		require.EqualValues(t, 0x62, first, "PUBREL")
		d.send(0x70, body[:2])
	}
	d.nothing()
}
