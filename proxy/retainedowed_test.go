package proxy

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/kafka/kafkatest"
)

const owing = "publish: [{match: \"#\", topic: t}]\nlimits: {commands_in_flight: 1}\n"

// owed is a topic whose retained message is one of many.
func owed(i int) string { return fmt.Sprintf("keep/%03d", i) }

// owes makes n retained messages.
func (d *device) owes(n int, qos byte) {
	d.t.Helper()
	for i := range n {
		require.Zero(d.t, d.retain(qos, owed(i), fmt.Sprint(i)))
	}
}

// handed takes the retained messages from one on, of n, in their order, and nothing behind them.
func (d *device) handed(from, n int) {
	d.t.Helper()
	for i := from; i < n; i++ {
		m := d.next()
		require.Equal(d.t, delivered{topic: owed(i), payload: fmt.Sprint(i), qos: m.qos, retain: true, id: m.id}, m)
		d.accept(m)
	}
	d.nothing()
}

// accept does a receiver's part.
func (d *device) accept(m delivered) {
	d.t.Helper()
	switch m.qos {
	case 1:
		d.ack(m, 0)
	case 2:
		d.complete(m)
	}
}

// TestRestOfAHandoutComesOnTheNextConnection: what a SUBACK has promised is given, wherever the device goes on and however its
// connection ended. After that nothing comes again.
func TestRestOfAHandoutComesOnTheNextConnection(t *testing.T) {
	t.Parallel()
	const n = 80 // more than what waits at once
	s := found(t, 3, owing)
	here, there := s.instance(), s.instance()
	here.serve()
	there.serve()
	dial(t, here.addr, "writer", false).owes(n, 2)
	for name, end := range map[string]func(d *device){
		"cut":        func(d *device) { require.NoError(t, d.nc.Close()) },
		"DISCONNECT": (*device).leave,
		"taken over": func(*device) {},
	} {
		for _, to := range []*instance{here, there} {
			for qos := byte(1); qos <= 2; qos++ {
				for _, v4 := range []bool{false, true} {
					id := connecting{id: fmt.Sprint(name, to == here, qos, v4), expiry: 3600, v4: v4}
					d := id.to(t, here.addr, false)
					d.subscribe("keep/#", qos)
					for i := range 20 {
						m := d.next()
						require.Equal(t, owed(i), m.topic)
						d.accept(m)
					}
					first := d.next()
					end(d)
					d = id.to(t, to.addr, true)
					d.handed(20, n)
					require.Equal(t, owed(20), first.topic)
					d.leave()
					require.Nil(t, to.stored(id.id).Subs[0].Owed)
					for _, in := range []*instance{here, there} {
						d = id.to(t, in.addr, true)
						d.nothing()
						d.leave()
					}
				}
			}
		}
	}
}

// TestHandoutOutlivesItsInstance, which is killed behind SUBACK. QoS 1 begins again where the last record was, and QoS 2 gives
// nothing twice.
func TestHandoutOutlivesItsInstance(t *testing.T) {
	t.Parallel() // most of it is waiting
	const n = 40
	s := found(t, 3, owing)
	in := s.instance()
	in.serve()
	dial(t, in.addr, "writer", false).owes(n, 2)
	doomed := s.child(3, owing)
	var all []*device
	for qos := range byte(3) {
		d := lasting(fmt.Sprint("d", qos)).to(t, doomed.addr, false)
		d.subscribe("keep/#", qos)
		if all = append(all, d); qos == 2 {
			for i := range 3 {
				m := d.next()
				require.Equal(t, owed(i), m.topic)
				d.complete(m)
			}
			require.Equal(t, owed(3), d.next().topic) // so its record has the end of those before
		}
	}
	doomed.kill()
	for qos, d := range all {
		d = lasting(d.id).to(t, in.addr, true)
		from := 0
		if qos == 2 {
			from = 3
		}
		d.handed(from, n)
		d.leave()
		in.stored(d.id)
		lasting(d.id).to(t, in.addr, true).nothing()
	}
}

// TestHandoutThatWaitsForKafkaOutlivesItsConnection: it has not begun. The rest comes when Kafka tells what there is, and
// UNSUBSCRIBE ends it, on whichever connection.
func TestHandoutThatWaitsForKafkaOutlivesItsConnection(t *testing.T) {
	t.Parallel()
	const n = 3
	s := found(t, 1, owing)
	here, there := s.instance(), s.instance()
	here.serve()
	there.serve()
	w := dial(t, here.addr, "writer", false)
	w.owes(n, 1)
	goOn := kafkatest.HoldBack(t, s.cluster.Brokers(), "sluice-retained", 0)
	require.Zero(t, w.retain(1, owed(n), fmt.Sprint(n))) // can't be read yet
	var all []*device
	for i := range 4 {
		id := connecting{id: fmt.Sprint("d", i), expiry: 3600, v4: i%2 > 0}
		d := id.to(t, here.addr, false)
		d.subscribe("keep/#", 1)
		if i == 2 {
			d.unsubscribe("keep/#")
		}
		d.nothing()
		require.NoError(t, d.nc.Close())
		here.stored(id.id)
		d = id.to(t, there.addr, true)
		if i == 3 {
			d.unsubscribe("keep/#")
		}
		d.nothing()
		all = append(all, d)
	}
	clean := connecting{id: "clean", expiry: 3600}
	clean.to(t, here.addr, false).subscribe("keep/#", 1)
	clean.clean = true
	all = append(all, clean.to(t, there.addr, false))
	goOn()
	for i, d := range all {
		if i < 2 {
			d.handed(0, n+1)
		}
	}
	for _, d := range all {
		d.nothing()
	}
}
