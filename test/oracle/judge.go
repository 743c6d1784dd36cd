package oracle

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// A Violation is something in a history that the model does not allow.
type Violation struct {
	// Clause is of the specification, [MQTT-…] (5, or 3.1.1 where it says so), or of Sluice's own promises.
	Clause string
	Text   string
	// Missing says that it is no violation yet if what is missing still comes.
	Missing bool
}

func (v Violation) String() string { return v.Clause + ": " + v.Text }

// never is after every event.
const never = math.MaxInt

// slack is how late a server may notice the end of a connection and of a period, on a busy machine.
const slack = 4 * time.Second

// A judge walks through a history once and keeps what the rules need.
type judge struct {
	h        *History
	devices  [2]*device
	messages []*facts
	found    []Violation
	over     bool // the finale is over
}

// facts are what became of a message.
type facts struct {
	*Message
	number   int
	from     int // event: first sent
	to       int // event: acknowledged, so that it is published from there on; never
	lastSent int
	sends    map[int]int // on which connections, and how often
	conn     int         // the first of them; of a will: its connection
	records  []Event
	receipts []Event
}

// A device is what the model knows of one.
type device struct {
	number  int
	conns   []*conn
	session *session // of the last connection; nil: there is none
	all     []*session
	unsure  bool // a CONNECT had no success, so the session may have begun or ended
	// pending are messages of the device that are not acknowledged, by identifier.
	pending map[uint16]*facts
	release map[uint16]bool // PUBREC came
}

// A conn is a connection.
type conn struct {
	number     int
	at         int // event: CONNECT
	hello      Event
	opened     time.Duration
	connack    int // event; never
	session    *session
	present    bool
	will       int // message
	end        int // event, never
	gone       int // event: the server has closed it; never
	how        What
	code       byte          // of DISCONNECT
	expiry     time.Duration // when it has ended
	before     time.Duration // the same without what DISCONNECT said
	closed     [2]time.Duration
	toldToGo   bool // DISCONNECT came
	refused    bool // it neither ended a session, unless Clean Start asked for that, nor began one
	places     map[int]int
	acked      int
	subscribes map[uint16]*version
	leaves     map[uint16]*life
}

// A session is one from its first CONNACK to its end.
type session struct {
	dev      *device
	first    *conn
	last     *conn
	end      int // event: the CONNACK of the next one; never
	over     int // event: it may have ended from here on; never
	unsure   bool
	stored   bool // it was to outlive a connection at some time
	lives    []*life
	got      []*delivery
	open     map[uint16]*delivery // not acknowledged by the device
	received map[uint16]*delivery // QoS 2, not released
}

// A life is a subscription from SUBSCRIBE to UNSUBSCRIBE; may and must are the events between which a message can be, and
// has to be, taken by it.
type life struct {
	filter              string
	mayFrom, mustFrom   int
	mustUntil, mayUntil int
	versions            []*version
}

// A version is a subscription as one SUBSCRIBE has it.
type version struct {
	Filter
	of         *life
	conn       *conn
	from, sure int  // events: SUBSCRIBE, SUBACK
	fresh      bool // no subscription with this filter can have been there
}

// A delivery is a PUBLISH that came to a device.
type delivery struct {
	Event
	at    int
	m     *facts
	fresh bool // not a repetition that QoS 2 hides
	ack   int  // event: the device's PUBACK or PUBREC; never
	sure  bool // the server knows of it
	c     *conn
}

// Judge gives what the model does not allow in the history.
func Judge(h *History) []Violation {
	j := &judge{h: h}
	for i := range j.devices {
		j.devices[i] = &device{number: i}
		j.devices[i].forget()
	}
	for i := range h.Messages {
		j.messages = append(j.messages, &facts{Message: &h.Messages[i], number: i, from: never, to: never, sends: map[int]int{}})
	}
	for i, e := range h.Events {
		j.step(i, e)
	}
	j.records()
	j.order()
	j.wills()
	for _, d := range j.devices {
		for _, s := range d.all {
			j.deliveries(s)
			j.retained(s)
		}
		j.ends(d)
	}
	j.commands()
	j.jobs()
	return j.found
}

