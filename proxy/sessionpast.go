package proxy

import "sluice/fleet"

// A past session is one that a new session takes the place of: by a clean start, or because it has expired. The
// commands that waited for it are told of by who opens the new one. Guarded by part.mu.
type past struct {
	inc   string // who wrote its state
	state *fleet.Session
	over  bool // the new session is open
}

// begins notes which session ends when v, a record that is about to be written, opens a new one.
func (h *holder) begins(v *fleet.Session) {
	if v == nil || h.opening == nil || !v.Opened() || v.Began != v.Claim {
		return
	}
	h.past = nil
	view := h.p.view(h.id)
	inc, state, ok := view.Base(0)
	if !ok {
		return
	}
	if _, _, lasts := view.Base(millis()); !lasts && h.dead(inc) {
		return // the owner has told of it when it expired
	}
	h.past = &past{inc: inc, state: state}
}

func (h *holder) dead(inc string) bool {
	_, dead := h.p.table.Dead(inc)
	return dead
}

// tellPast tells of the commands that waited for the session before, once its last state is known: its holder, if it
// lives, is about to release it, and what the device had got until then is no loss.
func (h *holder) tellPast() {
	past := h.past
	if past == nil || !past.over {
		return
	}
	last := h.p.view(h.id).Session(past.inc)
	if last != nil && last.StateEpoch == past.state.StateEpoch {
		past.state = last
		if past.inc != h.inc.name && !last.Released && !h.dead(past.inc) {
			return
		}
	}
	h.pastOver()
}

// pastOver tells of them by what is known.
func (h *holder) pastOver() {
	past := h.past
	h.past = nil
	if past != nil && past.over {
		h.p.later(func() { h.p.s.endedState(h.id, past.state) })
	}
}
