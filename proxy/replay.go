package proxy

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/mqtt"
)

// A replayer gives sessions the commands that waited for them in Kafka. There is one pass over a stream at a time for
// all sessions that are behind on it, however many: it reads each record once for all of them.
type replayer struct {
	c       *commander
	streams *streams
	server  *mqtt.Server
	chunks  *chunks
	log     zerolog.Logger
	ctx     context.Context // of the passes; set by run

	mu      sync.Mutex // guards what follows
	passes  map[int32]*pass
	work    sync.WaitGroup
	stopped bool
}

func newReplayer(c *commander, chunks *chunks, streams *streams, log zerolog.Logger) *replayer {
	return &replayer{c: c, streams: streams, server: c.server, chunks: chunks, log: log, passes: map[int32]*pass{}}
}

// A pass goes over one stream for the sessions that are behind on it.
type pass struct {
	r    *replayer
	st   *stream
	at   int64
	join map[*mqtt.Session]struct{} // guarded by replayer.mu

	waiting map[*mqtt.Session]struct{} // behind at, for the next round
	active  map[*mqtt.Session]struct{} // get everything from at on
}

// run lets passes begin until ctx ends, and waits for those that are under way.
func (r *replayer) run(ctx context.Context) {
	<-ctx.Done()
	r.mu.Lock()
	r.stopped = true
	r.mu.Unlock()
	r.work.Wait()
}

// want has s get what waits for it. It does not block.
func (r *replayer) want(s *mqtt.Session) {
	behind := s.Behind()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return
	}
	for _, b := range behind {
		p := r.passes[b.Stream]
		if p == nil {
			p = &pass{r: r, st: r.streams.get(b.Stream), join: map[*mqtt.Session]struct{}{},
				waiting: map[*mqtt.Session]struct{}{}, active: map[*mqtt.Session]struct{}{}}
			r.passes[b.Stream] = p
			r.work.Go(func() { p.run(r.ctx) }) // ends when nobody waits, or with ctx
		}
		p.join[s] = struct{}{}
	}
}

const (
	replayChunk = 1 << 20
	replayRetry = 200 * time.Millisecond
)

// run goes over the stream until nobody is behind on it.
func (p *pass) run(ctx context.Context) {
	for p.gather(ctx) {
		if err := p.step(ctx); err != nil {
			if ctx.Err() == nil {
				p.r.log.Warn().Err(err).Str("kafka_topic", p.st.topic).Int32("partition", p.st.partition).Msg("cannot read commands that wait for devices, trying again")
			}
			pause(ctx, replayRetry)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// gather takes in who joins, and begins a new round when nobody is active. False: the pass is over.
func (p *pass) gather(ctx context.Context) bool {
	p.r.mu.Lock()
	for s := range p.join {
		p.waiting[s] = struct{}{}
	}
	clear(p.join)
	over := ctx.Err() != nil || len(p.waiting)+len(p.active) == 0
	if over {
		delete(p.r.passes, p.st.id)
	}
	p.r.mu.Unlock()
	if over {
		return false
	}
	if len(p.active) == 0 {
		p.rewind()
	}
	for s := range p.waiting {
		switch from, ok := s.At(p.st.id); {
		case !ok:
			delete(p.waiting, s)
		case from >= p.at:
			if _, ok = s.Join(p.st.id); ok {
				p.active[s] = struct{}{}
			}
			delete(p.waiting, s)
		}
	}
	return true
}

// rewind sets the pass to the lowest place of those who wait.
func (p *pass) rewind() {
	first := true
	for s := range p.waiting {
		if from, ok := s.At(p.st.id); ok && (first || from < p.at) {
			p.at, first = from, false
		}
	}
}

// step replays one chunk, and lets those go who have got everything.
func (p *pass) step(ctx context.Context) error {
	if len(p.active) == 0 {
		return nil
	}
	if p.live() {
		return nil
	}
	c, err := p.r.chunks.read(ctx, p.st, p.at, replayChunk)
	if err != nil {
		return err
	}
	if c.next == p.at {
		p.stand(ctx) // it was handed out here already, and is not there to be read yet
		return nil
	}
	if c.gone {
		p.r.c.lost(p.st, lostDeleted, len(p.active))
	}
	found, err := p.r.chunks.cancels(ctx, p.st, c)
	if err != nil {
		return err
	}
	next, all := p.r.hand(ctx, p.st, c, p.at, &found)
	if all && next == p.at {
		p.stand(ctx) // the next one is still to be handed out
		return nil
	}
	p.at = next
	for s := range p.active {
		if !s.Passed(p.st.id, p.at) {
			delete(p.active, s)
		}
	}
	p.r.server.Flush()
	if !all {
		<-ctx.Done() // the process stops: what was not handed out waits in Kafka for whoever has the sessions next
		return ctx.Err()
	}
	p.live()
	return nil
}

// stand waits for a while. The next round begins with who is farthest behind then: not all have come that far.
func (p *pass) stand(ctx context.Context) {
	maps.Copy(p.waiting, p.active)
	clear(p.active)
	pause(ctx, replayRetry)
}

// live ends the replay for the sessions that have got as far as the devices here.
func (p *pass) live() (any bool) {
	p.st.mu.Lock()
	defer p.st.mu.Unlock()
	next := p.st.end()
	if next < 0 || p.at < next {
		return false
	}
	for s := range p.active {
		if s.GoLive(p.st.id, next, p.st.ended()) {
			delete(p.active, s)
			any = true
		}
	}
	return any
}

// hand gives the records of a chunk from an offset on to the sessions that joined. next is the offset below which they
// have got everything: less than the chunk if what comes then is still to be handed out. all is false if the process stops.
func (r *replayer) hand(ctx context.Context, st *stream, c chunk, from int64, found *cancels) (next int64, all bool) {
	for i := range c.records {
		rec := &c.records[i]
		if _, cancels := cancellation(rec); cancels || rec.Offset < from {
			continue
		}
		if !st.has(rec.Offset) {
			break
		}
		if ctx.Err() != nil {
			return rec.Offset, false
		}
		cmd, err := r.c.translate(rec)
		switch {
		case err != nil:
			continue // it was refused when it was new
		case cmd.Connected && rec.Offset >= st.next.Load():
			return rec.Offset, true // who is past it when it is handed out would pass for one that it was offered to
		case cmd.Connected:
			continue // it was for those who were there
		}
		cmd.Place = mqtt.Place{Stream: st.id, Offset: rec.Offset}
		if found.has(cmd) {
			cmd.Cancel()
		}
		if cmd.settings.Receipts != "" && !r.c.awaitRoom(cmd, r.c.stop) {
			return rec.Offset, false
		}
		r.c.replay(cmd, st)
	}
	return min(c.next, st.until.Load()), true
}