func (d *device) forget() {
	d.pending, d.release = map[uint16]*facts{}, map[uint16]bool{}
}

func (j *judge) forbid(clause, format string, args ...any) {
	j.found = append(j.found, Violation{Clause: clause, Text: fmt.Sprintf(format, args...)})
}

func (j *judge) miss(clause, format string, args ...any) {
	j.found = append(j.found, Violation{Clause: clause, Text: fmt.Sprintf(format, args...), Missing: true})
}

// rough says that instances were killed, where the promises are weaker.
func (j *judge) rough() bool { return j.h.Crashed }

// leftBehind says that who let a device in may not have heard the last word on its session: it waits two seconds for that
// (docs/commands.md).
func (j *judge) leftBehind(c *conn) bool {
	return j.h.Stalled && c.opened-c.hello.At >= handOver
}

// handOver is how long an instance waits for the last word of another one on a session.
const handOver = 2 * time.Second

func (d *device) conn(n int) *conn {
	for _, c := range d.conns {
		if c.number == n {
			return c
		}
	}
	return nil
}

func (j *judge) step(i int, e Event) {
	switch e.What {
	case Over:
		j.over = true
		return
	case Crash, Stall, Finale:
		return
	case Written:
		j.messages[e.Message].from, j.messages[e.Message].lastSent = i, i
		return
	case Stored:
		j.messages[e.Message].to = i
		return
	case Record:
		j.messages[e.Message].records = append(j.messages[e.Message].records, e)
		return
	case Receipt:
		j.messages[e.Message].receipts = append(j.messages[e.Message].receipts, e)
		return
	}
	d := j.devices[e.Dev]
	if e.What == Connect {
		j.connect(d, i, e)
		return
	}
	c := d.conn(e.Conn)
	if c.session == nil && e.What != GotConnack && e.What != Cut && e.What != GotEnd && e.What != GotDisconnect {
		return // it was refused
	}
	switch e.What {
	case GotConnack:
		j.connack(d, c, i, e)
	case Disconnect:
		c.finish(i, e, Disconnect)
		c.code = e.Code
		if e.Expiry >= 0 {
			c.expiry = time.Duration(e.Expiry) * time.Second
		}
	case Cut:
		c.finish(i, e, Cut)
	case GotDisconnect:
		j.dismissed(c, e)
	case GotEnd:
		j.ended(c, i, e)
	case Publish:
		j.published(d, c, i, e)
	case Pubrel:
		d.release[e.ID] = true
	case GotPuback, GotPubrec:
		j.answered(d, c, i, e)
	case GotPubcomp:
		if !d.release[e.ID] {
			j.forbid("[MQTT-4.3.3-11]", "PUBCOMP for identifier %d, for which there was no PUBREL", e.ID)
		}
		delete(d.pending, e.ID)
		delete(d.release, e.ID)
	case Subscribe:
		j.subscribe(c, i, e)
	case Unsubscribe:
		j.unsubscribe(c, i, e)
	case GotSuback:
		j.suback(c, i, e)
	case GotUnsuback:
		if l := c.leaves[e.ID]; l != nil {
			l.mayUntil = i
		}
	case GotPublish:
		j.got(d, c, i, e)
	case Puback, Pubrec:
		if o := c.session.open[e.ID]; o != nil {
			o.ack = i
			delete(c.session.open, e.ID)
		}
	case GotPubrel:
		delete(c.session.received, e.ID)
	}
}

// finish notes the end of a connection as the device knows it.
func (c *conn) finish(i int, e Event, how What) {
	if c.end != never {
		return
	}
	c.end, c.how = i, how
	c.closed = [2]time.Duration{e.At, e.At + slack}
}

