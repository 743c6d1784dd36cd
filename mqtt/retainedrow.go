package mqtt

import (
	"encoding/binary"
	"time"
	"unsafe"
)

// A row is a retained message in one piece of memory: for a million of them every pointer and every allocation counts,
// and one without pointers is not looked at by the garbage collector. "" is no message.
//
//	expiry, unix milliseconds, 0: never   8 bytes
//	QoS, and the payload format above it  1
//	length of the topic                   2
//	topic
//	Content Type, Response Topic, Correlation Data, client ID: each its length + 1, or 0 if absent, and its bytes
//	stream and offset of its place
//	number of User Properties, and for each key and value with their lengths
//	payload
type row string

// rowOverhead is what a row costs beside its bytes: its place in rows, and what the allocator rounds up.
const rowOverhead = 40

// rowFixed is where the topic begins.
const rowFixed = 11

// rowPlace is the room for the place of a message, with partitions and offsets as they are.
const rowPlace = 8

// RetainedBytes is the memory of a message with all that it points to, for Retained.Reserve.
func (m *RetainedMessage) RetainedBytes() int {
	n := rowFixed + rowOverhead + len(m.Topic) + len(m.Payload) + 8 + rowPlace
	n += len(m.ContentType) + len(m.ResponseTopic) + len(m.CorrelationData) + len(m.ClientID)
	for _, u := range m.User {
		n += len(u.Key) + len(u.Value) + 6
	}
	return n
}

func (m *RetainedMessage) row() row {
	b := make([]byte, 0, m.RetainedBytes())
	expires := int64(0)
	if !m.Expires.IsZero() {
		expires = m.Expires.UnixMilli()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(expires))
	b = append(b, m.QoS|byte(m.PayloadFormat)<<4)
	b = appendBinary(b, m.Topic)
	b = appendPart(b, m.ContentType, m.ContentType != nil)
	b = appendPart(b, m.ResponseTopic, m.ResponseTopic != nil)
	b = appendPart(b, m.CorrelationData, m.CorrelationData != nil)
	b = appendPart(b, []byte(m.ClientID), m.ClientID != "")
	b = binary.AppendVarint(b, int64(m.Place.Stream))
	b = binary.AppendVarint(b, m.Place.Offset)
	b = binary.AppendUvarint(b, uint64(len(m.User)))
	for _, u := range m.User {
		b = appendPart(b, u.Key, true)
		b = appendPart(b, u.Value, true)
	}
	return row(append(b, m.Payload...)) // a copy without room to spare
}

func appendPart(b, v []byte, there bool) []byte {
	if !there {
		return append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(v)+1))
	return append(b, v...)
}

func (r row) memory() int64 { return int64(len(r) + rowOverhead) }

func (r row) topic() string {
	return string(r[rowFixed : rowFixed+int(r[rowFixed-2])<<8+int(r[rowFixed-1])])
}

// expires is when the message is over in unix milliseconds, or 0.
func (r row) expires() int64 {
	return int64(binary.BigEndian.Uint64(r.bytes()))
}

func (r row) expired(now int64) bool { at := r.expires(); return at != 0 && now >= at }

// bytes shows r as bytes that nobody may write to.
func (r row) bytes() []byte { return unsafe.Slice(unsafe.StringData(string(r)), len(r)) }

// message shows r in m, without a copy: nobody may write to what m points to.
func (r row) message(m *RetainedMessage) {
	b := r.bytes()
	*m = RetainedMessage{QoS: b[8] & 3, PayloadFormat: PayloadFormat(b[8] >> 4), User: m.User[:0]}
	if at := r.expires(); at != 0 {
		m.Expires = time.UnixMilli(at)
	}
	topic := len(r.topic())
	m.Topic, b = b[rowFixed:rowFixed+topic:rowFixed+topic], b[rowFixed+topic:]
	m.ContentType, b = cutPart(b)
	m.ResponseTopic, b = cutPart(b)
	m.CorrelationData, b = cutPart(b)
	var client []byte
	client, b = cutPart(b)
	m.ClientID = unsafe.String(unsafe.SliceData(client), len(client))
	stream, n := binary.Varint(b)
	b = b[n:]
	offset, n := binary.Varint(b)
	b = b[n:]
	m.Place = Place{int32(stream), offset}
	users, n := binary.Uvarint(b)
	b = b[n:]
	for range users {
		var u Property
		u.Key, b = cutPart(b)
		u.Value, b = cutPart(b)
		m.User = append(m.User, u)
	}
	m.Payload = b
}

// cutPart gives the first part of b, nil if it is absent, and what follows it.
func cutPart(b []byte) (part, rest []byte) {
	v, n := binary.Uvarint(b)
	b = b[n:]
	if v == 0 {
		return nil, b
	}
	return b[: v-1 : v-1], b[v-1:]
}
