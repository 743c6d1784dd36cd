package fleet

import "slices"

// A Pulse is what an incarnation knows of the heartbeats of all, on its own monotonic clock in milliseconds. One
// serves the owners of all partitions. model/Judging.tla has its rules, and what goes wrong without each.
//
// Every incarnation writes heartbeats into all partitions of the sessions topic. That none of another's was read says
// nothing by itself: Kafka may not have taken them, or we may not have read them yet. Our own heartbeats are the proof.
// One that we wrote at a time, and read back, shows all that was stored in its partition before that time. And while
// ours are stored without delay, those of the others could have been.
type Pulse struct {
	me         string
	interval   int64
	deadline   int64
	partitions int
	others     map[string]*suspect
	verdicts   map[string]bool
	proofs     map[int32]*proof
}

// A suspect is what was heard of an incarnation.
type suspect struct {
	heard int64          // when a heartbeat of it was read last, in any partition
	in    map[int32]bool // the partitions that have one: earlier releases write to one alone
}

// A proof is how our own heartbeats come back in one partition.
type proof struct {
	since  int64      // when the first one of an unbroken run was read
	until  int64      // when the last one was written
	doubts [][2]int64 // times since then that prove nothing: an outage may be in them
}

// NewPulse makes the Pulse of incarnation me: interval is the time between heartbeats, deadAfter the silence after
// which an incarnation is taken for dead, partitions how many the sessions topic has.
func NewPulse(me string, interval, deadAfter int64, partitions int) *Pulse {
	return &Pulse{
		me: me, interval: interval, deadline: deadAfter, partitions: partitions,
		others: make(map[string]*suspect), verdicts: make(map[string]bool), proofs: make(map[int32]*proof),
	}
}

// Heard says that a heartbeat of inc was read from a partition at time mono. beat is when it was written, on its
// writer's clock.
func (p *Pulse) Heard(inc string, partition int32, beat, mono int64) {
	if inc != p.me {
		p.Known(inc, partition, mono)
		return
	}
	run := p.proofs[partition]
	if run == nil || mono-max(run.since, run.until) > 2*p.interval {
		// For a while Kafka did not take it, or we did not write or read. What the others had to write then may come
		// later than ours: they are given the whole time again.
		run = &proof{since: mono}
		p.proofs[partition] = run
	}
	run.note(beat, mono, p.interval, p.deadline)
}

// note notes that one of our own which was written at beat was read at mono. If it comes late, or there was none for a
// while, an outage too short to break the run may lie before it, and an interval later the others are back from that.
// Several of them in a row would look like the silence of somebody who was back in none of the moments between.
func (run *proof) note(beat, mono, interval, deadline int64) {
	if before := max(run.since, run.until); mono-before > interval+interval/2 {
		run.doubts = append(run.doubts, [2]int64{before, mono + interval})
	}
	run.until = max(run.until, beat)
	run.doubts = slices.DeleteFunc(run.doubts, func(d [2]int64) bool { return d[1] < run.until-10*deadline })
}

// silence is how long, up to until, nothing was stored of who was heard last at a time, though it could have been.
func (run *proof) silence(heard int64) int64 {
	from := max(run.since, heard)
	long := run.until - from
	for _, d := range run.doubts {
		begin, end := max(d[0], from), min(d[1], run.until)
		if end > begin {
			long -= end - begin
		}
		from = max(from, end)
	}
	return long
}

// Known says that a partition has a heartbeat of inc, and counts its silence from mono on.
func (p *Pulse) Known(inc string, partition int32, mono int64) {
	s := p.suspect(inc, mono)
	s.heard, s.in[partition] = mono, true
}

func (p *Pulse) suspect(inc string, mono int64) *suspect {
	s := p.others[inc]
	if s == nil {
		s = &suspect{heard: mono, in: make(map[int32]bool)}
		p.others[inc] = s
	}
	return s
}

// Condemned says that a verdict on inc was read in any partition: the owners of the others need not wait.
func (p *Pulse) Condemned(inc string) { p.verdicts[inc] = true }

// Forget drops what is known of inc, whose records are gone.
func (p *Pulse) Forget(inc string) {
	delete(p.others, inc)
	delete(p.verdicts, inc)
}

// Silent says that inc is to be judged: in more than half of the partitions that have its heartbeats it stored none
// for all the time that it is given, while ours were stored and read back, and none was read of any other partition.
// More than half, because the network may part it from some, and us from others. Who was never heard is counted from
// the first question, in all partitions.
func (p *Pulse) Silent(inc string, mono int64) bool {
	if inc == p.me {
		return false
	}
	if p.verdicts[inc] {
		return true
	}
	s := p.suspect(inc, mono)
	proven, of := 0, len(s.in)
	if of == 0 {
		of = p.partitions
	}
	for partition, run := range p.proofs {
		if len(s.in) > 0 && !s.in[partition] {
			continue
		}
		if mono-run.until <= 2*p.interval && run.silence(s.heard) >= p.deadline {
			proven++
		}
	}
	return 2*proven > of
}
