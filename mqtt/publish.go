package mqtt

import (
	"bytes"
	"math"
)

// publish handles PUBLISH: decode, make room, enter it in the order of acknowledgements, hand it over.
func (c *Conn) publish(first byte, body []byte) error {
	if err := c.withinRate(); err != nil {
		return err
	}
	m := newMessage(body)
	// Decoded before there is room for it: what it costs depends on its properties, and even one that is
	// dropped may set a topic alias.
	if err := c.decodePublish(m, first); err != nil {
		m.free()
		return err
	}
	if c.isRepeat(first, m.id) {
		c.countPublish(len(body))
		c.srv.m.received[m.QoS].Inc()
		m.free()
		return nil
	}
	qos := m.QoS
	m.Reserved = len(body) + MessageOverhead + len(m.User)*propertyOverhead
	m.TooDeep = c.tooDeep(m.Topic)
	admitted, err := c.room(m)
	if err == nil {
		c.countPublish(len(body)) // once, also if it had to wait
	}
	if err != nil || !admitted {
		m.free()
		return err
	}
	c.srv.m.received[qos].Inc()
	fresh := true
	if qos > 0 {
		fresh, err = c.enter(m)
	}
	if !fresh {
		c.srv.handler.Release(m)
		m.free()
		return err
	}
	if isBridgeState(m.Topic) {
		c.srv.m.bridgeStates.Inc()
		c.srv.handler.Release(m)
		m.Ack(Success)
		return nil
	}
	if m.TooDeep {
		c.srv.limits.levels.Inc()
	}
	c.handed, c.handedID = m, m.id
	c.srv.handler.Publish(m)
	c.handed = nil
	return nil
}

// isBridgeState says that topic is the one in which bridges between brokers tell that they are there: with RETAIN, and
// with a will that tells the contrary, whoever may write what. It has the client ID of the bridge, of as many levels as
// there are, or of another bridge behind it. It is for the broker that is asked by others, which we are not, so it is taken
// and goes nowhere; to refuse it would end the connection of an MQTT 3.1.1 bridge.
func isBridgeState(topic []byte) bool {
	const begin, end = "$SYS/broker/connection/", "/state"
	if len(topic) == 0 || topic[0] != '$' {
		return false
	}
	name, begins := bytes.CutPrefix(topic, []byte(begin))
	name, ends := bytes.CutSuffix(name, []byte(end))
	return begins && ends && len(name) > 0
}

