package driver

import (
	"slices"

	"sluice/fleet"
)

// A past session is one that a new session takes the place of by a clean start. The commands that waited for it are
// told of by who opens the new one. Guarded by part.mu.
type past struct {
	inc   string // who wrote its state
	state *fleet.Session
	by    *attempt // of the new session
	ends  Ends     // where it ended; nil: the new session is not open yet
}

// begins notes which session ends with a record of an attempt that is about to be written.
func (h *holder) begins(a fleet.Action) {
	v := a.Value
	if v == nil || h.opening == nil {
		return
	}
	view := h.p.view(h.id)
	switch {
	case a.State != nil: // expired here, and nobody has come to see it yet
		h.p.ended(h.id, a.State)
	case v.Opened() && v.Began == v.Claim:
		h.forgetPasts()
		inc, state, ok := view.Base(millis())
		if !ok { // who has left one that has expired tells, at the latest when reading our claim: if that is us, and it had not when CONNECT came, here
			inc, state, ok = view.Base(v.Connected)
			ok = ok && inc == h.inc.name
		}
		if ok {
			h.pasts = append(h.pasts, &past{inc: inc, state: state, by: h.opening})
		}
	}
}

// forgetPasts drops those whose place nothing has taken in the end. Those before may still wait for their last word.
func (h *holder) forgetPasts() {
	h.pasts = slices.DeleteFunc(h.pasts, func(past *past) bool { return past.ends == nil })
}

// lastPast is the one that the session which is being opened, or open, takes the place of; nil: there is none, or it is told of.
func (h *holder) lastPast() *past {
	if n := len(h.pasts); n > 0 {
		return h.pasts[n-1]
	}
	return nil
}

func (h *holder) dead(inc string) bool {
	_, dead := h.p.table.Dead(inc)
	return dead
}

// tellPasts tells of the commands that waited for the sessions before, of each once its last state is known: its holder, if it
// lives, is about to release it, and what the device had got until then is no loss.
func (h *holder) tellPasts() {
	if len(h.pasts) > 0 {
		h.pasts = slices.DeleteFunc(h.pasts, h.tellPast)
		h.letGo()
	}
}

// tellPast says that there is no more to tell of a session.
func (h *holder) tellPast(past *past) bool {
	view := h.p.view(h.id)
	if own := view.Session(h.inc.name); past.ends == nil && past.by != h.opening && own != nil && own.Began > past.state.StateEpoch {
		past.ends = h.p.ends(h.id) // nobody waits for the new session any more, and its record has landed all the same
	}
	last := view.Session(past.inc)
	if last != nil && last.StateEpoch == past.state.StateEpoch {
		past.state = last // also before the new session is open: its holder may have removed it by then
		if last.Ended {   // its holder tells
			return true
		}
		if past.inc != h.inc.name && !last.Released && !h.dead(past.inc) {
			return false
		}
	}
	if past.ends == nil {
		return false
	}
	h.p.advance(h.id, &past.state.Progress)
	for stream, at := range h.p.d.host.Ahead(&past.state.Progress) { // what it had met there is not for the new one
		past.ends[stream] = max(past.ends[stream], at)
	}
	h.p.endedAt(h.id, past.state, past.ends)
	return true
}
