package oracle

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// before says that one message was published before another, beyond doubt.
func before(a, b *facts) bool {
	if a.Will || b.Will {
		return a.From == b.From && a.to < b.from
	}
	if a.to < b.from {
		return true
	}
	return a.From == b.From && a.From != Backend && a.conn == b.conn && len(a.sends) == 1 && len(b.sends) == 1 && a.lastSent < b.from ||
		a.From == Backend && b.From == Backend && a.from < b.from
}

// records judges how often Kafka has what devices sent.
func (j *judge) records() {
	for _, m := range j.messages {
		if m.From == Backend || m.Will || m.Empty {
			continue
		}
		n, most := len(m.records), 1
		if m.QoS == 1 { // PUBACK may be on its way when it is sent again, and what comes then is a new message [MQTT-4.3.2-5]
			most = 0
			for _, n := range m.sends {
				most += n
			}
		} else if m.QoS == 2 && m.Kafka != Once && j.rough() {
			most = len(m.sends)
		}
		if n > most {
			clause := "[MQTT-4.3.2-5]"
			if m.QoS == 2 {
				clause = "[MQTT-4.3.3-10]"
			}
			j.forbid(clause, "message %d with QoS %d, sent on %d connections, is %d records of %s", m.number, m.QoS, len(m.sends), n, m.Kafka)
		}
		if n == 0 && m.QoS > 0 && m.to != never {
			j.miss("DESIGN 1, PUBACK only after Kafka", "message %d with QoS %d is acknowledged and not in %s", m.number, m.QoS, m.Kafka)
		}
		if n == 0 && m.QoS == 0 && !j.rough() && j.lasted(m) {
			j.miss("DESIGN 1, PUBLISH QoS 0", "message %d is not in %s, and its connection went on", m.number, m.Kafka)
		}
		for _, r := range m.records {
			if r.QoS != m.QoS || r.Topic != m.Topic {
				j.forbid("DESIGN 3", "message %d has the headers %s and QoS %d", m.number, r.Topic, r.QoS)
			}
		}
	}
}

// lasted says that the server answered something that came behind a message, or took a DISCONNECT.
func (j *judge) lasted(m *facts) bool {
	c := j.devices[m.From].conn(m.conn)
	for _, o := range j.messages {
		if o.From == m.From && !o.Will && o.conn == m.conn && o.from > m.lastSent && o.to < c.end {
			return true
		}
	}
	return false
}

// order judges the order in which Kafka has the messages of a device.
func (j *judge) order() {
	for i, a := range j.messages {
		for k, b := range j.messages {
			if i == k || a.From != b.From || a.From == Backend || a.Kafka != b.Kafka || len(a.records) != 1 || len(b.records) != 1 || a.Will && b.Will {
				continue
			}
			ra, rb := a.records[0], b.records[0]
			if ra.Partition != rb.Partition {
				j.forbid("DESIGN 1, two records with one key", "messages %d and %d are in partitions %d and %d", a.number, b.number, ra.Partition, rb.Partition)
			}
			if before(a, b) && ra.Offset > rb.Offset {
				j.forbid("[MQTT-4.6.0-1], DESIGN 1, order", "message %d is behind %d in %s", a.number, b.number, a.Kafka)
			}
		}
	}
}

// wills judges for each connection with a will whether it is published.
func (j *judge) wills() {
	for _, d := range j.devices {
		for i, c := range d.conns {
			if c.will < 0 {
				continue
			}
			m := j.messages[c.will]
			can, must, delayed := j.due(c, d.conns[i+1:])
			switch n := len(m.records); {
			case n > 1:
				j.forbid("[MQTT-3.1.2-8]", "the will of %c%d is published %d times", 'a'+rune(d.number), c.number, n)
			case n == 1 && !can:
				j.forbid("[MQTT-3.1.2-10]", "the will of %c%d is published, although it ended with %s and %s", 'a'+rune(d.number), c.number, c.how, j.next(d.conns[i+1:]))
			case n == 0 && must:
				j.miss("[MQTT-3.1.2-8]", "the will of %c%d is not published, although it ended with %s 0x%02X and %s", 'a'+rune(d.number), c.number, c.how, c.code, j.next(d.conns[i+1:]))
			case n == 1 && must && !delayed:
				j.inTime(d, c, m, d.conns[i+1:])
			}
		}
	}
}

