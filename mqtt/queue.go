package mqtt

import "time"

// A cause is the rate that a connection is above.
type cause byte

const (
	aboveNothing cause = iota // if it is paused, that is for memory or for Kafka
	aboveMessages
	aboveControl // PINGREQ waits too
)

// longestDelay is how long a packet may wait because of a rate. Keep-alive spares a connection that we do not read, so
// without a bound one that sent a week's worth would have its will a week later.
const longestDelay = time.Minute

// errOverdue ends a connection that is too far above a rate.
var errOverdue = &ProtocolFault{QuotaExceeded, "above a rate for a minute"}

// A queue watches what waits of a connection because of a rate. The watch starts again when all was handled that waited
// at its start, and the socket was once found empty since: a device that is slowed down for ever may stay if it waits
// for answers, while one that just pours, or is gone with much unread, is not kept.
type queue struct {
	since   time.Duration // as Conn.age; 0: nothing waits
	left    int32         // bytes of what waited then
	emptied bool          // the socket was
	cause   cause
}

// waits says that n bytes wait at a pause.
func (q *queue) waits(n int, now time.Duration) {
	switch {
	case q.cause == aboveNothing:
		q.clear()
	case q.since == 0, q.left == 0 && q.emptied:
		q.since, q.left, q.emptied = max(now, 1), int32(n), false
	default:
		q.left = min(q.left, int32(n)) // PINGREQ were answered and taken out
	}
}

// handled says that n bytes wait no more.
func (q *queue) handled(n int) { q.left -= int32(min(n, int(q.left))) }

// isOverdue says that a device has been above a rate for too long.
func (q *queue) isOverdue(now time.Duration) bool { return q.since > 0 && now-q.since > longestDelay }

// drained says that the socket is empty, in a pause.
func (q *queue) drained() { q.emptied = true }

// clear says that nothing waits.
func (q *queue) clear() { q.since = 0 }
