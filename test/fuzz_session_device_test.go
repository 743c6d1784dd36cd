package test

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"sluice/test/internal/wire"
)

// A fuzzSession is one connection of the fuzzer. Its worker writes; a goroutine reads to the end of the connection and
// notes which answers are owed.
type fuzzSession struct {
	f      *sessionFuzz
	rng    *rand.Rand
	script *fuzzScript
	conn   net.Conn
	in     *bufio.Reader
	sent   [][]byte
	trust  bool // nothing was mutated yet, so what is acknowledged is what was sent
	twice  bool // the packet identifiers of QoS 2 may be known from a session before: the answer may be about another message
	ended  chan struct{}

	mu      sync.Mutex // guards all below
	pending map[uint16]uint64
	owed    [][]byte
	failed  error // why reading ended
	reason  byte  // of DISCONNECT
}

const fuzzPatience = 2 * time.Minute

// work runs sessions one after the other until the time is over. Some client IDs come again and again, in either version,
// so that sessions return and connections are taken over.
func (f *sessionFuzz) work(rng *rand.Rand) {
	var ids []string
	var abandoned []net.Conn
	for n := 0; !f.over(); n++ {
		if n%20 == 0 { // packet identifiers that stay in use in a stored session add up
			ids = []string{fmt.Sprintf("f%016x", rng.Uint64()), fmt.Sprintf("f%016x", rng.Uint64()), fmt.Sprintf("f%016x", rng.Uint64())}
		}
		if c := f.session(rng, ids[rng.IntN(len(ids))]); c != nil {
			abandoned = append(abandoned, c)
		}
		if len(abandoned) > 20 {
			_ = abandoned[0].Close()
			abandoned = abandoned[1:]
		}
	}
	for _, c := range abandoned {
		_ = c.Close()
	}
}

// session plays one connection and gives it back if it is to be left open.
func (f *sessionFuzz) session(rng *rand.Rand, id string) (abandoned net.Conn) {
	d := f.doors[rng.IntN(len(f.doors))]
	conn, err := d.dial()
	if err != nil {
		if f.running() {
			f.fail("cannot connect (%s): %v", d.name, err)
		}
		return nil
	}
	f.counts.connections.Add(1)
	_ = conn.SetDeadline(time.Now().Add(4 * fuzzPatience))
	s := &fuzzSession{f: f, rng: rng, conn: conn, in: bufio.NewReader(conn), trust: true, ended: make(chan struct{}), pending: map[uint16]uint64{},
		script: &fuzzScript{f: f, rng: rng, version: byte(4 + rng.IntN(2)), id: id}}
	// One in four sessions is left as it is: it must not suffer from the others. Half mutate rarely, to get far.
	odds := []int{0, 40, 40, 4}[rng.IntN(4)]
	if !s.open(odds) {
		_ = conn.Close()
		return nil
	}
	go s.read() // ends with the connection
	s.talk(odds)
	return s.end(odds)
}

// open says CONNECT and, as a rule, waits for the answer. The identifiers of the session begin anywhere, or every device
// would use the low ones alone.
func (s *fuzzSession) open(odds int) bool {
	hello := s.script.hello()
	s.script.next = uint16(s.rng.IntN(50_000))
	packet := hello.Packet()
	if odds > 0 && s.rng.IntN(odds) == 0 {
		packet = mutate(s.rng, packet, nil)
		s.soil()
	}
	s.write(packet)
	if !s.trust {
		return true
	}
	r, err := wire.Read(s.in)
	switch {
	case err != nil:
		s.f.fail("a valid CONNECT % x got no answer: %v", packet, err)
		return false
	case r.First == wire.CONNACK && (isBusy(r.Code(), s.script.version) || isAnothers(r.Code(), s.script.version)):
		s.f.counts.refused.Add(1)
		return false
	case r.First != wire.CONNACK || r.Code() != 0:
		s.f.fail("a valid CONNECT % x got %v", packet, r)
		return false
	}
	s.twice = len(r.Body) > 0 && r.Body[0] == 1
	if s.rng.IntN(2) == 0 {
		select {
		case s.f.orders <- s.script.id:
		default:
		}
	}
	return true
}

// isAnothers says that the client ID has a session of another user: a mutation may have given an earlier CONNECT a user
// name.
func isAnothers(code, version byte) bool {
	if version < 5 {
		return code == 0x05
	}
	return code == 0x87
}

// soil says that from now on an answer may be about what a mutation made.
func (s *fuzzSession) soil() {
	s.trust = false
	s.f.counts.mutated.Add(1)
}

// write sends in pieces, now and then in very small ones.
func (s *fuzzSession) write(b []byte) {
	s.f.counts.packets.Add(1)
	s.sent = append(s.sent, b)
	for len(b) > 0 {
		n := len(b)
		if s.rng.IntN(4) == 0 {
			n = 1 + s.rng.IntN(min(n, 1+s.rng.IntN(40)))
		}
		if err := s.put(b[:n]); err != nil {
			return
		}
		b = b[n:]
	}
}

// put sends bytes. On a WebSocket in a faulty session, the frame around them is mutated at times.
func (s *fuzzSession) put(b []byte) error {
	if socket, ok := s.conn.(*wire.Socket); ok && !s.trust && s.rng.IntN(10) == 0 {
		return socket.Raw(mutate(s.rng, wire.Frame(wire.Final|wire.OpBinary, b), nil))
	}
	_, err := s.conn.Write(b)
	return err
}

// talk sends packets, mutated ones with the given odds, until it has said enough or the connection is over.
func (s *fuzzSession) talk(odds int) {
	for range 1 + s.rng.IntN(80) {
		select {
		case <-s.ended:
			return
		default:
		}
		s.answer(odds)
		if s.hasRoom() {
			s.say(s.script.step(), odds)
		}
	}
}