func (j *judge) next(later []*conn) string {
	if len(later) == 0 {
		return "nothing followed"
	}
	return "the next CONNECT was " + later[0].hello.String()
}

// willWait is how long a device that comes back waits at least for a will that Kafka does not take (half of what
// fleet/DESIGN.md calls takeover_wait). The specification has no order of a will and what comes on other connections.
const willWait = time.Second

// inTime holds a will that was due at once to being before what the device said on later connections, if the first of them
// did not have to wait for long.
func (j *judge) inTime(d *device, c *conn, will *facts, later []*conn) {
	opened := slices.IndexFunc(later, func(n *conn) bool { return n.connack != never })
	soon := opened >= 0 && later[opened].opened-c.closed[0] < willWait
	for _, m := range j.messages {
		if m.From != d.number || m.Will || m.Kafka != will.Kafka || len(m.records) != 1 {
			continue
		}
		r, w := m.records[0], will.records[0]
		if r.Partition != w.Partition {
			continue // order says so
		}
		if m.conn > c.number && r.Offset < w.Offset && soon && !j.rough() {
			j.forbid("[MQTT-3.1.2-8], order", "the will of %c%d is behind message %d of connection %d", 'a'+rune(d.number), c.number, m.number, m.conn)
		}
		if m.conn <= c.number && m.to < c.end && r.Offset > w.Offset {
			j.forbid("[MQTT-3.1.2-8], order", "message %d, acknowledged on %c%d, is behind its will", m.number, 'a'+rune(d.number), c.number)
		}
	}
}

// due says whether the will of a connection can, and must, be published by now, and whether it waits for its delay.
func (j *judge) due(c *conn, later []*conn) (can, must, delayed bool) {
	switch {
	case c.connack == never:
		return true, false, false
	case c.how == "":
		return false, false, false
	case c.how == Disconnect && c.code == 0:
		return j.rough(), false, false
	}
	delay := min(time.Duration(c.hello.Delay)*time.Second, c.expiry)
	for _, n := range later {
		switch {
		case n.connack == never:
			return true, false, true // it may have resumed the session or ended it
		case !n.present || delay == 0:
			return true, true, delay > 0
		case n.opened-c.closed[0] < delay:
			return j.rough() && (c.how == Disconnect || beganAnew(later, c.closed[0]+untilVerdict)), false, true
		default:
			return true, n.hello.At-c.closed[1] > delay+slack, true
		}
	}
	return true, false, true
}

// beganAnew says that one of these connections began a session before a time. Until the verdict on an instance that died a
// return to a session that it had can't be seen any more then, and a will that waited there is published (fleet/DESIGN.md,
// what is not promised).
func beganAnew(later []*conn, before time.Duration) bool {
	return slices.ContainsFunc(later, func(c *conn) bool { return c.connack != never && !c.present && c.opened < before })
}

// taking gives the subscriptions of a session that can, and that must, take a message, with the QoS of the delivery at
// most and at least. One that an UNSUBSCRIBE ended takes what was published before it, or not: a server that has accepted
// a message has to put it into the sessions that subscribed [MQTT-4.5.0-1], but of what is there it has to complete only
// "the delivery of any QoS 1 or QoS 2 messages [...] which it has started to send to the Client" [MQTT-3.10.4-3], to
// which ends holds it, and it "MAY continue to deliver any existing messages buffered for delivery to the Client"
// (section 3.10.4, in both versions).
func (s *session) taking(m *facts, until int) (can, must bool, most, least byte) {
	for _, l := range s.lives {
		// What matters is when Sluice reads the record, which may be after who wrote it heard that it is stored.
		if !matches(l.filter, m.Topic) || m.from > l.mayUntil {
			continue
		}
		sure := m.from > l.mustFrom && l.mustUntil == never && m.to < s.over && !isShare(l.filter)
		low, high, any := byte(2), byte(0), false
		for i, v := range l.versions {
			if v.from > until {
				continue
			}
			if i+1 < len(l.versions) && l.versions[i+1].sure < m.from {
				continue // another one was in force
			}
			before := m.from
			if m.QoS == 1 && len(m.records) > 1 { // it was answered when it came again, and that was a new message
				before = m.lastSent
			}
			if i == 0 && v.from > before && m.From == s.dev.number && len(m.sends) == 1 && m.conn == v.conn.number {
				sure = false
				continue // it was published before on this very connection
			}
			if v.NoLocal && m.From == s.dev.number {
				sure = false
				continue
			}
			any = true
			low, high = min(low, v.QoS), max(high, v.QoS)
		}
		if !any {
			continue
		}
		can, most = true, max(most, min(high, m.QoS))
		if sure {
			must, least = true, max(least, min(low, m.QoS))
		}
	}
	return can, must, most, least
}

