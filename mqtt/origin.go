package mqtt

import "time"

// An Origin says where the subscriptions of one SUBSCRIBE begin; without one they take all that the session gets. It does
// not change.
type Origin struct {
	// At is a time in unix milliseconds: what the device itself published earlier, by Command.Published, is not for them.
	// 0: not known.
	At int64
	// Places are where they begin in streams of which the session had something open at that moment, or was ahead of what
	// Send is called with; in all others it is where the session was.
	Places []Place
}

// begin gives the origin of what a SUBSCRIBE adds. It is to be asked before anything is added, so that all commands that
// are sent from now on are behind it.
func (s *session) begin(now time.Time) *Origin {
	at := &Origin{At: s.raiseFloor(now)}
	if o := s.outbox.Load(); o != nil {
		at.Places = o.places()
	}
	return at
}

// mostPlaces bounds those of all origins of a session, which are in its record. A SUBSCRIBE above it has none.
const mostPlaces = 1024

// places gives where the session is in the streams in which it has something open, or is ahead of the live commands.
func (o *outbox) places() (places []Place) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.durable || o.ended {
		return nil
	}
	lows := o.lows()
	streams, next := o.keeper.Streams()
	for _, stream := range streams {
		live, ok := next(stream)
		low, open := lows[stream]
		at := max(live, o.seen[stream], o.behind[stream].from) // what a replay has passed is not for them either
		if ok && (open && low < at || live < at) {
			places = append(places, Place{stream, at})
		}
	}
	n, last := len(places), (*Origin)(nil)
	for i := range o.subs {
		if from := o.subs[i].origin; from != nil && from != last {
			n, last = n+len(from.Places), from
		}
	}
	if n > mostPlaces {
		return nil
	}
	return places
}

// isAfter says that what has the place p came before.
func (f *Origin) isAfter(p Place) bool {
	if f == nil {
		return false
	}
	for _, at := range f.Places {
		if at.Stream == p.Stream {
			return p.Offset < at.Offset
		}
	}
	return false
}

// excludes says that c came before the subscription was made.
func (s *subscriber) excludes(c *Command) bool {
	f := s.origin
	return f != nil && (f.isAfter(c.Place) || s.session.clientID == c.From && c.Published != 0 && c.Published < f.At && f.At > s.session.voided.Load())
}

// originFor is how long after a SUBSCRIBE something that was published before it can still turn up.
const originFor = time.Minute

// A dating makes the origins of a snapshot: what does not say more than the session's positions is left out.
type dating struct {
	lows   map[int32]int64
	recent int64 // At of an older one does not count
	from   *Origin
	to     *Origin
}

// of gives what the snapshot has of an origin. Those of one SUBSCRIBE come one after the other.
func (d *dating) of(from *Origin) *Origin {
	switch from {
	case nil:
		return nil
	case d.from:
		return d.to
	}
	d.from, d.to = from, nil
	var left Origin
	if from.At > d.recent {
		left.At = from.At
	}
	for _, p := range from.Places {
		if low, open := d.lows[p.Stream]; open && low < p.Offset {
			left.Places = append(left.Places, p)
		}
	}
	if left.At > 0 || left.Places != nil {
		d.to = &left
	}
	return d.to
}

// dating is what a snapshot of now has of origins. mu is held.
func (o *outbox) dating(lows map[int32]int64) *dating {
	recent := o.session.voided.Load()
	if len(lows) == 0 {
		recent = max(recent, time.Now().Add(-originFor).UnixMilli())
	}
	return &dating{lows: lows, recent: recent}
}
