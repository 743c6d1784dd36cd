package proxy

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"sluice/fleet/driver"
	"sluice/kafka"
	"sluice/proxy/config"
)

// newSessions puts together what shares the sessions. It starts nothing and connects to nothing.
func newSessions(clients *kafkaClients, producer *kafka.Producer, publisher *publisher, log zerolog.Logger, reg prometheus.Registerer) (*sessions, error) {
	cfg := clients.cfg
	s := &sessions{
		cfg: cfg, clients: clients, log: log, lines: log.Sample(&zerolog.BurstSampler{Burst: 5, Period: time.Second}),
		producer: producer, publisher: publisher, streams: newStreams(), failed: make(chan error, 1), reg: reg,
	}
	s.streams.retained = cfg.Retained.Topic
	var err error
	if s.m, err = newSessionMetrics(reg, s); err != nil {
		return nil, err
	}
	if err := kafka.RegisterTransactions(reg); err != nil {
		return nil, err
	}
	s.presence = &presence{topic: cfg.Presence.Topic, producer: producer, m: s.m, log: s.lines}
	kcfg := clients.config(nil)
	if s.fencer, err = kafka.NewFencer(kcfg); err != nil {
		return nil, err
	}
	if s.reader, err = kafka.NewReader(kcfg); err != nil {
		return nil, err
	}
	s.layout = newLayout(cfg, s.reader, s.m, log, s.Fail)
	scfg := kcfg
	scfg.Linger = min(scfg.Linger, stateLinger)
	if s.state, err = kafka.NewProducer(scfg); err != nil {
		return nil, err
	}
	s.finder = &finder{chunks: newChunks(s.reader), log: s.lines}
	s.late = &late{s: s, waiting: map[*stream][]lateOne{}}
	ends := &ender{s}
	s.driver = driver.New(driver.Config{
		Sessions: cfg.Sessions.Topic, Ledger: cfg.Sessions.Ledger, DeadAfter: cfg.Sessions.DeadAfter,
		Log: log, Lines: s.lines, Refusals: log.Sample(&zerolog.BurstSampler{Burst: 1, Period: 5 * time.Second}), Metrics: s.m.driver(),
		Host: s, TellDied: cfg.Presence.Topic != "", State: stateProducer{s.state}, Table: ends, Journal: ends, Fencer: s.fencer, Transactor: s.transactor,
	})
	if s.table, err = kafka.NewConsumer(s.tableConfig(kcfg)); err != nil {
		return nil, err
	}
	if s.journal, err = kafka.NewConsumer(s.journalConfig(kcfg)); err != nil {
		return nil, err
	}
	s.group, err = kafka.NewGroup(kafka.GroupConfig{
		Config: kcfg, Name: cfg.Sessions.Topic + "-owners", Topics: []string{cfg.Sessions.Topic},
		Assigned: func(_ string, partition int32) { s.driver.Assigned(partition) },
		Revoked:  func(_ string, partition int32) { s.driver.Revoked(partition) },
		Joined:   s.driver.Joined,
	})
	return s, err
}

// stateLinger is how long a record of the sessions topic waits for others at most. A CONNECT waits for two of them one
// after the other, and a QoS 2 command too.
const stateLinger = time.Millisecond

// serveCommands lets sessions get the commands that waited for them.
func (s *sessions) serveCommands(c *commander) {
	s.finder.c, c.chunks = c, s.finder.chunks
	s.replayer = newReplayer(c, s.finder.chunks, s.streams, s.lines)
	s.forfeits = newForfeits(c, s.streams, s.finder.chunks)
	c.absent, c.arrived, c.told, c.early, c.skipped, c.tells = s.absent, s.arrived, s.told, s.early, s.skipped, s.tells
}

// stateTopics are the topics that hold what the instances share, with the settings that they must have.
func stateTopics(cfg *config.Config) []kafka.StateTopic {
	settings := map[string]string{
		"cleanup.policy":        "compact",
		"delete.retention.ms":   "86400000", // a reader that takes longer for its first pass may miss that a key was removed
		"segment.ms":            "3600000",
		"min.compaction.lag.ms": "0",
	}
	partitions, replication := int32(statePartitions), int16(0)
	if c := cfg.Kafka.CreateTopics; c != nil {
		partitions, replication = cmp.Or(c.Partitions, partitions), c.Replication
	}
	var topics []kafka.StateTopic
	for _, name := range []string{cfg.Sessions.Topic, cfg.Sessions.Ledger, cfg.Retained.Topic} {
		topics = append(topics, kafka.StateTopic{Name: name, Partitions: partitions, Replication: replication, Settings: settings})
	}
	return topics
}

