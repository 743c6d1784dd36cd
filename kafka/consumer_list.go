package kafka

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/IBM/sarama"
)

const (
	// listGap is the least time between two listings, so that partitions in trouble at once share one.
	listGap = 50 * time.Millisecond
	// listAgain is when a listing is repeated while a partition has no leader or its trouble is not settled.
	listAgain = 300 * time.Millisecond
	// listSlow is how far the time between listings that fail grows.
	listSlow = time.Second
)

// A followedTopic is what the consumer knows of a topic. Guarded by Consumer.mu.
type followedTopic struct {
	name   string
	named  bool // in the configuration, so that it is asked for when missing
	id     sarama.Uuid
	past   map[sarama.Uuid]bool // of topics of this name that were deleted: a broker that knows no better may tell of them
	parts  []*follower          // nil: not seen yet
	late   bool                 // it was not there at the start, so it is read from its beginning
	denied bool                 // this client may not see it
	misses int                  // answers in a row that said it does not exist
	gone   bool                 // it was there, and is believed to be missing
}

// forListings shortens the time-outs: the lister asks another broker rather than wait.
func (c Config) forListings() Config {
	c.DialTimeout = min(c.DialTimeout, fetchDial)
	c.RequestTimeout = min(c.RequestTimeout, 3*time.Second)
	return c
}

// runLister keeps up with topics, partitions and their leaders, and starts the fetchers.
func (c *Consumer) runLister(ctx context.Context) {
	fails := 0
	for ctx.Err() == nil {
		wait, err := c.list(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.m.errors.Inc()
			if fails++; fails == 1 {
				c.log.Warn().Err(err).Msg("cannot list Kafka's topics, trying again")
			}
			wait = min(listGap<<min(fails, 10), listSlow)
		} else if fails > 0 {
			c.log.Info().Int("failures", fails).Msg("Kafka's topics can be listed again")
			fails = 0
		}
		c.rest(ctx, wait, err == nil)
	}
}

// rest waits for the next listing: for a while, or until a partition is in trouble.
func (c *Consumer) rest(ctx context.Context, wait time.Duration, wakeable bool) {
	if sleep(ctx, min(wait, listGap)) != nil || wait <= listGap {
		return
	}
	var look signal
	if wakeable {
		look = c.look
	}
	t := time.NewTimer(wait - listGap)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-look:
	}
}

// list asks the cluster for the topics once and acts on the answer. It gives when to do so again.
func (c *Consumer) list(ctx context.Context) (again time.Duration, err error) {
	c.mu.Lock()
	c.listings++
	number := c.listings
	c.mu.Unlock()
	resp, err := c.metadata(ctx)
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	again, doubt := c.settle(ctx, resp, number)
	c.unlock()
	if doubt {
		c.admin.turn()
	}
	return again, nil
}

// metadata asks for the named topics, or for all if there are patterns.
func (c *Consumer) metadata(ctx context.Context) (resp *sarama.MetadataResponse, err error) {
	var topics []string
	if len(c.patterns) == 0 {
		topics = c.cfg.Topics
	}
	err = c.admin.ask(ctx, func(b *sarama.Broker) error {
		resp, err = b.GetMetadata(sarama.NewMetadataRequest(c.admin.conf.Version, topics)) // no automatic creation
		if err == nil && len(resp.Brokers) == 0 {
			err = errors.New("the broker has only just started") // and says that everything is missing
		}
		if err == nil {
			var addrs []string
			for _, broker := range resp.Brokers {
				addrs = append(addrs, broker.Addr())
			}
			c.admin.learn(addrs)
		}
		return err
	})
	return resp, err
}

// wanted says whether a topic is to be followed.
func (c *Consumer) wanted(name string) bool {
	if t := c.topics[name]; t != nil {
		return true
	}
	if strings.HasPrefix(name, "__") || strings.HasPrefix(name, "sluice-") {
		return false
	}
	for _, p := range c.patterns {
		if p.MatchString(name) {
			return true
		}
	}
	return false
}

// settle brings what is followed in line with a listing. It gives when to list again, and whether another broker
// should be asked then. The caller holds mu.
func (c *Consumer) settle(ctx context.Context, resp *sarama.MetadataResponse, number int) (again time.Duration, doubt bool) {
	addrs := map[int32]string{}
	for _, b := range resp.Brokers {
		addrs[b.ID()] = b.Addr()
	}
	there := map[string]bool{}
	for _, md := range resp.Topics {
		if !c.wanted(md.Name) {
			continue
		}
		t := c.topics[md.Name]
		if t == nil {
			t = &followedTopic{name: md.Name, late: c.listed}
			c.topics[md.Name] = t
		}
		if there[t.name] = c.see(t, md); !there[t.name] || t.id != md.Uuid {
			continue
		}
		for _, pm := range md.Partitions {
			if int(pm.ID) < len(t.parts) {
				c.lead(ctx, t.parts[pm.ID], pm, addrs, number)
			}
		}
	}
	for name, t := range c.topics {
		if !there[name] && !t.denied {
			c.miss(t)
			doubt = doubt || t.misses < missesToBelieve
		}
	}
	c.listed = true
	c.checkPositioned()
	for _, f := range c.fetchers {
		f.wake.wake()
	}
	if c.settled() {
		return c.cfg.Refresh, doubt
	}
	return min(listAgain, c.cfg.Refresh), doubt
}

