package mqtt

import "sync/atomic"

// extra counts what devices make us hold for long beyond what each may hold uncounted: topic aliases of connections and
// packet identifiers of sessions. It bounds them over all, so that a device that keeps to the ordinary is never refused
// because of others.
type extra struct {
	used atomic.Int64
	most int64
}

// take asks for n bytes.
func (e *extra) take(n int) bool {
	if e.used.Add(int64(n)) <= e.most {
		return true
	}
	e.give(n)
	return false
}

// count counts n bytes that can't be refused: others are, until there is room again.
func (e *extra) count(n int) { e.used.Add(int64(n)) }

func (e *extra) give(n int) { e.used.Add(-int64(n)) }

// countRecords counts in Server.records that TLS keeps so much for this connection, which can't be let go, in place of what was counted
// before; false: all connections' take too much.
func (c *Conn) countRecords(kept int) bool {
	more := max(0, kept-recordUncounted) - c.link.kept
	if more <= 0 {
		c.srv.records.give(-more)
	} else if !c.srv.records.take(more) {
		return false
	}
	c.link.kept += more
	return true
}

// countHandshake is countRecords before anybody knows whose connection it is: half of the room is kept for those who are let in.
func (c *Conn) countHandshake(kept int) bool {
	others := c.srv.records.used.Load() - int64(c.link.kept)
	return (kept <= recordUncounted || others < c.srv.records.most/2) && c.countRecords(kept)
}

// forgetRecords gives it back when the connection has ended.
func (c *Conn) forgetRecords() {
	if c.link != nil {
		c.srv.records.give(c.link.kept)
		c.link.kept = 0
	}
}

// errTooManyRecords ends a connection whose records make TLS keep more than there is room for.
var errTooManyRecords = &ProtocolFault{QuotaExceeded, "the TLS records of all connections take too much memory"}

const (
	// recordUncounted is what TLS may keep for a connection beside what is counted: as much as a handshake with a chain of a few
	// certificates makes it keep.
	recordUncounted = 12 << 10
	// aliasesUncounted is what the topic aliases of a connection may take beside what is counted: 16 of 40 bytes each.
	aliasesUncounted = 1 << 10
	// aliasMost is what the topic aliases of a connection may take for each that it may set.
	aliasMost = 4 << 10
	// aliasOverhead is what a topic alias costs beside its bytes.
	aliasOverhead = 24
	// idsMost is how many QoS 2 packet identifiers a session may have that were not released. Clients that do not keep
	// to the Receive Maximum send a burst as a whole before their first PUBREL.
	idsMost = 4096
	// idBytes is what one costs.
	idBytes = 64
)
