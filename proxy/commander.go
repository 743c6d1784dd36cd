package proxy

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sluice/kafka"
	"sluice/mqtt"
	"sluice/proxy/config"
	"sluice/topicmap"
)

// A commander takes the records of command topics to devices and what became of them back to Kafka.
type commander struct {
	translator
	server    *mqtt.Server
	budget    *kafka.Budget
	receipts  *receipts
	pending   pending
	withdrawn *withdrawn
	streams   *streams
	chunks    *chunks // nil: nothing waits in Kafka

	// sessionsetup.go puts those of the sessions in the place of these.
	absent  func(cmd *command) bool                  // ends a command for one client ID that is not here; true: it is left to a session
	arrived func(cmd *command) bool                  // it is here by now
	told    func(cmd *command) bool                  // the instance that had the session before has told of the command
	skipped func(cmd *command) (skipped, tells bool) // no holder has offered it to the session that is here
	early   func(cmd *command) bool                  // ends a command that came before the session which is here; true: it did
	tells   func(cmd *command, tell func())          // has the one instance tell of a command that has no device

	m    *commandMetrics
	log  zerolog.Logger // sampled: records can trigger these lines
	stop <-chan struct{}
}

// headerCancel holds the correlation data of the command that the record withdraws.
const headerCancel = "mqtt.cancel"

func newCommander(rules *topicmap.CommandMap, settings []config.Command, server *mqtt.Server, producer *kafka.Producer, streams *streams, log zerolog.Logger, reg prometheus.Registerer) (*commander, error) {
	m, err := newCommandMetrics(reg, rules.Rules())
	if err != nil {
		return nil, err
	}
	log = log.Sample(&zerolog.BurstSampler{Burst: 5, Period: time.Second})
	c := &commander{
		translator: translator{rules: rules, settings: settings, leftOut: m.leftOut.Inc},
		server:     server,
		budget:     producer.Budget(),
		withdrawn:  newWithdrawn(withdrawnKept),
		streams:    streams,
		receipts:   &receipts{producer: producer, instance: instanceName(), m: m, log: log},
		m:          m,
		log:        log,
	}
	c.absent = func(cmd *command) bool { cmd.notConnected(); return false }
	no := func(*command) bool { return false }
	c.arrived, c.told, c.early = no, no, no
	c.skipped = func(*command) (skipped, tells bool) { return false, false }
	c.tells = func(_ *command, tell func()) { tell() }
	c.translator.c = c
	return c, nil
}

// instanceName tells this process from all others, also of the same host.
func instanceName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "sluice"
	}
	random := make([]byte, 4)
	_, _ = rand.Read(random) // never fails
	return host + "-" + hex.EncodeToString(random)
}

// handle takes one record. It is called for several partitions at once, in the order of each. It waits while
// the memory for receipts is spent: without it a receipt would have to be dropped.
func (c *commander) handle(r *kafka.Fetched) {
	c.m.bytes.Add(float64(len(r.Key) + len(r.Value)))
	st := c.streams.of(r.Topic, r.Partition)
	cmd, ok := c.take(r, st.id)
	st.mu.Lock()
	defer st.mu.Unlock()
	switch {
	case !ok:
		st.halted = true // the process stops: from here on sessions get their commands elsewhere
	case cmd != nil:
		c.send(cmd)
	}
	st.advance(r.Offset + 1)
}

// begin notes where a partition begins: it is new, or its topic was made anew, or its log was cut. Devices that are here
// get what comes from there on.
func (c *commander) begin(kafkaTopic, topicID string, partition int32, next int64) {
	ended := c.streams.begin(kafkaTopic, topicID, partition, next)
	if ended != nil {
		c.withdrawn.forget()
	}
	switch {
	case ended == nil:
	case ended.has(0):
		c.lost(ended, lostCut, 1)
	default:
		c.lost(ended, lostAnew, 1)
	}
}

// The reasons for which positions in the command topics are lost.
const (
	lostAnew    = "topic_made_anew"
	lostCut     = "log_cut"
	lostDeleted = "records_deleted"
)

// lost says that positions in a stream do not hold any more.
func (c *commander) lost(st *stream, reason string, positions int) {
	c.m.lost.WithLabelValues(reason).Add(float64(positions))
	c.log.Warn().Str("kafka_topic", st.topic).Int32("partition", st.partition).Str("reason", reason).Int("positions", positions).
		Msg("positions in a command topic do not hold any more, going on where there are records")
}