// see notes what a listing says of a topic, and says whether it is there. The caller holds mu.
func (c *Consumer) see(t *followedTopic, md *sarama.TopicMetadata) bool {
	switch md.Err {
	case sarama.ErrNoError, sarama.ErrLeaderNotAvailable:
	case sarama.ErrTopicAuthorizationFailed, sarama.ErrInvalidTopic:
		if !t.denied {
			c.m.errors.Inc()
			c.note(func() {
				c.log.Warn().Str("kafka_topic", t.name).Err(denied("Describe", md.Err)).Msg("cannot follow the Kafka topic")
			})
		}
		t.denied = true
		return false
	case sarama.ErrUnknownTopicOrPartition:
		return false
	default:
		return true // nothing is known: neither there nor missing
	}
	if len(md.Partitions) == 0 || t.past[md.Uuid] {
		return true
	}
	if t.gone || t.late && t.parts == nil {
		c.note(func() { c.log.Info().Str("kafka_topic", t.name).Msg("the Kafka topic is there, and is followed") })
	}
	t.denied, t.gone, t.misses = false, false, 0
	c.resize(t, md)
	return true
}

// resize has as many followers as the topic has partitions. The caller holds mu.
func (c *Consumer) resize(t *followedTopic, md *sarama.TopicMetadata) {
	start := int64(0)
	old := t.parts
	if anew := old != nil && t.id != md.Uuid; anew {
		c.note(func() {
			c.log.Warn().Str("kafka_topic", t.name).Msg("the Kafka topic was deleted and made anew, and is read from its beginning")
		})
		if t.past == nil {
			t.past = map[sarama.Uuid]bool{}
		}
		t.past[t.id] = true
		t.parts = nil
		for _, p := range old {
			c.drop(p)
		}
	} else if old == nil && !t.late {
		start = atEnd
	}
	if c.cfg.From == FromBeginning {
		start = atEnd // what has to be handled for Positioned is to be asked for, whenever it was found
	}
	t.id = md.Uuid
	for id := len(t.parts); id < len(md.Partitions); id++ {
		p := newFollower(t.name, topicIDOf(md.Uuid), int32(id), start)
		if id < len(old) {
			old[id].bequeath(p)
		}
		t.parts = append(t.parts, p)
	}
}

// topicIDOf writes a topic's ID as Kafka's tools do; "" for none.
func topicIDOf(id sarama.Uuid) string {
	if id == (sarama.Uuid{}) {
		return ""
	}
	return id.String()
}

// lead gives a partition to the fetcher of its leader. The caller holds mu.
func (c *Consumer) lead(ctx context.Context, p *follower, pm *sarama.PartitionMetadata, addrs map[int32]string, number int) {
	addr, known := addrs[pm.Leader]
	if !known || pm.Err != sarama.ErrNoError && pm.Err != sarama.ErrReplicaNotAvailable {
		p.settled = false
		return
	}
	f := c.fetchers[pm.Leader]
	if f == nil || f.addr != addr {
		if f != nil {
			f.dial.close() // the broker has moved
		}
		f = c.startFetcher(ctx, pm.Leader, addr)
	}
	p.moveTo(f)
	c.start(ctx, p)
	p.epoch = pm.LeaderEpoch
	if number > p.doubt {
		p.settled = true
	}
}

// miss counts that a listing did not have a topic, and believes it when said twice. The caller holds mu.
func (c *Consumer) miss(t *followedTopic) {
	t.misses++
	if t.misses != missesToBelieve {
		return
	}
	if t.parts == nil {
		t.late = true
		c.note(func() { c.log.Warn().Str("kafka_topic", t.name).Msg("the Kafka topic does not exist, waiting for it") })
		return
	}
	t.gone = true
	for _, p := range t.parts {
		p.settled = false
		p.moveTo(nil)
	}
	c.note(func() {
		c.log.Warn().Str("kafka_topic", t.name).Msg("the Kafka topic is gone, and is not followed any more")
	})
}

// settled says whether nothing needs another listing soon. The caller holds mu.
func (c *Consumer) settled() bool {
	for _, t := range c.topics {
		if t.gone || t.denied {
			continue
		}
		if 0 < t.misses && t.misses < missesToBelieve || t.parts == nil && !t.late {
			return false
		}
		for _, p := range t.parts {
			if !p.settled {
				return false
			}
		}
	}
	return true
}

// checkPositioned closes positioned when every topic that was there at the start has its start offsets, and what they
// have to be for Positioned was handled. The caller holds mu.
func (c *Consumer) checkPositioned() {
	if c.fixed || !c.listed {
		return
	}
	for _, t := range c.topics {
		if (t.late || t.denied || t.gone) && c.cfg.From == FromEnd {
			continue
		}
		if t.parts == nil {
			return
		}
		for _, p := range t.parts {
			if p.next < 0 || p.told < p.target {
				return
			}
		}
	}
	c.fixed = true
	close(c.positioned)
}
