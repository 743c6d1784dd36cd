package proxy

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"sluice/fleet/driver"
	"sluice/kafka"
)

// A torrent of commands is written to one device without a pause, until it is stopped.
type torrent struct {
	quit chan struct{}
	done sync.WaitGroup
	n    atomic.Int64
}

// pour writes commands with all QoS to a device.
func (s *site) pour(id string) *torrent {
	p := &torrent{quit: make(chan struct{})}
	p.done.Go(func() { // ends with quit
		stored := make(owner, 1<<16)
		pace := time.NewTicker(100 * time.Microsecond)
		defer pace.Stop()
		for over := false; !over; p.n.Add(1) {
			r := now("commands", id, "x", "name", "x", "id", fmt.Sprint(p.n.Load()), "mqtt.qos", fmt.Sprint(p.n.Load()%3))
			s.writer.Produce(&kafka.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp, Owner: stored})
			select {
			case <-p.quit:
				over = true
			case <-pace.C:
			}
		}
		for range p.n.Load() {
			if err := <-stored; err != nil {
				s.t.Error(err)
			}
		}
	})
	return p
}

// stop gives how many were written.
func (p *torrent) stop() int {
	close(p.quit)
	p.done.Wait()
	return int(p.n.Load())
}

// more waits until so many more were written.
func (p *torrent) more(s *site, n int64) {
	n += p.n.Load()
	s.until("more commands", func() bool { return p.n.Load() >= n })
}

// TestEndDividesTheCommands: each command that is written while a session ends has one receipt: those before the end by the
// session, those behind it by who tells of absent devices, or by the device's next session.
func TestEndDividesTheCommands(t *testing.T) {
	const rounds = 6
	resume := func(id string, expiry uint32) connecting { return connecting{id: id, expiry: expiry} }
	for how, end := range map[string]func(in *instance, d *device){
		"DISCONNECT with expiry 0": func(_ *instance, d *device) { d.disconnects(0) },
		"CONNECT with expiry 0, DISCONNECT": func(in *instance, d *device) {
			_ = d.nc.Close()
			d = resume(d.id, 0).to(d.t, in.addr, true)
			d.disconnects(0)
		},
		"CONNECT with expiry 0, cut": func(in *instance, d *device) {
			_ = d.nc.Close()
			d = resume(d.id, 0).to(d.t, in.addr, true)
			_ = d.nc.Close()
		},
		"clean start while connected": func(in *instance, d *device) {
			connecting{id: d.id, clean: true}.to(d.t, in.addr, false).disconnects(0)
		},
		"clean start while away": func(in *instance, d *device) {
			d.disconnects(3600)
			connecting{id: d.id, clean: true}.to(d.t, in.addr, false).disconnects(0)
		},
		"taken over with expiry 0": func(in *instance, d *device) {
			_ = d.nc.Close()
			resume(d.id, 0).to(d.t, in.addr, true)
			resume(d.id, 0).to(d.t, in.addr, false).disconnects(0)
		},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			in := begin(t, 3, toOne+"limits: {commands_in_flight: 8}\n")
			written := make(map[string]int)
			n := 0
			for i := range rounds {
				id := fmt.Sprint("d", i)
				d := lasting(id).to(t, in.addr, false)
				d.subscribe("devices/+/x", 2)
				commands := in.pour(id)
				first, _ := d.read()
				require.Equal(t, byte(0x30), first&0xF0, "PUBLISH")
				end(in, d)
				if i%2 == 0 { // a new session, that takes some of them and ends too
					d = lasting(id).to(t, in.addr, false)
					d.send(0x82, append(append([]byte{0, 1, 0}, text16("devices/+/x")...), 2))
					var obeying sync.WaitGroup
					obeying.Go(d.obey) // ends with its connection
					commands.more(in.site, 50)
					d.send(0xE0, []byte{0, 5, 0x11, 0, 0, 0, 0})
					obeying.Wait()
				}
				written[id] = commands.stop()
				n += written[id]
			}
			assert.Eventually(t, func() bool { return len(in.taken()) >= n }, patience, time.Millisecond, "as many receipts; which, is said below")
			in.stop()
			told := make(map[string][]string)
			for _, r := range in.receipts(len(in.taken())) {
				command := r.key + " " + *r.CorrelationData
				told[command] = append(told[command], r.String()+" by "+r.Instance)
			}
			for id, n := range written {
				for i := range n {
					if got := told[fmt.Sprintf("%s %d", id, i)]; len(got) != 1 {
						t.Errorf("command %d of %d for %s has %d receipts: %q", i, n, id, len(got), got)
					}
				}
			}
		})
	}
}

