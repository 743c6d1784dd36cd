package proxy

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/kafka"
)

// hasRead has an instance stand at an offset of a partition of the commands, all of which it has handled.
func (in *instance) hasRead(partition int32, next int64) {
	st := in.sessions.streams.of("commands", partition)
	st.mu.Lock()
	defer st.mu.Unlock()
	st.next.Store(next)
}

// handledAll waits until nothing is to come any more that would undo hasRead: once a record is handled, its consumer says again
// how far it is. So a transaction is written behind the records that a partition has; nobody comes behind its marker but by that.
func handledAll(all []*instance, partition int32, key string, end int64) (next int64) {
	s := all[0].site
	s.t.Helper()
	t, err := kafka.NewTransactor(kafka.TransactorConfig{Config: kafka.Config{Brokers: s.cluster.Brokers()}, TransactionalID: "the test's"})
	require.NoError(s.t, err)
	ctx, cancel := context.WithCancel(s.t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = t.Run(ctx) }) // ends with cancel
	defer running.Wait()
	defer cancel()
	require.NoError(s.t, t.Renew(ctx))
	done := make(groupOwner, 1)
	t.Write(&kafka.TxGroup{Owner: done, Records: []*kafka.TxRecord{
		{Topic: "commands", Key: []byte(key), Headers: []kafka.Header{{Key: []byte(headerCancel), Value: []byte("nothing")}}}}})
	require.NoError(s.t, <-done)
	next = end + 2 // the record and the marker
	for _, in := range all {
		st := in.sessions.streams.of("commands", partition)
		in.until("it has handled all", func() bool { return st.next.Load() == next })
	}
	return next
}

type groupOwner chan error

func (o groupOwner) GroupDone(_ *kafka.TxGroup, err error) { o <- err }

// replayed waits until no session is behind on a stream, or waits for what is still to be read.
func (in *instance) replayed() {
	in.t.Helper()
	in.until("nothing is replayed", func() bool {
		r := in.sessions.replayer
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.passes) == 0
	})
}

