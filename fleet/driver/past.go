package driver

import "sluice/fleet"

// A past session is one that a new session takes the place of by a clean start. The commands that waited for it are
// told of by who opens the new one. Guarded by part.mu.
type past struct {
	inc   string // who wrote its state
	state *fleet.Session
	by    *attempt // of the new session
	ends  Ends     // where it ended; nil: the new session is not open yet
}

// begins notes which session ends with v, a record of an attempt that is about to be written.
func (h *holder) begins(v *fleet.Session) {
	if v == nil || h.opening == nil {
		return
	}
	view := h.p.view(h.id)
	switch own := view.Session(h.inc.name); {
	case v.Claim == 0 && v.Ended && own != nil && !own.Ended && own.OfflineSince > 0: // expired here, and nobody has come to see it yet
		h.p.ended(h.id, own)
	case v.Opened() && v.Began == v.Claim:
		h.past = nil
		if inc, state, ok := view.Base(millis()); ok { // who left it tells of one that has expired, at the latest when reading our claim
			h.past = &past{inc: inc, state: state, by: h.opening}
		}
	}
}

func (h *holder) dead(inc string) bool {
	_, dead := h.p.table.Dead(inc)
	return dead
}

// tellPast tells of the commands that waited for the session before, once its last state is known: its holder, if it
// lives, is about to release it, and what the device had got until then is no loss.
func (h *holder) tellPast() {
	past := h.past
	if past == nil {
		return
	}
	view := h.p.view(h.id)
	if own := view.Session(h.inc.name); past.ends == nil && past.by != h.opening && own != nil && own.Began > past.state.StateEpoch {
		past.ends = h.p.ends(h.id) // nobody waits for the new session any more, and its record has landed all the same
	}
	last := view.Session(past.inc)
	if last != nil && last.StateEpoch == past.state.StateEpoch {
		past.state = last // also before the new session is open: its holder may have removed it by then
		if last.Ended {   // its holder tells
			h.past = nil
			return
		}
		if past.inc != h.inc.name && !last.Released && !h.dead(past.inc) {
			return
		}
	}
	if past.ends != nil {
		h.p.advance(h.id, &past.state.Progress)
		for stream, at := range h.p.d.host.Ahead(&past.state.Progress) { // what it had met there is not for the new one
			past.ends[stream] = max(past.ends[stream], at)
		}
		h.pastOver()
	}
}

// pastOver tells of them by what is known.
func (h *holder) pastOver() {
	past := h.past
	h.past = nil
	if past != nil && past.ends != nil {
		h.p.endedAt(h.id, past.state, past.ends)
	}
}