// isRepeat says that a PUBLISH came on this connection before and was not answered yet: it is the same message, and has
// one answer. After PUBACK it is a new one [MQTT-4.3.2-5], also if the device did not have the answer when it sent this
// one; of QoS 2 the session knows more. But what waited unread in a pause came before the answers that left meanwhile, so
// for a while these don't make it a new one, and it has no second answer: some clients end the connection at one. If it is
// another message all the same, of a client that sends DUP at once, that gets no answer and is sent again. MQTT 5 forbids
// to send it again on the same connection [MQTT-4.4.0-1], and who does so means the same. With QoS 1 only DUP says that it
// is the same, with QoS 2 the packet identifier.
func (c *Conn) isRepeat(first byte, id uint16) bool {
	kind := byte(typePuback)
	switch qos := first >> 1 & 3; {
	case qos == 2 && c.session.isReceived(id):
		kind = typePubrec
	case qos != 1 || first&8 == 0:
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.slots.knows(id, kind)
}

// room asks for the memory of a message. false: it is dropped. errPause: it waits unread.
func (c *Conn) room(m *Message) (bool, error) {
	if m.QoS == 2 && c.session.unsure.Load() {
		c.mu.Lock()
		c.canPause()
		c.mu.Unlock()
		if c.session.awaitReceived(c.resume) {
			return false, errPause
		}
	}
	if m.QoS > 0 && c.windowIsFull(m.Reserved) {
		return false, errPause
	}
	if m.QoS == 0 && c.holdsBack && c.lagsTooMuch(m.Reserved) {
		if c.waitedEnough() {
			c.drop()
			return false, nil
		}
		return false, errPause
	}
	m.Turn, c.turn = c.turn, nil
	if c.srv.handler.Admit(m, nil) {
		c.endSpareWait()
		return true, nil
	}
	if m.QoS == 0 && c.waitedEnough() {
		c.turn = m.Turn
		c.drop()
		return false, nil
	}
	c.mu.Lock()
	c.canPause()
	if m.QoS == 0 {
		c.beginSpareWait()
	}
	c.mu.Unlock()
	if !c.srv.handler.Admit(m, c.resume) {
		c.turn = m.Turn
		return false, errPause
	}
	c.endSpareWait()
	return true, nil
}

// drop gives up a message with QoS 0 for which there is no memory.
func (c *Conn) drop() {
	c.leaveTurn()
	if !c.orphaned {
		c.endSpareWait()
	}
	c.srv.m.dropped.Inc()
}

// leaveTurn gives up the place among those that wait for memory.
func (c *Conn) leaveTurn() {
	if c.turn != nil {
		c.turn.Leave()
		c.turn = nil
	}
}

// windowIsFull says whether the connection has as much in flight as it may, or waits behind a refused message: nothing is
// handled there, it is about to end.
func (c *Conn) windowIsFull(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	full := c.inFlight > 0 && c.inFlight+n > c.srv.cfg.MaxInFlightBytes || c.slots.len() >= c.srv.cfg.ReceiveMaximum ||
		c.end != nil && c.end.refusal != nil
	if full {
		c.canPause()
		c.wants = true
	}
	return full
}

// lagsTooMuch says whether a message with QoS 0 would join others that are held back, when the connection has as much in
// flight as it may: they are not answered, so nothing else bounds how many of them there are.
func (c *Conn) lagsTooMuch(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holdsBack = c.lagging > 0
	full := c.holdsBack && c.inFlight+n > c.srv.cfg.MaxInFlightBytes
	if full {
		c.canPause()
		c.wants = true
		c.beginSpareWait()
	}
	return full
}

// spareWait is for how many seconds a message with QoS 0 waits for memory at most.
const spareWait = 30

// waitedEnough says whether a message with QoS 0 for which there is no memory is dropped: nothing is stored for now, or it
// has held up its connection for too long. The caller is the reading goroutine, or holds mu.
func (c *Conn) waitedEnough() bool {
	return c.srv.cfg.Away() || c.spareSince != 0 && c.srv.tick.Load()-c.spareSince > spareWait
}

// beginSpareWait is called with mu held.
func (c *Conn) beginSpareWait() {
	if c.spareSince == 0 {
		c.spareSince = max(1, c.srv.tick.Load())
	}
}

func (c *Conn) endSpareWait() {
	if c.spareSince != 0 {
		c.mu.Lock()
		c.spareSince = 0
		c.mu.Unlock()
	}
}

func (c *Conn) decodePublish(m *Message, first byte) error {
	r := cursor{b: m.buf}
	m.QoS, m.Retain = first>>1&3, first&1 != 0
	if m.QoS == 3 {
		return malformed("QoS 3") // [MQTT-3.3.1-4]
	}
	if m.QoS == 0 && first&8 != 0 {
		return malformed("DUP with QoS 0") // [MQTT-3.3.1-2]
	}
	m.Topic = r.topicName()
	if m.QoS > 0 {
		m.id = r.uint16()
		if m.id == 0 && r.err == nil {
			return violation("packet identifier 0") // [MQTT-2.2.1-3]
		}
	}
	if c.version == 5 {
		m.props.userMost = c.srv.cfg.UserProperties
		r.properties(typePublish, &m.props)
		if r.err == nil {
			r.err = c.resolveAlias(m)
		}
	}
	if r.err != nil {
		return r.err
	}
	if len(m.Topic) == 0 {
		return violation("empty topic name") // [MQTT-4.7.3-1]
	}
	if m.Retain && c.version == 5 && c.srv.cfg.Retained == nil {
		return &ProtocolFault{RetainNotSupported, "CONNACK said that retained messages are not available"} // [MQTT-3.2.2-14]
	}
	m.Payload = r.b
	m.takeProperties()
	m.conn, m.session, m.identity = c, c.session, c.identity.Load()
	m.Received, m.ClientID, m.Username = c.session.timeOf(c.now), c.session.clientID, c.principal()
	return nil
}

// resolveAlias keeps a topic alias or puts the topic in its place (section 3.3.2.3.4).
func (c *Conn) resolveAlias(m *Message) error {
	if !m.props.has(propTopicAlias) {
		return nil
	}
	alias := int(m.props.topicAlias)
	if alias == 0 || alias > c.srv.cfg.TopicAliasMaximum {
		return &ProtocolFault{TopicAliasInvalid, "0 or above the Topic Alias Maximum"} // [MQTT-3.3.2-8] [MQTT-3.3.2-9]
	}
	if len(m.Topic) > 0 {
		return c.setAlias(alias, m.Topic)
	}
	if m.Topic = c.aliases.topic(alias); m.Topic == nil {
		return violation("a topic alias that was not set")
	}
	return nil
}

// setAlias keeps a topic alias, unless it would take too much.
func (c *Conn) setAlias(alias int, topic []byte) error {
	if c.aliases == nil {
		c.aliases = new(topicAliases)
	}
	a := c.aliases
	bytes := a.bytes + len(topic)
	if alias > len(a.topics) {
		bytes += (alias - len(a.topics)) * aliasOverhead
	} else {
		bytes -= len(a.topics[alias-1])
	}
	if bytes > c.srv.cfg.TopicAliasMaximum*aliasMost || !c.countAliases(bytes) {
		return &ProtocolFault{QuotaExceeded, "the topic aliases take too much memory"}
	}
	if len(a.topics) < alias {
		a.topics = append(a.topics, make([][]byte, alias-len(a.topics))...)
	}
	a.topics[alias-1] = append([]byte(nil), topic...)
	return nil
}

// countAliases notes that the topic aliases take so many bytes; false: all connections' take too much.
func (c *Conn) countAliases(bytes int) bool {
	before := c.aliases.counted()
	more := max(0, bytes-aliasesUncounted) - before
	if more > 0 && !c.srv.extra.take(more) {
		return false
	}
	if more < 0 {
		c.srv.extra.give(-more)
	}
	c.aliases.bytes = bytes
	return true
}

// topicAliases are those that a device has set. Only the reading goroutine uses them.
type topicAliases struct {
	topics [][]byte // by alias-1; a topic is never written again, only replaced
	bytes  int      // what they take
}

// topic gives what an alias stands for; nil: it was not set.
func (a *topicAliases) topic(alias int) []byte {
	if a == nil || alias > len(a.topics) {
		return nil
	}
	return a.topics[alias-1]
}

// counted is how much of the topic aliases is counted in Server.extra.
func (a *topicAliases) counted() int {
	if a == nil {
		return 0
	}
	return max(0, a.bytes-aliasesUncounted)
}

// enter gives a message with QoS 1 or 2 its slot. fresh is false for a QoS 2 message that was received
// before: its slot is settled by what is known of the first.
func (c *Conn) enter(m *Message) (fresh bool, err error) {
	kind := byte(typePuback)
	if m.QoS == 2 {
		kind = typePubrec
	}
	c.mu.Lock()
	m.slot = c.slots.push(m.id, kind)
	c.inFlight += m.Reserved
	c.mu.Unlock()
	if m.QoS == 1 {
		return true, nil
	}
	return c.enterExactlyOnce(m)
}

func (c *Conn) enterExactlyOnce(m *Message) (fresh bool, err error) {
	r := c.session.receive(m)
	switch r.how {
	case receivedFirst:
		return true, nil
	case receivedTooMany:
		return false, &ProtocolFault{ReceiveMaximumExceeded, "too many QoS 2 messages without PUBREL"}
	case receivedStored:
		if r.answered {
			c.repeatPubrec(m, r.code)
		} else { // on a connection before this one: here it has its turn [MQTT-4.6.0-3]
			c.settle(m.slot, m.Reserved, outcome{state: slotAcked, code: r.code})
		}
	case receivedAgain:
		c.mu.Lock()
		c.inFlight -= m.Reserved
		c.mu.Unlock()
	}
	return false, nil
}

// repeatPubrec answers a PUBLISH that was answered on this connection before. That does not wait for its turn: it would leave behind the
// PUBCOMP for a PUBREL that the first answer called for, when the identifier may stand for another message.
func (c *Conn) repeatPubrec(m *Message, code Code) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slots.unpush()
	c.inFlight -= m.Reserved
	if !c.silent {
		c.acknowledge(&slot{outcome: outcome{code: code}, id: m.id, kind: typePubrec})
	}
}