// TestEndAtAnotherInstanceDividesTheCommands though the instances have not read as far as one another: the command is told
// of once, by the instance that had the session if that had read it, and else by who tells of absent devices.
func TestEndAtAnotherInstanceDividesTheCommands(t *testing.T) {
	t.Parallel()
	all := fleetOf(t, 2, toOne)
	holder, owner := all[0], all[1]
	var ids []string
	for i := 0; len(ids) < 2; i++ {
		id := fmt.Sprint("d", i)
		if owner.sessions.driver.Owns(id) == driver.Mine {
			ids = append(ids, id)
		}
	}
	var want []string
	for i, slow := range all {
		id, quick := ids[i], all[1-i]
		d := lasting(id).to(t, holder.addr, false)
		d.subscribe("devices/+/x", 1)
		holder.write(now("commands", id, "x", "name", "x", "id", "first"))
		d.ack(d.next(), 0)
		want = append(want, fmt.Sprintf("%s %s delivered (first)", id, id))
		holder.became(want...)
		receipt := holder.receipts(len(want))[len(want)-1]
		for _, r := range holder.receipts(len(want)) {
			if r.key == id {
				receipt = r
			}
		}
		next := func(in *instance) int64 { return in.sessions.streams.of("commands", receipt.Partition).next.Load() }
		slow.until("it is read everywhere", func() bool { return next(slow) > receipt.Offset })
		held := &slow.sessions.streams.of("commands", receipt.Partition).mu
		held.Lock()
		holder.write(now("commands", id, "x", "name", "x", "id", "second"))
		holder.until("the other one has read it", func() bool { return next(quick) > receipt.Offset+1 })
		d.disconnects(0)
		if slow == holder {
			want = append(want, fmt.Sprintf("%s %s offline not_connected (second)", id, id))
		} else {
			want = append(want, fmt.Sprintf("%s %s offline not_acknowledged (second)", id, id))
		}
		holder.became(want...)
		owner.until("nothing is left of the session", func() bool { return !owner.sessions.driver.Knows(id) })
		held.Unlock()
		slow.until("it is read everywhere", func() bool { return next(slow) > receipt.Offset+1 })
	}
	for _, in := range all {
		in.stop()
	}
	holder.became(want...)
}

// lags finds a client whose partition the second instance looks after, and keeps that from reading commands for it, until
// release is called. want are the receipts there are.
func lags(all []*instance) (id string, want []string, next func(in *instance) int64, release func()) {
	holder, owner := all[0], all[1]
	for i := 0; id == "" || owner.sessions.driver.Owns(id) != driver.Mine; i++ {
		id = fmt.Sprint("d", i)
	}
	want = []string{fmt.Sprintf("%s %s offline not_connected (first)", id, id)}
	holder.write(now("commands", id, "x", "name", "x", "id", "first"))
	first := holder.became(want...)[0]
	st := func(in *instance) *stream { return in.sessions.streams.of("commands", first.Partition) }
	next = func(in *instance) int64 { return st(in).next.Load() - first.Offset - 1 }
	for _, in := range all {
		in.until("it is read everywhere", func() bool { return next(in) == 0 })
	}
	st(owner).mu.Lock()
	return id, want, next, func() {
		st(owner).mu.Unlock()
		owner.until("it has read on", func() bool { return next(owner) > 0 })
	}
}