// TestCommandsHaveOneOutcomeAtInstancesThatHaveReadLess than the session that comes to them has got, there and on the way to a
// third one: what is in flight is sent again as what it was, what is settled is not, and nobody is told twice.
func TestCommandsHaveOneOutcomeAtInstancesThatHaveReadLess(t *testing.T) {
	t.Parallel()
	const n = 8
	client := "    client: \"{key}\"\n"
	require.Contains(t, toOne, client)
	for rule, text := range map[string]string{
		"to one":            toOne,
		"to all":            strings.Replace(toOne, client, "", 1),
		"to one, connected": strings.Replace(toOne, client, client+"    offline: drop\n", 1),
		"to all, connected": strings.Replace(toOne, client, "    offline: drop\n", 1),
	} {
		t.Run(rule, func(t *testing.T) {
			all := fleetOf(t, 3, text)
			var want []string
			for i, tails := range [][2]int64{{0, 0}, {1, 6}, {4, 2}, {6, 1}, {n, 3}, {7, n}} {
				for j, early := range []bool{false, true} {
					c := lasting(fmt.Sprint("d", 2*i+j))
					t.Logf("%s: tails %v, early %v", c.id, tails, early)
					become := func(outcomes ...string) {
						for _, o := range outcomes {
							want = append(want, c.id+" "+c.id+" "+o)
						}
						all[0].became(want...)
					}
					partition := kafka.PartitionOf([]byte(c.id), 4)
					st := func(in *instance) *stream { return in.sessions.streams.of("commands", partition) }
					base := st(all[0]).next.Load()
					d := c.to(t, all[0].addr, false)
					d.subscribe("devices/+/x", 2)
					var records []*kafka.Fetched
					var got []delivered
					for i, qos := range []byte{1, 1, 2, 2, 2, 1, 0, 1} {
						name := "x"
						if i == n-1 {
							name = "nobody"
						}
						r := now("commands", c.id, fmt.Sprint(i), "name", name, "id", fmt.Sprint(i), "mqtt.qos", fmt.Sprint(qos))
						r.Partition, r.Offset = partition, base+int64(i)
						records = append(records, r)
						all[0].write(r)
						if i < n-1 {
							got = append(got, d.next())
						}
					}
					end := handledAll(all, partition, c.id, base+n)
					d.ack(got[1], 0)
					d.send(0x50, []byte{0, byte(got[3].id)})
					first, _ := d.read()
					require.EqualValues(t, 0x62, first, "PUBREL")
					d.complete(got[4])
					d.ack(got[5], 0)
					settled := []string{"delivered (1)", "delivered (4)", "delivered (5)", "sent (6)"}
					if strings.HasPrefix(rule, "to one") {
						settled = append(settled, "dropped not_subscribed (7)")
					}
					become(settled...)
					for i, in := range all[1:] {
						if tails[i] < n {
							in.hasRead(partition, base+tails[i])
						}
						d = c.to(t, in.addr, true)
						require.Equal(t, got[0], d.next())
						require.Equal(t, got[2], d.next())
						first, body := d.read()
						require.EqualValues(t, 0x62, first, "PUBREL")
						require.EqualValues(t, got[3].id, body[1])
						if !early {
							in.replayed()
						}
						for _, r := range records[tails[i]:] {
							in.commands.handle(r)
						}
						in.commands.progress("commands", partition, end)
						in.server.Flush()
						in.replayed()
						d.nothing()
					}
					d.ack(got[0], 0)
					d.complete(got[2])
					d.send(0x70, []byte{0, byte(got[3].id)})
					all[0].write(now("commands", c.id, "8", "name", "x", "id", "8", "mqtt.qos", "1"))
					m := d.next()
					require.Equal(t, "8", m.payload)
					d.ack(m, 0)
					become("delivered (0)", "delivered (2)", "delivered (3)", "delivered (8)")
					for _, in := range all {
						in.until("it has read all", func() bool { return st(in).next.Load() == end+1 })
					}
					d.leave()
					connecting{id: c.id, clean: true}.to(t, all[0].addr, false).leave()
				}
			}
			for _, in := range all {
				in.stop()
			}
			all[0].became(want...)
		})
	}
}

// TestNewSessionGetsNothingThatTheOneBeforeHad, also of commands for everybody, at an instance that reads them when the new one
// has subscribed: whether the one before ends by a clean start, and its holder has not written down yet how far it had come, or
// is no more when a connection comes that is spared the claim.
func TestNewSessionGetsNothingThatTheOneBeforeHad(t *testing.T) {
	t.Parallel()
	for claim, end := range map[string]func(t *testing.T, all []*instance, d *device){
		"always": func(*testing.T, []*instance, *device) {},
		"stored": func(t *testing.T, all []*instance, d *device) {
			d.send(0xE0, []byte{0, 5, 0x11, 0, 0, 0, 0}) // DISCONNECT with Session Expiry Interval 0
			_, _, err := d.tryRead()
			require.ErrorIs(t, err, io.EOF)
			all[1].until("nothing is left of the session", func() bool { return !all[1].sessions.driver.Knows(d.id) })
		},
	} {
		t.Run("claim: "+claim, func(t *testing.T) {
			all := fleetOf(t, 2, toAll+"sessions: {claim: "+claim+"}\n")
			goOn := all[1].standsStill()
			var before, after []*device
			for i := range 4 { // some of which each instance looks after
				d := lasting(fmt.Sprint("d", i)).to(t, all[0].addr, false)
				d.subscribe("fleet", 1)
				before = append(before, d)
			}
			all[0].write(now("commands", "key", "before", "id", "before"))
			for _, d := range before {
				d.ack(d.next(), 0)
				end(t, all, d)
				d = connecting{id: d.id, clean: true}.to(t, all[1].addr, false)
				d.subscribe("fleet", 1)
				after = append(after, d)
			}
			goOn()
			all[0].write(now("commands", "key", "after", "id", "after"))
			for _, d := range after {
				m := d.next()
				require.Equal(t, "after", m.payload, d.id)
				d.ack(m, 0)
			}
		})
	}
}