func (j *judge) connect(d *device, i int, e Event) {
	for _, old := range d.conns {
		if old.end == never {
			old.finish(i, e, Connect)
			old.closed[1] = e.At // by now, or by this
		}
	}
	c := &conn{number: e.Conn, at: i, hello: e, connack: never, will: e.Message, end: never, gone: never, places: map[int]int{}, acked: -1,
		subscribes: map[uint16]*version{}, leaves: map[uint16]*life{}}
	c.expiry = time.Duration(e.Expiry) * time.Second
	if e.Version < 5 {
		c.expiry = 24 * time.Hour // sessions.max_expiry
		if e.Clean {
			c.expiry = 0
		}
	}
	c.before = c.expiry
	if e.Message >= 0 {
		j.messages[e.Message].conn, j.messages[e.Message].from = e.Conn, i
	}
	d.conns = append(d.conns, c)
}

func (j *judge) connack(d *device, c *conn, i int, e Event) {
	if e.Code != 0 {
		if !j.rough() && !j.unavailable(c, e) {
			j.forbid("CONNACK", "a valid CONNECT of %c%d is refused with 0x%02X", 'a'+rune(d.number), c.number, e.Code)
		}
		c.refused, c.toldToGo = true, true // it closes the connection [MQTT-3.2.2-7]
		return
	}
	c.connack, c.present, c.opened = i, e.Present, e.At
	for _, old := range d.conns {
		if old.connack == never && old != c && (!old.refused || old.hello.Clean) {
			d.unsure = true
		}
	}
	can, must := j.present(d, c)
	switch {
	case e.Present && c.hello.Clean:
		j.forbid("[MQTT-3.2.2-2]", "Session Present 1 on %c%d with Clean Start", 'a'+rune(d.number), c.number)
	case e.Present && !can:
		j.forbid("[MQTT-3.2.2-3]", "Session Present 1 on %c%d, whose session has ended", 'a'+rune(d.number), c.number)
	case !e.Present && must:
		j.forbid("[MQTT-3.1.2-5]", "Session Present 0 on %c%d, whose session has not ended", 'a'+rune(d.number), c.number)
	}
	// A session that was to end with its connection is over for the device, whatever one that began with a CONNECT of which
	// it heard nothing is taken for.
	if !e.Present || d.session == nil || d.session.last.before == 0 {
		if s := d.session; s != nil {
			s.end, s.over = i, c.at
			if last := s.last; last.expiry == 0 || last.before == 0 || c.opened-last.closed[0] >= last.expiry {
				s.over = last.end
			}
		}
		d.session = &session{dev: d, first: c, end: never, over: never, open: map[uint16]*delivery{}, received: map[uint16]*delivery{}}
		d.all = append(d.all, d.session)
		d.forget()
	}
	d.session.unsure = d.session.unsure || d.unsure && e.Present
	d.unsure = false
	c.session, d.session.last = d.session, c
	d.session.stored = d.session.stored || c.expiry > 0
}

// unavailable says that a CONNECT is refused because what it needs of Kafka could not be had within connect_timeout, while
// Kafka or the instance stood still again and again.
func (j *judge) unavailable(c *conn, e Event) bool {
	code := byte(0x88)
	if c.hello.Version < 5 {
		code = 0x03
	}
	return j.h.Stalled && e.Code == code && e.At-c.hello.At > connectTimeout*9/10
}

// connectTimeout is limits.connect_timeout.
const connectTimeout = 10 * time.Second

// present says whether there can be, and must be, a session for a CONNECT.
func (j *judge) present(d *device, c *conn) (can, must bool) {
	if c.hello.Clean {
		return false, false
	}
	if d.unsure {
		return true, false
	}
	var last *conn
	for _, old := range d.conns {
		if old.connack != never && old != c {
			last = old
		}
	}
	if d.session == nil || last == nil {
		return false, false
	}
	least, most := last.expiry, last.expiry
	if j.rough() { // DISCONNECT may have been lost with the instance
		least, most = min(last.expiry, last.before), max(last.expiry, last.before)
	}
	if most == 0 {
		return false, false
	}
	can = c.hello.At-last.closed[1] <= most+slack ||
		j.rough() && c.hello.At-last.closed[1] <= most+slack+untilVerdict // from which the expiry runs (fleet/DESIGN.md)
	must = least > 0 && c.opened-last.closed[0] < least
	return can, must
}

