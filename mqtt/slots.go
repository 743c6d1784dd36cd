package mqtt

// A slot is the place of one PUBACK or PUBREC in the order in which they must leave.
type slot struct {
	outcome
	id   uint16
	kind byte // typePuback or typePubrec
}

type slotState byte

const (
	slotPending   slotState = iota
	slotAcked               // stored, or accepted without being kept
	slotRefused             // never will be
	slotAbandoned           // unknown: the connection must close without an answer
)

type outcome struct {
	reason string
	code   Code
	state  slotState
}

// slots is a FIFO of slots, addressed by a sequence number that counts up and may wrap. The zero value is
// empty and holds no memory.
type slots struct {
	ring       []slot // length is a power of 2
	head, tail uint32
	ids        map[answerKey]uint32 // where an answer stands; nil until somebody asks
	answered   *answered            // of late; nil: nobody wants to know
}

func (s *slots) len() int { return int(s.tail - s.head) }

func (s *slots) at(seq uint32) *slot { return &s.ring[seq&uint32(len(s.ring)-1)] }

// An answerKey is what a PUBACK or PUBREC is for.
type answerKey struct {
	id   uint16
	kind byte
}

// push appends a pending slot and gives its sequence number.
func (s *slots) push(id uint16, kind byte) uint32 {
	if s.len() == len(s.ring) {
		s.grow()
	}
	seq := s.tail
	*s.at(seq) = slot{id: id, kind: kind}
	if s.ids != nil {
		s.ids[answerKey{id, kind}] = seq
	}
	s.tail++
	return seq
}

// unpush takes the last slot back, which is pending and was just pushed.
func (s *slots) unpush() { s.tail-- }

// repeatsCome is for how many seconds after a pause a repeat may come of what was answered in it: the network, and the
// device's own socket, have kept what was not read.
const repeatsCome = 10

// idBits have a bit for each id, by its lower byte; the keys have the upper one: 250 bytes for clients that count, and 40 KiB at
// most.
type idBits map[answerKey]*[4]uint64

func (s idBits) add(id uint16, kind byte) {
	key := answerKey{id >> 8, kind}
	bits := s[key]
	if bits == nil {
		bits = new([4]uint64)
		s[key] = bits
	}
	bits[id>>6&3] |= 1 << (id & 63)
}

func (s idBits) has(id uint16, kind byte) bool {
	bits := s[answerKey{id >> 8, kind}]
	return bits != nil && bits[id>>6&3]>>(id&63)&1 != 0
}

// An answered has the ids that were answered of late.
type answered struct {
	now, before idBits // since the tick since, and before it
	since       int64
	until       int64 // the tick up to which both are kept
	paused      int64 // when remember was called last
}

// remember has it noted from now on what is answered, until a while after tick. With pauses again and again it is forgotten in
// parts, each after a while.
func (s *slots) remember(tick int64) {
	if s.answered == nil {
		s.answered = &answered{now: make(idBits), since: tick}
	}
	a := s.answered
	if tick > a.since+repeatsCome {
		a.before, a.now, a.since = a.now, make(idBits), tick
	}
	a.until, a.paused = tick+repeatsCome, tick
}

// goOn says that a pause has ended. What was answered in a long one is kept as if it had been now, also if there is another at once.
func (s *slots) goOn(tick int64) {
	if a := s.answered; a != nil && tick > a.paused {
		a.since = tick
	}
	s.remember(tick)
}

// forget ends that if it is over.
func (s *slots) forget(tick int64) {
	if s.answered != nil && tick > s.answered.until {
		s.answered = nil
	}
}

// note notes the answer of h, if that is wanted.
func (s *slots) note(h *slot) {
	if s.answered != nil {
		s.answered.now.add(h.id, h.kind)
	}
}

// knows says that a PUBACK or PUBREC for id is in the queue, or was given of late.
func (s *slots) knows(id uint16, kind byte) bool {
	a := s.answered
	return a != nil && (a.now.has(id, kind) || a.before.has(id, kind)) || s.awaits(id, kind)
}

// awaits says that a PUBACK or PUBREC for id is in the queue. The first question makes an index that lives until the
// queue is empty: devices that send again ask for each message, the others never.
func (s *slots) awaits(id uint16, kind byte) bool {
	if s.len() == 0 {
		return false
	}
	if s.ids == nil {
		s.ids = make(map[answerKey]uint32, s.len())
		for q := s.head; q != s.tail; q++ {
			s.ids[answerKey{s.at(q).id, s.at(q).kind}] = q
		}
	}
	seq, known := s.ids[answerKey{id, kind}]
	return known && s.holds(seq) && s.at(seq).id == id && s.at(seq).kind == kind
}

func (s *slots) grow() {
	bigger := *s
	bigger.ring = make([]slot, max(8, 2*len(s.ring)))
	for q := s.head; q != s.tail; q++ {
		*bigger.at(q) = *s.at(q)
	}
	*s = bigger
}

// holds says whether seq is still in the queue.
func (s *slots) holds(seq uint32) bool { return seq-s.head < s.tail-s.head }

// settled gives the head if its outcome is known.
func (s *slots) settled() *slot {
	if s.len() == 0 {
		return nil
	}
	if h := s.at(s.head); h.state != slotPending {
		return h
	}
	return nil
}

// pop drops the head, and the memory with the last one when it has grown: most devices are idle most of
// the time.
func (s *slots) pop() {
	s.note(s.at(s.head))
	*s.at(s.head) = slot{}
	s.head++
	if s.head != s.tail {
		return
	}
	s.ids = nil
	if len(s.ring) > 32 {
		s.ring = nil
	}
}
