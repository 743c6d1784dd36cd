package fleet

// A Pulse is what an incarnation knows of the heartbeats of all, on its own monotonic clock in milliseconds. One
// serves the owners of all partitions.
type Pulse struct {
	me       string
	interval int64
	deadline int64
	heard    map[string]int64
	verdicts map[string]bool
	own      int64 // when the own heartbeat last came back
}

// NewPulse makes the Pulse of incarnation me at time mono: interval is the time between heartbeats, deadAfter the
// silence after which an incarnation is taken for dead.
func NewPulse(me string, interval, deadAfter, mono int64) *Pulse {
	return &Pulse{me: me, interval: interval, deadline: deadAfter, heard: make(map[string]int64), verdicts: make(map[string]bool), own: mono}
}

// Heard says that a heartbeat of inc was read from Kafka.
func (p *Pulse) Heard(inc string, mono int64) {
	if inc == p.me {
		p.own = mono
	}
	p.heard[inc] = mono
}

// Condemned says that a verdict on inc was read in any partition: the owners of the others need not wait.
func (p *Pulse) Condemned(inc string) { p.verdicts[inc] = true }

// Forget drops what is known of inc, whose records are gone.
func (p *Pulse) Forget(inc string) {
	delete(p.heard, inc)
	delete(p.verdicts, inc)
}

// Silent says that inc is to be judged. Who was never heard is counted from the first question. Nobody is silent
// while our own heartbeat does not come back: then it may be we who do not hear.
func (p *Pulse) Silent(inc string, mono int64) bool {
	if p.verdicts[inc] {
		return inc != p.me
	}
	last, ok := p.heard[inc]
	if !ok {
		p.heard[inc] = mono
		return false
	}
	if mono-p.own > 2*p.interval {
		// The time in which we did not hear says nothing of the others.
		p.heard[inc] = max(last, mono-p.deadline)
		return false
	}
	return inc != p.me && mono-last > p.deadline
}