// untilVerdict is how long it may take until an instance that was killed is declared dead by one that has to start first.
const untilVerdict = 30 * time.Second

// dismissed judges a DISCONNECT of the server.
func (j *judge) dismissed(c *conn, e Event) {
	switch {
	case c.how == Connect:
		if e.Code != 0x8E {
			j.forbid("[MQTT-3.1.4-3]", "DISCONNECT 0x%02X at takeover", e.Code)
		}
	case !j.rough():
		j.forbid("DISCONNECT", "the server ends %c%d with 0x%02X", 'a'+rune(e.Dev), c.number, e.Code)
	}
	c.toldToGo = true
}

func (j *judge) ended(c *conn, i int, e Event) {
	c.gone = i
	switch c.how {
	case "":
		if !j.rough() && !c.toldToGo {
			j.forbid("DISCONNECT", "the server ends %c%d without a word", 'a'+rune(e.Dev), c.number)
		}
		c.finish(i, e, GotEnd)
	case Disconnect:
		c.closed[1] = e.At
		if c.session == nil {
			return
		}
		for _, g := range c.session.got {
			if g.c == c && g.ack < i {
				g.sure = true
			}
		}
	case Connect:
		if c.hello.Version == 5 && !c.toldToGo && !j.rough() {
			j.forbid("[MQTT-3.1.4-3]", "%c%d is closed at takeover without DISCONNECT 0x8E", 'a'+rune(e.Dev), c.number)
		}
	}
	c.toldToGo = true
}

func (j *judge) published(d *device, c *conn, i int, e Event) {
	m := j.messages[e.Message]
	if m.from == never {
		m.from, m.conn = i, c.number
	}
	m.lastSent = i
	m.sends[c.number]++
	if e.QoS > 0 {
		d.pending[e.ID] = m
	}
	if _, again := c.places[m.number]; !again {
		c.places[m.number] = len(c.places)
	}
}

// answered judges PUBACK and PUBREC, which come in the order of the PUBLISH packets.
func (j *judge) answered(d *device, c *conn, i int, e Event) {
	m := d.pending[e.ID]
	if m == nil {
		if e.What == GotPuback && !j.repeated(c) {
			j.forbid("[MQTT-4.3.2-4]", "PUBACK for identifier %d, which is not in use", e.ID)
		}
		return
	}
	if want := map[byte]What{1: GotPuback, 2: GotPubrec}[m.QoS]; e.What != want {
		j.forbid("[MQTT-4.3.2-4]", "%s for message %d with QoS %d", e.What, m.number, m.QoS)
		return
	}
	if e.Code >= 0x80 {
		j.forbid("docs/acknowledgement.md", "message %d is refused with 0x%02X", m.number, e.Code)
	}
	place, here := c.places[m.number]
	if here && place < c.acked && m.to == never {
		j.forbid("[MQTT-4.6.0-2]", "message %d is acknowledged after a later one", m.number)
	}
	c.acked = max(c.acked, place)
	m.to = min(m.to, i)
	if e.What == GotPuback {
		delete(d.pending, e.ID)
	}
}

// repeated says whether something was sent twice on a connection, so that an acknowledgement may come twice.
func (j *judge) repeated(c *conn) bool {
	for number := range c.places {
		if j.messages[number].sends[c.number] > 1 {
			return true
		}
	}
	return false
}

func (j *judge) subscribe(c *conn, i int, e Event) {
	v := &version{Filter: e.Options, conn: c, from: i, sure: never, fresh: true}
	for _, l := range c.session.lives {
		if l.filter == v.Name && l.mayUntil == never {
			v.fresh = false
		}
		if l.filter == v.Name && l.mustUntil == never {
			v.of = l
		}
	}
	if v.of == nil {
		v.of = &life{filter: v.Name, mayFrom: i, mustFrom: never, mustUntil: never, mayUntil: never}
		c.session.lives = append(c.session.lives, v.of)
	}
	v.of.versions = append(v.of.versions, v)
	c.subscribes[e.ID] = v
}