// TestBeginElsewhereDividesTheCommands: what its instance had read before a session began is told of by who tells of absent
// devices, also if that one reads it when the session is open, there or here by then; and once, wherever the session goes.
func TestBeginElsewhereDividesTheCommands(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]bool{"open there": false, "come here": true} {
		t.Run(name, func(t *testing.T) {
			all := fleetOf(t, 2, toOne)
			holder, owner := all[0], all[1]
			id, want, next, release := lags(all)
			holder.write(now("commands", id, "x", "name", "x", "id", "second"))
			holder.until("the other one has read it", func() bool { return next(holder) > 0 })
			d := lasting(id).to(t, holder.addr, false)
			d.subscribe("devices/+/y", 1)
			owner.until("the session is known", func() bool { _, connected := owner.sessions.driver.Whereabouts(id, millis()); return connected })
			if !late {
				release()
			}
			d = lasting(id).to(t, owner.addr, true)
			if late {
				release()
			}
			want = append(want, fmt.Sprintf("%s %s offline not_connected (second)", id, id))
			holder.became(want...)
			d.subscribe("devices/+/x", 1)
			holder.write(now("commands", id, "x", "name", "x", "id", "third"))
			d.ack(d.next(), 0)
			want = append(want, fmt.Sprintf("%s %s delivered (third)", id, id))
			holder.became(want...)
			d.leave()
			for _, in := range all {
				in.stop()
			}
			holder.became(want...)
		})
	}
}

// TestCommandOfTheSessionBeforeIsNotToldOfAsAbsent, though the next one begins at an instance that had read it too, before who
// tells of absent devices.
func TestCommandOfTheSessionBeforeIsNotToldOfAsAbsent(t *testing.T) {
	t.Parallel()
	all := fleetOf(t, 3, toOne)
	id, want, next, release := lags(all)
	c := connecting{id: id}
	d := c.to(t, all[2].addr, false)
	d.subscribe("devices/+/x", 1)
	all[0].until("the session is known", func() bool { return all[0].sessions.driver.Knows(id) })
	all[0].write(now("commands", id, "x", "name", "x", "id", "second"))
	d.ack(d.next(), 0)
	want = append(want, fmt.Sprintf("%s %s delivered (second)", id, id))
	all[0].became(want...)
	all[0].until("it has read that", func() bool { return next(all[0]) > 0 })
	d.leave()
	all[0].until("the session has ended", func() bool { return !all[0].sessions.driver.Knows(id) })
	d = c.to(t, all[0].addr, false)
	d.subscribe("devices/+/x", 1)
	all[1].until("the next one is known", func() bool { _, connected := all[1].sessions.driver.Whereabouts(id, millis()); return connected })
	release()
	all[1].until("nothing is in doubt", func() bool {
		return !slices.ContainsFunc(all[1].sessions.doubts, (*doubts).any)
	})
	for _, in := range all {
		in.stop()
	}
	all[0].became(want...)
}

