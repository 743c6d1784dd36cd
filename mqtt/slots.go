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
	ids        map[uint16]uint32 // where an id stands that waits for PUBACK; nil until somebody asks
}

func (s *slots) len() int { return int(s.tail - s.head) }

func (s *slots) at(seq uint32) *slot { return &s.ring[seq&uint32(len(s.ring)-1)] }

// push appends a pending slot and gives its sequence number.
func (s *slots) push(id uint16, kind byte) uint32 {
	if s.len() == len(s.ring) {
		s.grow()
	}
	seq := s.tail
	*s.at(seq) = slot{id: id, kind: kind}
	if s.ids != nil && kind == typePuback {
		s.ids[id] = seq
	}
	s.tail++
	return seq
}

// awaits says that a PUBACK for id is in the queue. The first question makes an index that lives until the queue is
// empty: devices that send again ask for each message, the others never.
func (s *slots) awaits(id uint16) bool {
	if s.len() == 0 {
		return false
	}
	if s.ids == nil {
		s.ids = make(map[uint16]uint32, s.len())
		for q := s.head; q != s.tail; q++ {
			if x := s.at(q); x.kind == typePuback {
				s.ids[x.id] = q
			}
		}
	}
	seq, known := s.ids[id]
	return known && s.holds(seq) && s.at(seq).id == id && s.at(seq).kind == typePuback
}

func (s *slots) grow() {
	bigger := slots{ring: make([]slot, max(8, 2*len(s.ring))), head: s.head, tail: s.tail, ids: s.ids}
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