// hasRoom keeps a valid device below its Receive Maximum, which is 256.
func (s *fuzzSession) hasRoom() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pending) < 100
}

// say sends a step, as it is, twice, late, or mutated.
func (s *fuzzSession) say(step fuzzStep, odds int) {
	packet := step.packet
	if odds > 0 && s.rng.IntN(odds) == 0 {
		packet = mutate(s.rng, packet, s.sent)
		s.soil()
	}
	if s.trust && step.number > 0 && !(s.twice && packet[0]&0x06 == 0x04) {
		s.mu.Lock()
		s.pending[step.id] = step.number
		s.mu.Unlock()
	}
	s.write(packet)
	if odds > 0 && s.rng.IntN(10) == 0 { // repeats are no mutation: they have the same bytes
		s.write(s.sent[len(s.sent)-1-s.rng.IntN(min(5, len(s.sent)-1)+1)])
	}
}

// answer sends what is owed to the server, in a faulty session not always, twice, or in another order.
func (s *fuzzSession) answer(odds int) {
	s.mu.Lock()
	owed := s.owed
	s.owed = nil
	s.mu.Unlock()
	if odds > 0 && s.rng.IntN(3) == 0 {
		s.rng.Shuffle(len(owed), func(i, j int) { owed[i], owed[j] = owed[j], owed[i] })
	}
	for _, b := range owed {
		if odds > 0 && s.rng.IntN(odds) == 0 {
			b = mutate(s.rng, b, s.sent)
			s.soil()
		}
		s.write(b)
	}
}

// read takes what comes until the end.
func (s *fuzzSession) read() {
	defer close(s.ended)
	for {
		r, err := wire.Read(s.in)
		s.mu.Lock()
		if err != nil {
			s.failed = err
			s.mu.Unlock()
			return
		}
		s.take(r)
		s.mu.Unlock()
	}
}

// take notes an answer. mu is held.
func (s *fuzzSession) take(r wire.Reply) {
	id := r.ID()
	switch r.First & 0xF0 {
	case wire.PUBACK, wire.PUBREC:
		if n := s.pending[id]; n > 0 && r.Code() < 0x80 {
			s.f.ledger.acked.add(n)
		}
		delete(s.pending, id)
		if r.First == wire.PUBREC && r.Code() < 0x80 {
			s.owed = append(s.owed, wire.Packet(wire.PUBREL, id))
		}
	case wire.PUBREL & 0xF0:
		s.owed = append(s.owed, wire.Packet(wire.PUBCOMP, id))
	case wire.PUBLISH:
		s.delivered(r)
	case wire.DISCONNECT:
		s.reason = r.Code()
	case wire.CONNACK, wire.SUBACK, wire.UNSUBACK, wire.PINGRESP, wire.PUBCOMP:
	default:
		s.f.fail("the server sent %#x % x", r.First, r.Body)
	}
}

// delivered owes the answer to a command.
func (s *fuzzSession) delivered(r wire.Reply) {
	s.f.counts.commands.Add(1)
	at := 2 + len(r.Topic())
	if at+2 > len(r.Body) {
		return
	}
	id := r.Body[at : at+2]
	switch r.First & 0x06 {
	case 0x02:
		s.owed = append(s.owed, wire.Packet(wire.PUBACK, id))
	case 0x04:
		s.owed = append(s.owed, wire.Packet(wire.PUBREC, id))
	}
}

var errUnanswered = errors.New("messages stay without an acknowledgement")

// end ends the connection in one of the ways in which connections end. A session in which nothing was mutated has its
// messages acknowledged before.
func (s *fuzzSession) end(odds int) (abandoned net.Conn) {
	if odds == 0 {
		s.judge(s.settle())
	} else if isOver(s.ended) {
		s.f.counts.cut.Add(1)
	}
	switch s.rng.IntN(6) {
	case 0:
		if tcp, ok := s.conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
	case 1:
		if half, ok := s.conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
			<-s.ended
		}
	case 2:
		return s.conn
	default:
		s.write(wire.Packet(wire.DISCONNECT))
	}
	_ = s.conn.Close()
	<-s.ended
	return nil
}

// judge counts a session in which nothing was mutated. Kafka may be away for a moment, which ends it, and so may an earlier
// connection of the same client ID that was given up and whose CONNECT came late (0x8E); then it was served as it should
// be. MQTT 3.1.1 is not told why a connection ends, so of those there may be few.
func (s *fuzzSession) judge(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.f.counts.clean.Add(1)
	case !errors.Is(err, errUnanswered) && (s.script.version < 5 || s.reason == 0x8E || isBusy(s.reason, 5)):
		s.f.counts.interrupted.Add(1)
	default:
		s.f.fail("a session without a fault, %s, protocol level %d: %v, DISCONNECT 0x%02X; it said % x", s.script.id, s.script.version, err, s.reason, slices.Concat(s.sent...))
	}
}

// isBusy says that a reason code speaks of the server or of Kafka, not of the device.
func isBusy(code, version byte) bool {
	if version < 5 {
		return code == 0x03
	}
	return code == 0x83 || code == 0x88 || code == 0x89
}

// settle waits until nothing is pending.
func (s *fuzzSession) settle() error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.After(fuzzPatience)
	for {
		s.answer(0)
		s.mu.Lock()
		pending, failed := len(s.pending), s.failed
		s.mu.Unlock()
		if pending == 0 && failed == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-late:
			return errUnanswered
		case <-s.ended:
			return fmt.Errorf("the server ended it: %w", failed)
		}
	}
}

func isOver(ended chan struct{}) bool {
	select {
	case <-ended:
		return true
	default:
		return false
	}
}
