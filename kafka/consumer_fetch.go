package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/IBM/sarama"
)

const (
	// fetchWait is how long a broker keeps a fetch for which there is nothing.
	fetchWait = 500 * time.Millisecond
	// fetchSoon is how long while a partition is held back or paused: it is not in the fetch under way, and is to be
	// in the next one.
	fetchSoon = 20 * time.Millisecond
	// fetchMax is how many bytes one answer may have, and fetchPart one partition of it. A batch that is larger is
	// given whole. Memory is bounded by them (DESIGN.md), and they are far above what a round trip takes anyway.
	fetchMax  = 1 << 20
	fetchPart = 256 << 10
	// fetchDial is how long an attempt to connect may take.
	fetchDial = 2 * time.Second
)

// A fetcher reads from one broker the partitions it leads, over a connection of its own. One fetch is under way at a
// time, and each takes all partitions that can go on.
type fetcher struct {
	c    *Consumer
	id   int32
	addr string
	dial *dialer
	conf *sarama.Config
	wake signal // something has changed; looked at only when there is nothing to fetch

	parts map[*follower]struct{} // guarded by Consumer.mu

	// Of its goroutine.
	broker  *sarama.Broker // nil: not connected
	session fetchSession
	fails   int // fetches and attempts to connect that failed, in a row
}

// A plan is what a fetcher is to do next.
type plan struct {
	seek, lost, fetch []place
	soon              bool // another partition can go on in a moment
	alone             bool // fetch is one partition that made an answer unreadable
	ended             bool // nothing is left to do, for good
}

// A place is an offset of a partition at which something was asked for. The answer counts while the follower is still
// there, so it does not matter who asked.
type place struct {
	p      *follower
	offset int64
	limit  int32
	epoch  int32
}

func (c *Consumer) startFetcher(ctx context.Context, id int32, addr string) *fetcher {
	cfg := c.cfg.Config
	cfg.DialTimeout = min(cfg.DialTimeout, fetchDial)
	f := &fetcher{c: c, id: id, addr: addr, dial: newDialer(cfg.DialTimeout), wake: newSignal(), parts: map[*follower]struct{}{}}
	f.conf = cfg.base(f.dial)
	f.conf.Net.ReadTimeout = max(cfg.RequestTimeout, 2*fetchWait)
	c.fetchers[id] = f
	c.work.Go(func() { f.run(ctx) }) // ends with ctx, or when the broker leads nothing
	return f
}

func (f *fetcher) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, f.dial.close)
	defer stop()
	defer f.dial.close()
	defer f.disconnect()
	for ctx.Err() == nil {
		switch w := f.plan(); {
		case w.ended:
			return
		case len(w.seek)+len(w.lost)+len(w.fetch) == 0:
			f.idle(ctx, w.soon)
		default:
			if err := f.do(ctx, w); err != nil && ctx.Err() == nil {
				f.failed(ctx, w, err)
			}
		}
	}
}

// idle waits until there may be something to do.
func (f *fetcher) idle(ctx context.Context, soon bool) {
	wait := fetchWait
	if soon {
		wait = fetchSoon
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-f.wake:
	case <-t.C:
	}
}

// plan sorts the partitions by what is to be done for them.
func (f *fetcher) plan() (w plan) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if len(f.parts) == 0 {
		if f.c.fetchers[f.id] == f {
			delete(f.c.fetchers, f.id)
		}
		return plan{ended: true}
	}
	now := time.Now()
	for p := range f.parts {
		at := place{p, p.next, p.limit, p.epoch}
		switch {
		case !p.settled: // the lister wakes
		case now.Before(p.after) || len(p.queue) >= maxQueued:
			w.soon = true
		case p.next < 0:
			w.seek = append(w.seek, at)
		case p.lost:
			w.lost = append(w.lost, at)
		case p.suspect && !w.alone:
			w.fetch, w.alone = append(w.fetch[:0], at), true
		case w.alone:
			w.soon = true
		default:
			w.fetch = append(w.fetch, at)
		}
	}
	return w
}

// do carries out a plan. An error is one of the connection, or of an answer that can't be read.
func (f *fetcher) do(ctx context.Context, w plan) error {
	b, err := f.connect()
	if err != nil {
		return err
	}
	if len(w.seek) > 0 {
		if err := f.seekEnds(ctx, b, w.seek); err != nil {
			return err
		}
	}
	if len(w.lost) > 0 {
		if err := f.seekLost(ctx, b, w.lost); err != nil {
			return err
		}
	}
	if len(w.fetch) == 0 || len(w.seek)+len(w.lost) > 0 { // those are to be in the next fetch
		return nil
	}
	return f.fetch(ctx, b, w)
}