// pubrel handles PUBREL with PUBCOMP, which waits where the packet id is stored: it must be free there before the device
// uses it for another message. It waits unread while others may still say that they received the id: it would come back
// when it stands for another message, and swallow that.
func (c *Conn) pubrel(body []byte) error {
	r := cursor{b: body}
	id := r.uint16()
	c.acknowledgementRest(&r, typePubrel)
	if r.err != nil {
		return r.err
	}
	if id == 0 {
		return violation("packet identifier 0")
	}
	if c.session.isOpenElsewhere(id) {
		c.mu.Lock()
		c.canPause()
		c.mu.Unlock()
		if c.session.awaitRelease(id, c.resume) {
			return errPause
		}
	}
	known := c.session.release(id, c.srv)
	if !known {
		c.countControl()
	}
	if k := c.session.keeper; k != nil && c.releasedLater(k, id, known) {
		return nil
	}
	c.pubcomp(id, known)
	return nil
}

// releasedLater says that the PUBCOMP for id waits for the store. PUBREL that comes again meanwhile is answered by it
// too: at once would say that the id is free.
func (c *Conn) releasedLater(k Keeper, id uint16, known bool) bool {
	s := c.session
	if !known {
		return s.isFreeing(id)
	}
	s.setFreeing(id, true)
	if k.Released(id, func() { s.setFreeing(id, false); c.pubcompLater(id) }) {
		return true
	}
	s.setFreeing(id, false)
	return false
}