// progress notes that everything below next was handled.
func (c *commander) progress(kafkaTopic string, partition int32, next int64) {
	st := c.streams.of(kafkaTopic, partition)
	st.mu.Lock()
	defer st.mu.Unlock()
	st.advance(next)
}

// take makes the command of a record of a stream; nil: it is none. False: the process stops before there is room for
// its receipt.
func (c *commander) take(r *kafka.Fetched, stream int32) (cmd *command, ok bool) {
	if data, ok := cancellation(r); ok {
		c.cancel(r, data)
		return nil, true
	}
	cmd, err := c.translate(r)
	cmd.Place = mqtt.Place{Stream: stream, Offset: r.Offset}
	rule := c.m.rule(cmd.rule)
	if err != nil {
		rule.refused.Inc()
		c.refuse(cmd, err)
		return nil, true
	}
	rule.routed.Inc()
	return cmd, cmd.settings.Receipts == "" || c.awaitRoom(cmd, c.stop)
}

// cancellation gives the correlation data that a record withdraws; ok says that it is such a record.
func cancellation(r *kafka.Fetched) (correlationData []byte, ok bool) {
	for _, h := range r.Headers {
		if string(h.Key) == headerCancel {
			return append(noBytes, h.Value...), true
		}
	}
	return nil, false
}

// refuse ends a record that makes no command.
func (c *commander) refuse(cmd *command, err error) {
	var refusal *recordRefusal
	errors.As(err, &refusal)
	c.m.refused.WithLabelValues(refusal.reason).Inc()
	c.log.Warn().Str("kafka_topic", cmd.topic).Int32("partition", cmd.partition).Int64("offset", cmd.offset).
		Str("reason", refusal.reason).Msg("a record makes no command") // the detail may quote the payload
	if cmd.settings == nil {
		return // no rule, so nobody to tell
	}
	c.tells(cmd, func() {
		if cmd.settings.Receipts != "" {
			c.awaitRoom(cmd, c.stop) // if the process stops first, this last receipt of the partition has its room all the same
		}
		cmd.settle(cmd.To, mqtt.Dropped, 0, refusal.reason)
	})
}

// The reasons of commands that reach no session.
const (
	reasonNotConnected  = "not_connected"  // the device it is for
	reasonNotSubscribed = "not_subscribed" // the device it is for
)

// send gives the command to the devices that are there for it. One for a single device takes this way though its time
// is over: who has the device, or has its session at its return, is who tells.
func (c *commander) send(cmd *command) {
	if cmd.To == "" && cmd.over() {
		c.tells(cmd, func() { cmd.settle("", mqtt.Expired, 0, "") })
		return
	}
	if cmd.To != "" && c.early(cmd) {
		return
	}
	c.pending.add(cmd)
	told := cmd.To != "" && c.told(cmd) // before a session that has come and gone meanwhile makes it so
	reach := c.server.Send(&cmd.Command)
	if reach == (mqtt.Reach{}) && cmd.To != "" {
		reach = c.sendAgain(cmd)
	}
	c.await(cmd, reach.Devices)
	switch {
	case reach.Devices > 0, reach.Later && !reach.Known:
	case cmd.To == "":
		c.m.rule(cmd.rule).nobody.Inc()
	case reach.Known:
		skipped, tells := c.skipped(cmd)
		if tells || !skipped && !reach.Later && !told {
			cmd.notSubscribed()
		}
	}
}

// sendAgain gives a command to its device, which was not here, if it has come by now. Else the command is ended as absent or
// left to a session, which takes it if it has come meanwhile, and tells of it if not.
func (c *commander) sendAgain(cmd *command) (reach mqtt.Reach) {
	if c.arrived(cmd) {
		reach = c.server.Send(&cmd.Command)
	}
	if reach != (mqtt.Reach{}) {
		return reach
	}
	if c.absent(cmd) && c.arrived(cmd) {
		reach = c.server.Send(&cmd.Command)
	}
	reach.Later = true
	return reach
}

// replay gives a command that waited in Kafka to the devices that it waited for.
func (c *commander) replay(cmd *command, st *stream) {
	ahead := cmd.To != "" && cmd.offset >= st.next.Load()
	if ahead {
		st.mu.Lock()
		defer st.mu.Unlock()
		ahead = cmd.offset >= st.next.Load()
	}
	c.replayAt(cmd, ahead)
}

