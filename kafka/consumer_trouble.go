package kafka

import (
	"context"
	"time"

	"github.com/IBM/sarama"
)

const (
	// retryMin, retryMax and retrySuspect are how long a partition that was refused, or a broker that can't be reached,
	// is left alone.
	retryMin, retryMax, retrySuspect = 50 * time.Millisecond, time.Second, 5 * time.Second
	// loudAfter is how many refusals in a row are worth a log line: a partition whose leader moves has some.
	loudAfter = 5
)

// recovered notes that p was answered for. The caller holds mu.
func (p *follower) recovered(c *Consumer) {
	if p.fails > loudAfter {
		c.note(func() {
			c.log.Info().Str("kafka_topic", p.topic).Int32("partition", p.id).Msg("the Kafka partition is followed again")
		})
	}
	p.fails = 0
}

// trouble takes a partition out until a listing that begins later has settled its topic and leader. Without that, the
// records of another topic of the same name might be taken for its own. The caller holds mu.
func (c *Consumer) trouble(p *follower, err error) {
	c.m.errors.Inc()
	c.unsettle(p)
	p.fails++
	p.after = time.Now().Add(min(retryMin<<min(p.fails-1, 10), retryMax))
	if err == sarama.ErrOffsetOutOfRange {
		p.lost = true
		p.after = time.Time{}
	}
	if fails := p.fails; fails == loudAfter+1 {
		c.note(func() {
			c.log.Warn().Str("kafka_topic", p.topic).Int32("partition", p.id).Err(denied("Read", err)).Int("tries", fails).Msg("cannot follow the Kafka partition, trying again")
		})
	}
}

func (c *Consumer) unsettle(p *follower) {
	p.settled, p.doubt = false, c.listings
	c.look.wake()
}

// failed gives up the connection, and waits if it could not be made. The broker may be another one when it is back,
// so all of its partitions have to be listed again.
func (f *fetcher) failed(ctx context.Context, w plan, err error) {
	connected := f.broker != nil
	f.disconnect()
	f.c.m.errors.Inc()
	if f.fails++; f.fails == 1 {
		f.c.log.Warn().Int32("broker", f.id).Err(err).Msg("cannot read from the Kafka broker, trying again")
	}
	f.c.mu.Lock()
	for p := range f.parts {
		f.c.unsettle(p)
	}
	if connected {
		f.blame(w, err)
	}
	f.c.unlock()
	if !connected {
		_ = sleep(ctx, min(retryMin<<min(f.fails-1, 10), retryMax/2))
	}
}

// blame looks for the partition that spoils the answers of a broker which can be reached: sarama reads an answer as a
// whole, so one batch that is corrupt is enough. After two failures each partition is fetched alone, and what fails
// alone is left alone for a while. The caller holds mu.
func (f *fetcher) blame(w plan, err error) {
	for _, at := range w.fetch {
		if w.alone {
			f.c.trouble(at.p, err)
			at.p.after = time.Now().Add(min(retryMin<<min(at.p.fails, 10), retrySuspect))
		} else if f.fails > 1 {
			at.p.suspect = true
		}
	}
}