func (j *judge) suback(c *conn, i int, e Event) {
	v := c.subscribes[e.ID]
	if v == nil {
		j.forbid("[MQTT-3.8.4-2]", "SUBACK for identifier %d, which is not in use", e.ID)
		return
	}
	if e.Code != v.QoS {
		j.forbid("[MQTT-3.8.4-8]", "SUBACK 0x%02X for %s with QoS %d", e.Code, v.Name, v.QoS)
	}
	v.sure = i
	v.of.mustFrom = min(v.of.mustFrom, i)
}

func (j *judge) unsubscribe(c *conn, i int, e Event) {
	for _, l := range c.session.lives {
		if l.filter == e.Options.Name && l.mustUntil == never {
			l.mustUntil = i
			c.leaves[e.ID] = l
		}
	}
}

// got judges a delivery as far as identifiers and DUP go, and keeps it.
func (j *judge) got(d *device, c *conn, i int, e Event) {
	s := c.session
	g := &delivery{Event: e, at: i, fresh: true, ack: never, c: c}
	if e.Message >= 0 {
		g.m = j.messages[e.Message]
	}
	if e.Dup && (e.QoS == 0 || c == s.first) {
		j.forbid("[MQTT-3.3.1-2]", "DUP on the first delivery of message %d to %c%d", e.Message, 'a'+rune(d.number), c.number)
	}
	s.got = append(s.got, g)
	if e.QoS == 0 {
		return
	}
	if e.ID == 0 {
		j.forbid("[MQTT-2.2.1-4]", "message %d without a packet identifier", e.Message)
	}
	if e.QoS == 1 && j.rough() {
		s.sentAgain(g)
	}
	if old := s.open[e.ID]; old != nil && !old.givenBack(c) {
		switch {
		case old.c == c:
			j.forbid("[MQTT-2.2.1-4]", "identifier %d of message %d stands for %d as well", e.ID, old.Message, e.Message)
		case (j.rough() || j.leftBehind(c)) && old.QoS == 1: // which identifier it had may be lost with the instance (docs/commands.md)
		case old.Message != e.Message || old.QoS != e.QoS:
			j.forbid("[MQTT-4.4.0-1]", "identifier %d of message %d stands for %d on the next connection", e.ID, old.Message, e.Message)
		case !e.Dup && !j.rough():
			j.forbid("[MQTT-3.3.1-1]", "message %d is sent again to %c%d without DUP", e.Message, 'a'+rune(d.number), c.number)
		}
	}
	s.open[e.ID] = g
	if e.QoS < 2 {
		return
	}
	if old := s.received[e.ID]; old != nil {
		g.fresh = false
		if old.Message != e.Message {
			j.forbid("[MQTT-4.3.3-2]", "identifier %d of message %d, which is not released, stands for %d: it will be taken for a repetition", e.ID, old.Message, e.Message)
		}
	}
	s.received[e.ID] = g
}

// sentAgain takes a delivery for the repetition of one on an earlier connection, whatever its identifier was.
func (s *session) sentAgain(g *delivery) {
	for id, old := range s.open {
		if old.QoS == 1 && old.m == g.m && old.c != g.c {
			delete(s.open, id)
			return
		}
	}
}

// givenBack says whether the server may have offered a message to another member of the share, because the connection that it
// was sent on has ended (section 4.8.2). One with QoS 2 stays with its session [MQTT-4.8.2-5].
func (g *delivery) givenBack(now *conn) bool {
	return g.c != now && g.QoS == 1 && g.m != nil && g.m.Job
}

// matches says whether a topic filter takes a topic (section 4.7), that of a shared subscription too. No topic here
// begins with $.
func matches(filter, topic string) bool {
	if isShare(filter) {
		filter = strings.SplitN(filter, "/", 3)[2]
	}
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i, level := range f {
		switch {
		case level == "#":
			return true
		case i >= len(t) || level != "+" && level != t[i]:
			return false
		}
	}
	return len(f) == len(t)
}

func isShare(filter string) bool { return strings.HasPrefix(filter, "$share/") }
