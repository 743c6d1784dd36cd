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

func (e *extra) give(n int) { e.used.Add(-int64(n)) }

const (
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