// deliveries judges what a session was given of what is published live.
func (j *judge) deliveries(s *session) {
	by := map[*facts][]*delivery{}
	for _, g := range s.got {
		if g.m != nil {
			by[g.m] = append(by[g.m], g)
		}
	}
	for _, m := range j.messages {
		if m.Will || m.Kafka == Plain || m.Kafka == Once || m.Keep {
			continue
		}
		j.delivered(s, m, by[m])
	}
	j.deliveredInOrder(s, by)
}

func (j *judge) delivered(s *session, m *facts, got []*delivery) {
	if m.Kafka == Commands && m.To != s.dev.number {
		if len(got) > 0 {
			j.forbid("docs/commands.md, client", "device %c has message %d, a command for the other one", 'a'+rune(s.dev.number), m.number)
		}
		return
	}
	who := 'a' + rune(s.dev.number)
	last := never
	for _, g := range got {
		can, _, most, least := s.taking(m, g.at)
		switch {
		case !can:
			j.forbid("[MQTT-3.3.4-2]", "device %c is given message %d, for which it had no subscription", who, m.number)
			return
		case g.QoS > most || g.QoS < least:
			j.forbid("[MQTT-3.8.4-8]", "device %c is given message %d with QoS %d, the subscriptions say %d to %d", who, m.number, g.QoS, least, most)
		}
		if g.Retain && !s.rap(m) {
			j.forbid("[MQTT-3.3.1-12]", "message %d has RETAIN at device %c", m.number, who)
		}
	}
	copies := max(1, len(m.records))
	j.copies(s, m, got, copies)
	if _, must, _, least := s.taking(m, last); must && least > 0 && len(got) == 0 && s.end == never && !s.unsure && j.over {
		j.miss("[MQTT-3.3.4-2]", "device %c is not given message %d, for which it had a subscription", who, m.number)
	}
}

// rap says whether a subscription with Retain As Published can have taken a message.
func (s *session) rap(m *facts) bool {
	for _, l := range s.lives {
		for _, v := range l.versions {
			if v.Rap && matches(v.Name, m.Topic) && m.Keep {
				return true
			}
		}
	}
	return false
}

// copies judges how often a session has a message.
func (j *judge) copies(s *session, m *facts, got []*delivery, most int) {
	who := 'a' + rune(s.dev.number)
	once, zero, done := 0, 0, 0
	last := never // the event of the last one that was new, with QoS 2
	on := map[int]int{}
	for _, g := range got {
		switch g.QoS {
		case 0:
			zero++
		case 1:
			if on[g.Conn]++; on[g.Conn] > most {
				j.forbid("[MQTT-4.4.0-1]", "message %d with QoS 1 comes twice on connection %c%d", m.number, who, g.Conn)
			}
			if done >= most && !j.rough() {
				j.forbid("[MQTT-4.3.2-5]", "message %d comes to device %c again, although the server has its PUBACK", m.number, who)
			}
			if g.sure {
				done++
			}
		case 2:
			if g.fresh && !(m.Job && j.crashed(last, g.at)) {
				once++
			}
			if g.fresh {
				last = g.at
			}
		}
	}
	if once > most {
		j.forbid("[MQTT-4.3.3-1]", "message %d with QoS 2 comes to device %c %d times", m.number, who, once)
	}
	if zero > most {
		j.forbid("[MQTT-4.3.1-1]", "message %d with QoS 0 comes to device %c %d times", m.number, who, zero)
	}
}