func (f *fetcher) fetch(ctx context.Context, b *sarama.Broker, w plan) error {
	resp, err := b.Fetch(f.request(w))
	if err == nil && resp.ErrorCode != 0 {
		err = sarama.KError(resp.ErrorCode)
	}
	if forgotten(err) {
		f.session = fetchSession{}
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot fetch from %s: %w", f.addr, err)
	}
	if !w.alone {
		f.session.next(resp.SessionID)
	}
	if f.fails > 0 {
		f.c.log.Info().Int32("broker", f.id).Msg("the Kafka broker answers fetches again")
	}
	f.fails = 0
	f.deliver(ctx, w, resp)
	return sleep(ctx, resp.ThrottleTime) // or sarama would, and not end with ctx
}

// request makes the fetch of a plan. One partition alone is fetched outside of the session.
func (f *fetcher) request(w plan) *sarama.FetchRequest {
	req := &sarama.FetchRequest{Version: 12, MinBytes: 1, MaxBytes: fetchMax, MaxWaitTime: int32(w.wait().Milliseconds()),
		Isolation: sarama.ReadCommitted, SessionEpoch: -1}
	news := w.fetch
	if !w.alone {
		news = f.session.news(w.fetch)
		req.SessionID, req.SessionEpoch = f.session.id, f.session.epoch
	}
	for _, at := range news {
		req.AddBlock(at.p.topic, at.p.id, at.offset, at.limit, at.epoch)
	}
	return req
}

// wait is how long the broker may keep the fetch.
func (w plan) wait() time.Duration {
	switch {
	case w.alone:
		return time.Millisecond
	case w.soon:
		return fetchSoon
	}
	return fetchWait
}

// deliver hands what was fetched to the followers.
func (f *fetcher) deliver(ctx context.Context, w plan, resp *sarama.FetchResponse) {
	c := f.c
	c.mu.Lock()
	defer c.unlock()
	hollow := true // nobody got anything
	for _, at := range w.fetch {
		at.p.suspect = false
		block := resp.GetBlock(at.p.topic, at.p.id)
		switch {
		case at.p.next != at.offset || !at.p.settled || at.p.dropped.Load(): // it has moved, or is not what it was
		case block == nil: // no news
		case block.Err != sarama.ErrNoError:
			c.trouble(at.p, block.Err)
		default:
			hollow = !c.accept(ctx, at.p, block) && hollow
		}
	}
	if !hollow {
		return
	}
	// A broker that answers without waiting, with nothing that can be used, would be asked again at once.
	for _, at := range w.fetch {
		if p := at.p; p.next < p.end && p.limit == fetchMax {
			p.after = time.Now().Add(retryMin)
		}
	}
}

// accept takes a block for the queue, and says whether there was anything in it. The caller holds mu.
func (c *Consumer) accept(ctx context.Context, p *follower, block *sarama.FetchResponseBlock) bool {
	p.end = max(block.LastStableOffset, 0)
	p.recovered(c)
	if next := after(block, p.next); next > p.next {
		p.limit = fetchPart
		c.push(ctx, p, span{block: block, from: p.next, next: next})
		return true
	}
	if next, ok := afterLegacy(block); ok && next > p.next {
		c.note(func() {
			c.log.Error().Str("kafka_topic", p.topic).Int32("partition", p.id).Msg("records in the format from before Kafka 0.11 are not read")
		})
		c.jump(ctx, p, next)
		return true
	}
	if p.next < p.end {
		// There is something, and it was not given: a batch larger than the limit behind those of other partitions.
		p.limit = min(4*p.limit, fetchMax)
	}
	return false
}

// connect gives the connection, and makes it first if need be.
func (f *fetcher) connect() (*sarama.Broker, error) {
	if f.broker != nil {
		return f.broker, nil
	}
	b := sarama.NewBroker(f.addr)
	if err := f.dial.open(b, f.conf); err != nil {
		_ = b.Close() // it may not be open
		return nil, f.c.cfg.Security.explain("cannot connect to", f.addr, err)
	}
	f.broker = b
	return b, nil
}

func (f *fetcher) disconnect() {
	if f.broker != nil {
		_ = f.broker.Close() // it is left because it failed, or is not needed
		f.broker, f.session = nil, fetchSession{}
	}
}
