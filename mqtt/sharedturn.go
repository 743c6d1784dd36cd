package mqtt

import (
	"context"
	"time"
)

// A turn is a command of a share on its way to one of the members. It is the command's owner meanwhile.
type turn struct {
	share  *Share
	number uint64
	held   delivery // counts its memory until it has ended
	qos    byte     // at the member that has it

	// Guarded by Share.mu while a member has it.
	ctx   context.Context // ends when the command is not ours to give any more
	cmd   *Command
	owner CommandOwner
}

// isOver says that the command is not to be given to anybody any more.
func (t *turn) isOver(now time.Time) bool {
	_, over := t.held.over(now)
	return over || t.ctx.Err() != nil
}

// finish ends a command that is over.
func (t *turn) finish() {
	if s, over := t.held.over(time.Now()); over && t.ctx.Err() == nil {
		t.end("", s.fate, s.code, s.reason)
		return
	}
	t.giveBack()
}

// giveBack says that no member has it.
func (t *turn) giveBack() { t.end("", Kept, Success, "") }

// end tells the owner what became of the command.
func (t *turn) end(clientID string, fate Fate, code Code, reason string) {
	owner, c := t.share.ended(t)
	owner.CommandSettled(c, clientID, fate, code, reason)
	t.share.srv.unhold(&t.held)
}

// CommandSent passes on that a member was sent the command.
func (t *turn) CommandSent(*Command) {
	owner, c := t.share.ownerOf(t)
	owner.CommandSent(c)
}

// CommandSettled takes what became of the command at a member: an end, or another member's turn.
func (t *turn) CommandSettled(_ *Command, clientID string, fate Fate, code Code, reason string) {
	begun := t.qos != 1 && reason == reasonNotAnswered // nobody else may have it [MQTT-4.8.2-5] [MQTT-4.3.1-1]
	if fate == Offline && !begun {
		t.share.shares.m.handedOn.Inc()
		t.share.back(t)
		t.share.srv.Flush()
		return
	}
	t.end(clientID, fate, code, reason)
}