// deliveredInOrder judges the order of first deliveries with one QoS from one source.
func (j *judge) deliveredInOrder(s *session, by map[*facts][]*delivery) {
	var first []*delivery
	for m, got := range by {
		if can, _, _, _ := s.taking(m, got[0].at); can && !m.Keep && !m.Job && len(m.records) <= 1 { // members of a share have no order
			first = append(first, got[0])
		}
	}
	slices.SortFunc(first, func(a, b *delivery) int { return a.at - b.at })
	for i, a := range first {
		for _, b := range first[i+1:] {
			if a.QoS == b.QoS && a.m.From == b.m.From && a.m.Kafka == b.m.Kafka && before(b.m, a.m) {
				j.forbid("[MQTT-4.6.0-5]", "device %c is given message %d after %d", 'a'+rune(s.dev.number), b.m.number, a.m.number)
			}
		}
	}
}

// ends judges what has to be settled at the end.
func (j *judge) ends(d *device) {
	if !j.over || len(d.conns) == 0 {
		return
	}
	for id, m := range d.pending {
		j.miss("[MQTT-4.3.2-4]", "message %d of device %c, identifier %d, is not acknowledged", m.number, 'a'+rune(d.number), id)
	}
	for _, c := range d.conns[:len(d.conns)-1] {
		if c.how == Connect && c.connack != never && !c.toldToGo {
			j.miss("[MQTT-3.1.4-3]", "%c%d was taken over and is open", 'a'+rune(d.number), c.number)
		}
	}
	s := d.session
	if s == nil || s.unsure {
		return
	}
	last := d.conns[len(d.conns)-1]
	for id, g := range s.open {
		if g.givenBack(last) {
			continue // jobs sees to it
		}
		j.miss("[MQTT-4.4.0-1]", "message %d, identifier %d, is not sent again to device %c", g.Message, id, 'a'+rune(d.number))
	}
	for id, g := range s.received {
		j.miss("[MQTT-4.3.3-8]", "message %d, identifier %d, is not released at device %c", g.Message, id, 'a'+rune(d.number))
	}
}

// retained judges what a session was given of retained messages. Every topic with such has one publisher, so that it is
// known which message is the last.
func (j *judge) retained(s *session) {
	owing := map[*facts][]*version{}
	for _, l := range s.lives {
		last := map[*facts]*version{} // which begins the handout of the filter anew
		for i, v := range l.versions {
			for from := range 2 {
				if m := j.owed(s, v, l.versions[i:], from); m != nil {
					last[m] = v
				}
			}
		}
		for m, v := range last {
			owing[m] = append(owing[m], v)
		}
	}
	for m, all := range owing {
		j.handedOut(s, m, all)
	}
	twice := map[*facts]int{}
	for _, g := range s.got {
		if g.m != nil && g.m.Keep {
			j.fromNowhere(s, g)
			if g.QoS == 2 && g.fresh && g.Retain {
				twice[g.m]++
			}
		}
	}
	for m, n := range twice {
		if most := s.asked(m); n > most {
			j.forbid("[MQTT-4.3.3-1]", "the retained message %d with QoS 2 comes to device %c %d times, it may %d times", m.number, 'a'+rune(s.dev.number), n, most)
		}
	}
}

// asked is how often a retained message may come: for each SUBSCRIBE that matches it, and live.
func (s *session) asked(m *facts) int {
	n := max(1, len(m.records))
	for _, l := range s.lives {
		for _, v := range l.versions {
			if matches(v.Name, m.Topic) && v.Handling != 2 {
				n++
			}
		}
	}
	return n
}

// kept gives the messages that were retained, in the order of their publisher.
func (j *judge) kept(from int) (all []*facts) {
	for _, m := range j.messages {
		if m.Keep && m.From == from && m.from != never {
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b *facts) int { return a.from - b.from })
	return all
}

// owed gives the retained message of a publisher that a SUBSCRIBE has to give, if there was one: on that connection or on a later
// one, as the session goes on. later is how the subscription went on from it.
func (j *judge) owed(s *session, v *version, later []*version, from int) *facts {
	var last *facts
	for _, m := range j.kept(from) {
		switch {
		case !matches(v.Name, m.Topic):
			return nil
		case last != nil && last.lastSent > m.from:
			return nil // it was sent again behind this one, and with QoS 1 that is a new message
		case m.to < v.from:
			last = m
		default:
			return nil // it came with the SUBSCRIBE or later, or nobody knows when: another rule
		}
	}
	open := s == s.dev.session && (!s.unsure || v.conn == s.last)
	if last == nil || last.Empty || v.sure == never || v.Handling == 2 || v.Handling == 1 && !v.fresh || !open || v.of.mustUntil != never || !j.over || last.QoS == 0 {
		return nil
	}
	if slices.ContainsFunc(later, func(v *version) bool { return v.QoS == 0 || v.NoLocal && from == s.dev.number }) {
		return nil
	}
	return last
}