// replayAt is replay of a command that is still to be handed to the devices here, if ahead: stream.mu is held then. One that its
// device does not want has its receipt by that; not in a gap of the session, of which is told when it is handed out.
func (c *commander) replayAt(cmd *command, ahead bool) {
	if ahead {
		skipped, _ := c.skipped(cmd)
		ahead = !skipped
	}
	c.enter(cmd)
	devices, unwanted := c.server.Replay(&cmd.Command, ahead)
	c.await(cmd, devices)
	if unwanted && !c.told(cmd) {
		cmd.notSubscribed()
	}
}

// enter has cmd found by cancellations that are yet to be read, and cancels it if one was. In this order, or one that is
// read in between would find it in neither place.
func (c *commander) enter(cmd *command) {
	c.pending.add(cmd)
	if c.withdrawn.has(cmd) {
		cmd.Cancel()
	}
}

// await counts the devices that will settle cmd.
func (c *commander) await(cmd *command, devices int) {
	c.m.rule(cmd.rule).matched.Add(float64(devices))
	if cmd.open.expect(devices) {
		c.pending.remove(cmd)
	}
}

// over says that the time of the command has passed.
func (c *command) over() bool { return !c.Expires.IsZero() && !time.Now().Before(c.Expires) }

// notConnected ends a command whose device is nowhere.
func (c *command) notConnected() { c.without(mqtt.Offline, reasonNotConnected) }

// notSubscribed ends a command whose device has a session and no subscription for it.
func (c *command) notSubscribed() { c.without(mqtt.Dropped, reasonNotSubscribed) }

// without ends a command for one device that does not get it.
func (c *command) without(fate mqtt.Fate, reason string) {
	switch {
	case c.IsCancelled() || c.c.withdrawn.has(c):
		fate, reason = mqtt.Cancelled, ""
	case c.over():
		fate, reason = mqtt.Expired, ""
	}
	c.settle(c.To, fate, 0, reason)
}

// cancel withdraws the commands with these correlation data and the record's key where they were not yet sent.
func (c *commander) cancel(r *kafka.Fetched, correlationData []byte) {
	found := c.pending.find(r.Topic, r.Key, correlationData)
	for _, cmd := range found {
		cmd.Cancel()
	}
	c.withdrawn.add(cancelKey(r.Topic, r.Key, correlationData), c.streams.of(r.Topic, r.Partition), r.Offset)
	c.m.cancels(len(found) > 0).Inc()
}

// awaitRoom waits until a receipt of cmd has room in the memory budget; false: stop ends that.
func (c *commander) awaitRoom(cmd *command, stop <-chan struct{}) bool {
	of := cmd.receiptRoom()
	if !c.budget.TryTake(of, receiptBytes) {
		c.server.Flush() // what was sent before this record shall not wait with it
		room := make(chan struct{})
		w := c.budget.Wait(of, receiptBytes, func() { close(room) })
		select {
		case <-room:
			w.Take()
		case <-stop:
			w.Leave()
			return false
		}
	}
	c.budget.Give(of, receiptBytes) // taken again by the receipt itself, when there is one
	return true
}

// CommandSent measures the way from Kafka to the network.
func (c *command) CommandSent(*mqtt.Command) {
	c.c.m.latency.Observe(max(0, time.Since(c.written).Seconds())) // its writer's clock may be ahead
}

// CommandSettled counts the outcome at one device and writes its receipt.
func (c *command) CommandSettled(_ *mqtt.Command, clientID string, fate mqtt.Fate, code mqtt.Code, reason string) {
	c.settle(clientID, fate, code, reason)
	if c.open.settled() {
		c.c.pending.remove(c)
	}
}

// settle counts and receipts one outcome.
func (c *command) settle(clientID string, fate mqtt.Fate, code mqtt.Code, reason string) {
	c.c.m.rule(c.rule).settled[fate].Inc()
	if fate == mqtt.Kept {
		return // whoever gives it to the device tells
	}
	if fate == mqtt.Dropped {
		c.c.m.dropped.WithLabelValues(reason).Inc()
	}
	if c.settings.Receipts != "" {
		c.c.receipts.write(c, clientID, fate, code, reason)
	}
}
