package mqtt

import (
	"sync"
	"time"
)

// A Handler answers for messages. Its methods are called from the goroutine that reads the connection, so
// they must not block; while they run, nothing more of that connection is read. A will may come from any
// goroutine. A panic in them costs the connection, and a message of it that was not answered for is taken as
// never handed over.
type Handler interface {
	// Admit asks for the m.Reserved bytes of memory that m costs, before Publish. On false nothing was taken. If resume
	// is not nil, the connection has stopped reading then, until resume is called, once, from any goroutine,
	// also inside Admit; it asks for the same message again, with the Turn that was put into m.Turn, or ends that.
	// If resume is nil, the connection doesn't wait for this call: the message is asked for again with a resume, or
	// is one with QoS 0 and dropped.
	Admit(m *Message, resume func()) bool
	// Release gives back what Admit took for a message that is not handed over.
	Release(m *Message)
	// Publish hands m over. Exactly one call of m.Ack, m.Refuse or m.Abandon must follow, from any
	// goroutine; m and all it points to may not be used after it. Messages of one connection come in the
	// order of their receipt. A will comes without Admit, and nobody hears of its outcome.
	Publish(m *Message)
}

// A Turn is a connection's place among those that wait for memory.
type Turn interface {
	// Leave is called if the connection is gone. Memory that was meant for it is free then.
	Leave()
}

// MessageOverhead is what a message in flight costs beside its packet, in bytes; Admit is asked for it too.
const MessageOverhead = 2048

// propertyOverhead is what each User Property costs beside its bytes, which may be none: its places in the
// message and, by experience with a Handler that copies them, in what is made of it.
const propertyOverhead = 400

// A Message is a PUBLISH, or a will, that somebody must answer for. The slices point into its own memory.
type Message struct {
	Topic   []byte // never an alias, never empty
	Payload []byte
	// The properties of MQTT 5; nil means absent.
	ContentType, ResponseTopic, CorrelationData []byte
	User                                        []Property
	PayloadFormat                               PayloadFormat
	// Expiry is the Message Expiry Interval in seconds, valid if HasExpiry.
	Expiry    uint32
	HasExpiry bool
	QoS       byte
	Retain    bool
	Will      bool // a Will Message, published in the name of ClientID
	Received  time.Time
	ClientID  string
	Username  string
	// TooDeep says that the topic has more levels than Config.TopicLevels: the Handler is to refuse it.
	TooDeep bool
	// Reserved is the number of bytes that it costs, which Admit takes; 0 for a will.
	Reserved int
	// Turn is set by Admit when the message has to wait, and given to it when it asks again.
	Turn Turn
	// Held is what the Handler keeps with the message from Admit on.
	Held any

	conn     *Conn
	session  *session
	identity *Identity
	slot     uint32
	id       uint16
	counted  bool     // in the connection's inFlight though it has QoS 0
	waiters  []waiter // guarded by session.mu
	props    properties
	buf      []byte
}

// keptBuffer is the largest buffer that goes back to the pool with its message.
const keptBuffer = 4 << 10

var messages = sync.Pool{New: func() any { return new(Message) }}

// newMessage takes a message from the pool with a copy of the packet's body, since the read buffer is used
// again at once.
func newMessage(body []byte) *Message {
	m := messages.Get().(*Message)
	m.buf = append(m.buf[:0], body...)
	return m
}

func (m *Message) free() {
	buf, user := m.buf, m.props.user
	if cap(buf) > keptBuffer {
		buf = nil
	}
	if cap(user) > 16 {
		user = nil
	}
	clear(user)
	*m = Message{buf: buf, props: properties{user: user[:0]}}
	messages.Put(m)
}

// takeProperties shows the properties that were decoded into props.
func (m *Message) takeProperties() {
	p := &m.props
	m.ContentType, m.ResponseTopic, m.CorrelationData = p.contentType, p.responseTopic, p.correlationData
	m.User = p.user
	if p.has(propPayloadFormat) {
		m.PayloadFormat = FormatBytes + PayloadFormat(p.payloadFormat)
	}
	m.Expiry, m.HasExpiry = p.messageExpiry, p.has(propMessageExpiry)
}

// ownMemory copies all that m points to into one piece of memory of its own.
func (m *Message) ownMemory() {
	parts := []*[]byte{&m.Topic, &m.Payload, &m.ContentType, &m.ResponseTopic, &m.CorrelationData}
	for i := range m.User {
		parts = append(parts, &m.User[i].Key, &m.User[i].Value)
	}
	n := 0
	for _, p := range parts {
		n += len(*p)
	}
	own := make([]byte, 0, n)
	for _, p := range parts {
		if *p == nil {
			continue // absent
		}
		begin := len(own)
		own = append(own, *p...)
		*p = own[begin:len(own):len(own)]
	}
	m.props = properties{}
}

// Keeper gives the Keeper of the session that the message came in, nil if there is none, and the packet identifier of a
// message with QoS 2, for a Handler that stores both together.
func (m *Message) Keeper() (k Keeper, id uint16) {
	if m.session == nil {
		return nil, 0
	}
	return m.session.keeper, m.id
}

// CanRefuse says that the device can be told of a refusal, as MQTT 5 devices can. A will has nobody to tell.
func (m *Message) CanRefuse() bool { return m.conn == nil || m.conn.version == 5 }

// Attached is a place for what the Handler keeps of the connection that m came on, for as long as that lasts; only
// Publish may write it. It is nil for a message that came on none.
func (m *Message) Attached() *any {
	if m.conn == nil {
		return nil
	}
	return &m.conn.attached
}

// Hold has m, if it came on a connection, count among what that has in flight until it is settled, as messages with QoS 1
// and 2 do anyway: one that the Handler holds back because of others has memory of a destination that is not to blame.
// Only Publish may call it.
func (m *Message) Hold() {
	if m.conn != nil && m.QoS == 0 && !m.counted {
		m.counted = true
		m.conn.holdBack(m.Reserved)
	}
}

// Ack says that the message is stored (Success), or was accepted and not kept (NoMatchingSubscribers).
func (m *Message) Ack(code Code) { m.settle(outcome{state: slotAcked, code: code}) }

// Refuse says for good that the message will not be stored. code is 0x80 or above and reason its Reason
// String, left out if it is longer than 100 bytes. An MQTT 3.1.1 connection, whose PUBACK can't say no, is read no
// further, and closes when what it had handed over is settled and acknowledged.
func (m *Message) Refuse(code Code, reason string) {
	m.settle(outcome{state: slotRefused, code: code, reason: reason})
}

// Abandon says that it is not known whether the message is stored: nothing is acknowledged and the
// connection closes, so that the device sends it again.
func (m *Message) Abandon(reason string) {
	m.settle(outcome{state: slotAbandoned, code: ImplementationSpecificError, reason: reason})
}

// settle passes the outcome to the session and the connection and recycles the message.
func (m *Message) settle(o outcome) {
	if m.conn != nil && m.QoS > 0 {
		if m.QoS == 2 {
			m.session.settle(m, o)
		}
		m.conn.settle(m.slot, m.Reserved, o)
	}
	if m.counted {
		m.conn.letGo(m.Reserved)
	}
	m.free()
}