// handedOut holds SUBSCRIBEs for different filters to giving a retained message once each.
func (j *judge) handedOut(s *session, m *facts, all []*version) {
	slices.SortFunc(all, func(a, b *version) int { return b.from - a.from })
	for i, v := range all {
		n, sent := 0, map[uint16]bool{}
		for _, g := range s.got {
			if g.m == m && g.at > v.from && g.Retain && !(g.Dup && sent[g.ID]) {
				n++
				sent[g.ID] = true
			}
		}
		if n <= i {
			j.miss("[MQTT-3.3.1-9]", "device %c subscribed to %s and is not given the retained message %d", 'a'+rune(s.dev.number), v.Name, m.number)
			return
		}
	}
}

// fromNowhere judges a delivery of a message that is retained: it is live, or there was a SUBSCRIBE for it.
func (j *judge) fromNowhere(s *session, g *delivery) {
	if can, _, _, _ := s.taking(g.m, g.at); can && !g.Retain {
		return
	} else if can && s.rap(g.m) {
		return
	}
	who := 'a' + rune(s.dev.number)
	if !g.Retain {
		j.forbid("[MQTT-3.3.1-8] of 3.1.1", "device %c is given message %d without RETAIN, for which it had no subscription when it was published", who, g.m.number)
		return
	}
	why := "without a SUBSCRIBE that asks for it"
	for _, l := range s.lives {
		for _, v := range l.versions {
			if v.from > g.at || !matches(v.Name, g.m.Topic) || v.Handling == 2 || g.m.from > g.at || v.Handling == 1 && !v.fresh && l.versions[0].sure < v.from && len(l.versions) > 1 {
				continue
			}
			stale := false
			for _, m := range j.kept(g.m.From) {
				if m.to < v.from && before(g.m, m) {
					stale = true
					why = "after message " + strconv.Itoa(m.number) + " took its place"
				}
			}
			if !stale {
				return
			}
		}
	}
	j.forbid("[MQTT-3.3.1-5]", "device %c is given the retained message %d %s", who, g.m.number, why)
}

// commands judges receipts.
func (j *judge) commands() {
	for _, m := range j.messages {
		if m.Kafka != Commands || m.to == never {
			continue
		}
		d := j.devices[m.To]
		if n := len(m.receipts); n > 1 && !j.rough() && !d.toldByTwo(m) && !d.sentAndPerhaps(m) {
			j.forbid("docs/commands.md, receipts", "command %d has %d receipts: %s, %s", m.number, n, m.receipts[0].Outcome, m.receipts[1].Outcome)
		}
		acked, got := false, false
		var zero bool
		for _, s := range d.all {
			for _, g := range s.got {
				if g.m == m {
					got = true
					acked = acked || g.ack != never
					zero = zero || g.QoS == 0
				}
			}
		}
		for _, r := range m.receipts {
			if strings.HasPrefix(r.Outcome, "delivered") && !acked {
				j.forbid("docs/commands.md, receipts", "command %d is said to be delivered, and device %c has not acknowledged it", m.number, 'a'+rune(m.To))
			}
			if r.Outcome == "sent" && got && !zero {
				j.forbid("docs/commands.md, receipts", "command %d is said to be sent, and its QoS was above 0", m.number)
			}
			if r.isUnwanted() && got && !j.rough() && (len(m.receipts) < 2 || !d.toldByTwo(m)) {
				j.forbid("docs/commands.md, receipts", "command %d is said to be %s, and device %c has it", m.number, r.Outcome, 'a'+rune(m.To))
			}
		}
		if len(m.receipts) == 0 && !j.rough() && j.over {
			j.miss("docs/commands.md, receipts", "command %d has no receipt", m.number)
		}
	}
}