// TestCommandOfASessionThatHasLeftIsToldOfOnce, by the instance that had it: it had read the command before who tells of absent
// devices, whether the session is stored or not, has subscribed to it, to another topic or to none, and something before it is
// open.
func TestCommandOfASessionThatHasLeftIsToldOfOnce(t *testing.T) {
	for name, c := range map[string]struct {
		stored bool
		filter string
		open   bool
	}{
		"stored":                        {true, "devices/+/y", false},
		"stored, open":                  {true, "devices/+/y", true},
		"stored, without subscriptions": {true, "", false},
		"not stored":                    {false, "devices/+/y", false},
		"not stored, subscribed":        {false, "devices/+/x", false},
		"not stored, no subscriptions":  {false, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			all := fleetOf(t, 2, toOne)
			id, want, _, release := lags(all)
			d := connecting{id: id, clean: !c.stored}
			if c.stored {
				d = lasting(id)
			}
			dev := d.to(t, all[0].addr, false)
			if c.filter != "" {
				dev.subscribe(c.filter, 1)
			}
			all[1].until("the session is known", func() bool { return all[1].sessions.driver.Knows(id) })
			if c.open {
				all[0].write(now("commands", id, "x", "name", "y"))
				dev.next()
			}
			all[0].write(now("commands", id, "x", "name", "x", "id", "second"))
			if c.filter == "devices/+/x" {
				dev.ack(dev.next(), 0)
				want = append(want, fmt.Sprintf("%s %s delivered (second)", id, id))
			} else {
				want = append(want, fmt.Sprintf("%s %s dropped not_subscribed (second)", id, id))
			}
			all[0].became(want...)
			dev.leave()
			if c.stored {
				seenAway(all, id)
			} else {
				all[1].until("the session has ended", func() bool { return !all[1].sessions.driver.Knows(id) })
			}
			release()
			for _, in := range all {
				in.stop()
			}
			all[0].became(want...)
		})
	}
}

// TestCommandFromBeforeASessionThatHasLeftIsToldOf: its instance left it to who tells of absent devices, and that one reads it
// when the session, which met commands behind it, has come and gone.
func TestCommandFromBeforeASessionThatHasLeftIsToldOf(t *testing.T) {
	for name, c := range map[string]connecting{"never stored": {clean: true}, "stored": {expiry: 3600}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			all := fleetOf(t, 2, toOne)
			holder, owner := all[0], all[1]
			id, want, next, release := lags(all)
			holder.write(now("commands", id, "x", "name", "x", "id", "second"))
			holder.until("it is read at one", func() bool { return next(holder) > 0 })
			c.id = id
			dev := c.to(t, holder.addr, false)
			owner.until("the session is known", func() bool { return owner.sessions.driver.Knows(id) })
			holder.write(now("commands", id, "x", "name", "x", "id", "third"))
			third := fmt.Sprintf("%s %s dropped not_subscribed (third)", id, id)
			want = append(want, third)
			holder.became(want...)
			dev.disconnects(0)
			owner.until("the session has ended", func() bool { return !owner.sessions.driver.Knows(id) })
			release()
			want = append(want, fmt.Sprintf("%s %s offline not_connected (second)", id, id))
			holder.becameForGood(all, want...)
		})
	}
}

// TestStopTellsOfSessionsThatEndWithIt also of the commands that wait for them in Kafka, and though the memory for receipts
// is spent when the instance stops.
func TestStopTellsOfSessionsThatEndWithIt(t *testing.T) {
	t.Parallel() // most of it is waiting
	const n = 20
	in := begin(t, 3, toOne+"limits: {commands_in_flight: 1, commands_queued: 1}\n")
	d := lasting("d1").to(t, in.addr, false)
	d.subscribe("devices/#", 1)
	d.leave()
	d = connecting{id: "d1"}.to(t, in.addr, true)
	var want []string
	for i := range n {
		in.write(now("commands", "d1", fmt.Sprint(i), "name", "x", "id", fmt.Sprint(i)))
		want = append(want, fmt.Sprintf("d1 d1 offline session_ended (%d)", i))
	}
	want[0] = "d1 d1 offline not_acknowledged (0)"
	require.Equal(t, "0", d.next().payload)
	in.until("all are read", func() bool { return in.value("sluice_command_records_total", "routed") == n })
	budget := in.producer.Budget()
	fill(budget)
	in.quit()
	in.until("what waits in Kafka is left to tell of", func() bool { return in.sessions.forfeits.open.Load() > 0 })
	require.Less(t, len(in.taken()), n)
	budget.Give(kafka.Destination{}, int(budget.Max()))
	in.stop()
	in.became(want...)
}
