package mqtt

// sentAliases are the topic aliases that a device has for what it is sent (section 3.3.2.3.4). The topics that come most keep theirs:
// one that has none takes the place of another only if that has come no more often than the hand has passed it. Guarded by Conn.mu.
type sentAliases struct {
	most  int // aliases: the device's Topic Alias Maximum, or less
	bytes int // of all topics
	hand  int // the next to lose its alias
	topic []aliased
}

// An aliased topic has the alias of its place, from 1 on.
type aliased struct {
	name string
	used uint8 // since the hand has passed
}

const (
	// sentAliasesMost bounds how many aliases a connection has, sentAliasBytes what their topics take: they are in no budget.
	sentAliasesMost = 16
	sentAliasBytes  = 1 << 10
	// aliasedLeast is the length from which a topic is worth the three bytes of the property.
	aliasedLeast = 4
)

// newSentAliases gives what a device with that Topic Alias Maximum needs; nil: nothing [MQTT-3.1.2-27].
func newSentAliases(maximum uint16) *sentAliases {
	if maximum == 0 {
		return nil
	}
	return &sentAliases{most: min(int(maximum), sentAliasesMost)}
}

// of gives the alias of a topic, 0 if it has none, and whether the device has it already. It is not kept before set.
func (a *sentAliases) of(topic []byte) (alias uint16, known bool) {
	if a == nil || len(topic) < aliasedLeast {
		return 0, false
	}
	for i := range a.topic {
		if t := &a.topic[i]; t.name == string(topic) {
			t.used = min(t.used, 254) + 1
			return uint16(i + 1), true
		}
	}
	if len(a.topic) < a.most && a.bytes+len(topic) <= sentAliasBytes {
		return uint16(len(a.topic) + 1), false
	}
	if len(a.topic) == 0 {
		return 0, false
	}
	a.hand %= len(a.topic)
	t := &a.topic[a.hand]
	if t.used == 0 && a.bytes-len(t.name)+len(topic) <= sentAliasBytes {
		return uint16(a.hand + 1), false
	}
	t.used = max(t.used, 1) - 1
	a.hand++
	return 0, false
}

// set keeps an alias that of has given, which is about to be sent.
func (a *sentAliases) set(alias uint16, topic []byte) {
	if int(alias) > len(a.topic) {
		a.topic = append(a.topic, aliased{})
	}
	t := &a.topic[alias-1]
	a.bytes += len(topic) - len(t.name)
	*t = aliased{string(topic), 1}
	a.hand = int(alias)
}

// alias has p carry the alias of its topic, and no topic if the device has that [MQTT-3.3.2-12]. It never makes p too large.
// With QoS 2 there is none: MQTT.js, which gives such a message on at PUBREL, has lost its topic by then. mu is held.
func (c *Conn) alias(p *outgoing) {
	if p.qos == 2 {
		return
	}
	alias, known := c.sent.of(p.cmd.Topic)
	if alias == 0 {
		return
	}
	p.alias, p.aliased = alias, known
	length := p.size()
	if !known {
		if length > commandBytes || uint32(length) > c.maxPacket {
			p.alias = 0
			return
		}
		c.sent.set(alias, p.cmd.Topic)
	}
	p.length = length
}