// toldByTwo says that two instances may tell of a command, one of them that nobody wanted it: the one with the device's connection
// reads the command later than the other, though it was there before the connection, and tells so too; or both have a connection of
// the device, since the one that it has left does not know that yet (docs/commands.md).
func (d *device) toldByTwo(m *facts) bool {
	one, two := m.receipts[0], m.receipts[1]
	if len(m.receipts) != 2 || one.Instance == two.Instance || !one.isUnwanted() && !two.isUnwanted() {
		return false
	}
	open, both := 0, one.isUnwanted() && two.isUnwanted()
	for _, c := range d.conns {
		switch {
		case c.connack == never:
		case both && c.connack > m.from && c.hello.At < two.At:
			return true
		case c.connack < m.from && (c.end > m.from || c.how == Connect && c.gone > m.from):
			open++
		}
	}
	return open > 1
}

// sentAndPerhaps says that an instance may tell that a command was sent, and another one that this is not known: the device came to
// it while the other stood still (docs/commands.md).
func (d *device) sentAndPerhaps(m *facts) bool {
	said := []string{m.receipts[0].Outcome, m.receipts[1].Outcome}
	slices.Sort(said)
	return slices.Equal(said, []string{"dropped perhaps_sent", "sent"}) && len(m.receipts) == 2 && m.receipts[0].Instance != m.receipts[1].Instance &&
		slices.ContainsFunc(d.conns, func(c *conn) bool { return c.connack > m.from && c.opened-c.hello.At >= handOver })
}

// isUnwanted says that it is the receipt of a command that no device got.
func (e Event) isUnwanted() bool {
	return strings.HasSuffix(e.Outcome, "not_connected") || strings.HasSuffix(e.Outcome, "not_subscribed")
}

// jobs judges what the members of the share were given, all together.
func (j *judge) jobs() {
	for _, m := range j.messages {
		if !m.Job {
			continue
		}
		all, done, once, must, excused := 0, 0, 0, false, false
		for _, d := range j.devices {
			for _, s := range d.all {
				excused = excused || s.mayLose(m)
				must = must || s.end == never && !s.unsure && j.shares(s, m)
				for _, g := range s.got {
					if g.m != m {
						continue
					}
					all++
					if g.QoS == 2 && g.fresh {
						once++
					}
					if g.sure && g.QoS == 1 {
						done++
					}
				}
			}
		}
		if !j.rough() && (once > 1 || done > 1 || once > 0 && done > 0) {
			j.forbid("[MQTT-4.8.2-4]", "message %d for the share comes %d times with QoS 2, and %d times with QoS 1 to where it is acknowledged", m.number, once, done)
		}
		if must && !excused && all == 0 && m.QoS > 0 && m.to != never && j.over {
			j.miss("[MQTT-4.8.2-4]", "message %d for the share comes to no member", m.number)
		}
	}
}

// mayLose says whether a message for the share can have gone to a session that may lose it: one with QoS 0, or one that
// ended, from which a message with QoS 2 goes to nobody else [MQTT-4.8.2-5].
func (s *session) mayLose(m *facts) bool {
	for _, l := range s.lives {
		for _, v := range l.versions {
			if isShare(l.filter) && (v.QoS == 0 || s.end != never && v.QoS == 2 && m.QoS == 2) {
				return true
			}
		}
	}
	return false
}

// shares says whether a session was a member, with a QoS above 0, long enough before a message for its group to have begun,
// if nothing stood still meanwhile.
func (j *judge) shares(s *session, m *facts) bool {
	for _, l := range s.lives {
		if isShare(l.filter) && l.mustFrom < m.from && m.to < l.mustUntil && l.versions[0].QoS > 0 && len(l.versions) == 1 &&
			!j.stalled(j.h.Events[l.mustFrom].At-slack, m.from) &&
			j.h.Events[m.from].At-j.h.Events[l.mustFrom].At > shareStarts*time.Millisecond*3/4 {
			return true
		}
	}
	return false
}

// crashed says that an instance was killed between two events. What the group of a share had not committed then, which lags by a
// second, comes again though the device has it (docs/decisions/0008, at least once, for QoS 2 too).
func (j *judge) crashed(from, to int) bool {
	return from < to && slices.ContainsFunc(j.h.Events[from:to], func(e Event) bool { return e.What == Crash })
}

// stalled says whether something began to stand still after a time and before an event.
func (j *judge) stalled(after time.Duration, before int) bool {
	return slices.ContainsFunc(j.h.Events[:before], func(e Event) bool { return e.What == Stall && e.At > after })
}