// pubcompLater answers a PUBREL from any goroutine.
func (c *Conn) pubcompLater(id uint16) {
	c.pubcomp(id, true)
	c.mu.Lock()
	enlist := !c.dirty
	c.dirty = true
	c.mu.Unlock()
	if enlist {
		c.srv.enlist(c)
	}
	c.srv.Flush()
}

// pubcomp answers a PUBREL.
func (c *Conn) pubcomp(id uint16, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.silent {
		return
	}
	if known || c.version < 5 {
		c.out = append(c.out, typePubcomp<<4, 2, byte(id>>8), byte(id))
	} else {
		c.out = append(c.out, typePubcomp<<4, 3, byte(id>>8), byte(id), byte(PacketIdentifierNotFound))
	}
}

// acknowledgementRest reads the optional reason code and properties of an MQTT 5 acknowledgement.
func (c *Conn) acknowledgementRest(r *cursor, kind int) (code Code) {
	if c.version == 5 && len(r.b) > 0 {
		code = Code(r.byte())
		if len(r.b) > 0 {
			p := c.properties()
			r.properties(kind, &p)
		}
	}
	if len(r.b) > 0 && r.err == nil {
		r.fail("bytes after the end of the packet")
	}
	return code
}

func (c *Conn) pingreq(body []byte) error {
	if len(body) > 0 {
		return malformed("PINGREQ with a body")
	}
	c.countControl()
	c.mu.Lock()
	c.out = append(c.out, typePingresp<<4, 0)
	c.mu.Unlock()
	return nil
}

// disconnect handles the device's farewell. Only 0x04 leaves the will in force (section 3.14.2.1).
func (c *Conn) disconnect(body []byte) error {
	r := cursor{b: body}
	code := Success
	p := c.properties()
	if c.version == 5 && len(r.b) > 0 {
		code = Code(r.byte())
		if len(r.b) > 0 {
			r.properties(typeDisconnect, &p)
		}
	}
	if len(r.b) > 0 && r.err == nil {
		r.fail("bytes after the end of the packet")
	}
	if r.err != nil {
		return r.err
	}
	if p.has(propSessionExpiry) {
		if p.sessionExpiry > 0 && !c.persists {
			return violation("DISCONNECT sets a Session Expiry Interval that CONNECT had as 0") // [MQTT-3.14.2-2]
		}
		c.srv.sessions.setExpiry(c.session, c.srv.capExpiry(p.sessionExpiry))
	}
	c.tidy = code == Success
	return errGoodbye{code}
}

// errGoodbye ends the reading after a DISCONNECT.
type errGoodbye struct{ code Code }

// Error gives the name of the device's reason code.
func (e errGoodbye) Error() string { return e.code.String() }

func (s *Server) capExpiry(seconds uint32) uint32 {
	most := s.cfg.SessionExpiryMax.Seconds()
	if most >= math.MaxUint32 {
		return seconds
	}
	return min(seconds, uint32(most))
}