// statePartitions is how many partitions the topics of the state get if the configuration says nothing: the fleet's number
// can't be changed later, and its instances share the work for the dead by partitions.
const statePartitions = 12

// lookAfter says how well Kafka keeps the state.
func (s *sessions) lookAfter(ctx context.Context, admin *kafka.Admin) error {
	all, err := admin.Durability(ctx, s.layout.topics)
	for _, d := range all {
		s.m.replicas.WithLabelValues(d.Topic).Set(float64(d.Copies))
		s.m.risks.WithLabelValues(d.Topic).Set(float64(len(d.Risks)))
		if len(d.Risks) > 0 {
			s.log.Warn().Str("kafka_topic", d.Topic).Strs("risks", d.Risks).
				Msg("the Kafka topic of the fleet's state is kept less safely than this cluster could: what devices were told is stored may be lost with a broker")
		}
	}
	return err
}

// lay makes room for the partitions that the fleet was laid out with.
func (s *sessions) lay(ctx context.Context, admin *kafka.Admin) error {
	if err := s.layout.read(ctx, admin); err != nil {
		return err
	}
	if err := s.lookAfter(ctx, admin); err != nil {
		return err
	}
	n, m := s.layout.of(s.cfg.Sessions.Topic), s.layout.of(s.cfg.Sessions.Ledger)
	if n != m {
		return fmt.Errorf("%w: the Kafka topics %s and %s must have the same number of partitions, and have %d and %d", kafka.ErrUnfitTopic, s.cfg.Sessions.Topic, s.cfg.Sessions.Ledger, n, m)
	}
	s.driver.Lay(n)
	for range n {
		s.doubts = append(s.doubts, &doubts{s: s})
	}
	return nil
}

// run reads what the instances share and follows it until ctx ends. ready is called when everything that was there at
// the beginning has been read.
func (s *sessions) run(ctx context.Context, ready func()) error {
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithCancel(ctx)
	defer cancel()
	g, parts := errgroup.WithContext(s.ctx)
	if s.replayer != nil {
		s.replayer.ctx, s.forfeits.ctx = parts, parts
		g.Go(func() error { s.replayer.run(parts); return nil })
		g.Go(func() error { s.forfeits.run(); return nil })
	}
	g.Go(func() error { return s.state.Run(parts) })
	g.Go(func() error { return s.table.Run(parts) })
	g.Go(func() error { return s.journal.Run(parts) })
	g.Go(func() error {
		for _, c := range []*kafka.Consumer{s.table, s.journal} {
			select {
			case <-c.Positioned():
			case <-parts.Done():
				return nil
			}
		}
		if err := s.layout.keep(parts, s.produceFirst); err != nil {
			return s.unlessOver(parts, err)
		}
		if err := s.driver.Start(parts, s.ctx); err != nil {
			return s.unlessOver(parts, err)
		}
		ready()
		return s.group.Run(parts)
	})
	g.Go(func() error {
		select {
		case err := <-s.failed:
			return err
		case <-parts.Done():
			return nil
		}
	})
	err := g.Wait()
	cancel()
	s.driver.Wait()
	s.work.Wait()
	return err
}

// close ends the connections to Kafka that are made to ask. Nothing runs any more, or it never did: the layout is read
// before run.
func (s *sessions) close() {
	_ = s.fencer.Close() // it is left
	s.reader.Close()
}

func (s *sessions) unlessOver(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// produceFirst writes a record into the first partition of the sessions topic.
func (s *sessions) produceFirst(key, value []byte, done func(offset int64, err error)) {
	s.driver.Produce(0, key, value, done)
}

// An ender asks the consumer of a topic where it ends.
type ender struct{ s *sessions }

// End gives where a partition ends, what an open transaction holds back included: what was acknowledged lies below it,
// also if that can be read later only.
func (e *ender) End(ctx context.Context, topic string, partition int32) (int64, error) {
	c := e.s.table
	if topic == e.s.cfg.Sessions.Ledger {
		c = e.s.journal
	}
	return c.Written(ctx, topic, partition)
}

// tells has this instance tell of a command which no device gets, if it is the owner of the partition that the device, or
// else the record's key, belongs to.
func (s *sessions) tells(cmd *command, tell func()) {
	of := cmp.Or(cmd.To, string(cmd.key))
	owns := s.driver.Owns(of)
	if owns == driver.Mine {
		tell()
	} else if owns == driver.Undecided {
		_ = s.doubts[s.driver.PartitionOf(of)].add(doubt{of: of, tell: func() { // no room: nobody tells
			if s.driver.Turned(of) == driver.Mine {
				tell()
			}
		}})
	}
}
