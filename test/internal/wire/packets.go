package wire

// A Hello is a CONNECT. The zero value of a field leaves it out.
type Hello struct {
	Version    byte   // the protocol level
	Name       string // the protocol name; "": MQTT
	ID         string
	Persist    bool // Clean Session or Clean Start 0
	KeepAlive  uint16
	Username   string
	Password   string
	Will       *Will
	Flags      byte   // set besides those that follow from the rest
	Properties []byte // with their length; nil: none
	Tail       []byte // after the end
}

// A Will is the will of a Hello.
type Will struct {
	Topic, Payload string
	QoS            byte
	Retain         bool
	Properties     []byte
}

// Packet gives the bytes.
func (h Hello) Packet() []byte {
	name := h.Name
	if name == "" {
		name = "MQTT"
	}
	b := Bytes(name, h.Version, h.flags(), h.KeepAlive)
	if h.Version >= 5 {
		b = append(b, orNone(h.Properties)...)
	}
	b = append(b, Bytes(h.ID)...)
	if w := h.Will; w != nil {
		if h.Version >= 5 {
			b = append(b, orNone(w.Properties)...)
		}
		b = append(b, Bytes(w.Topic, w.Payload)...)
	}
	if h.Username != "" {
		b = append(b, Bytes(h.Username)...)
	}
	if h.Password != "" {
		b = append(b, Bytes(h.Password)...)
	}
	return Packet(CONNECT, b, h.Tail)
}

func (h Hello) flags() byte {
	f := h.Flags
	if !h.Persist {
		f |= 0x02
	}
	if h.Username != "" {
		f |= 0x80
	}
	if h.Password != "" {
		f |= 0x40
	}
	if w := h.Will; w != nil {
		f |= 0x04 | w.QoS<<3
		if w.Retain {
			f |= 0x20
		}
	}
	return f
}

func orNone(properties []byte) []byte {
	if properties == nil {
		return []byte{0}
	}
	return properties
}

// A Publish is a PUBLISH.
type Publish struct {
	Topic       string
	QoS         byte
	ID          uint16 // stands in the packet with QoS 1 and above
	Dup, Retain bool
	Properties  []byte
	Payload     string
}

// Packet gives the bytes for a protocol level.
func (p Publish) Packet(version byte) []byte {
	first := PUBLISH | p.QoS<<1
	if p.Dup {
		first |= 0x08
	}
	if p.Retain {
		first |= 0x01
	}
	b := Bytes(p.Topic)
	if p.QoS > 0 {
		b = append(b, Bytes(p.ID)...)
	}
	if version >= 5 {
		b = append(b, orNone(p.Properties)...)
	}
	return Packet(first, b, []byte(p.Payload))
}

// A Filter is a topic filter and its options in SUBSCRIBE.
type Filter struct {
	Name    string
	Options byte
}

// Subscribe is a SUBSCRIBE; MQTT 3.1.1 has no properties.
func Subscribe(version byte, id uint16, properties []byte, filters ...Filter) []byte {
	b := Bytes(id)
	if version >= 5 {
		b = append(b, orNone(properties)...)
	}
	for _, f := range filters {
		b = append(b, Bytes(f.Name, f.Options)...)
	}
	return Packet(SUBSCRIBE, b)
}

// Unsubscribe is an UNSUBSCRIBE.
func Unsubscribe(version byte, id uint16, filters ...string) []byte {
	b := Bytes(id)
	if version >= 5 {
		b = append(b, 0)
	}
	for _, f := range filters {
		b = append(b, Bytes(f)...)
	}
	return Packet(UNSUBSCRIBE, b)
}

// Ping is a PINGREQ.
func Ping() []byte { return []byte{PINGREQ, 0} }
