package mqtt

import (
	"bytes"

	"github.com/mochi-mqtt/server/v2/packets"
)

type encoder = func(*packets.Packet, *bytes.Buffer) error

// respond encodes a packet that is not on the hot path and sends it.
func (c *Conn) respond(pk *packets.Packet, encode encoder) { c.respondAnd(pk, encode, func() {}) }

// respondAnd is respond, with something done when the packet has its place and is not sent yet: what it sends comes behind.
func (c *Conn) respondAnd(pk *packets.Packet, encode encoder, then func()) {
	b, err := c.encode(pk, encode)
	if err != nil {
		c.shutdown(err)
		return
	}
	c.mu.Lock()
	c.out = append(c.out, b...)
	c.mu.Unlock()
	then()
	c.mu.Lock()
	c.send()
	sent, hungry := c.marked(), c.hungry()
	c.mu.Unlock()
	c.followUp(sent, hungry)
}

// mostAnswers bounds the answers of a connection that wait for its state to be stored.
const mostAnswers = 256

// respondStored is respond for what the device may rely on: a session that outlives its connection is stored first.
func (c *Conn) respondStored(pk *packets.Packet, encode encoder) {
	o := c.session.outbox.Load()
	if o == nil || !o.durable {
		c.respond(pk, encode)
		return
	}
	b, err := c.encode(pk, encode)
	if err != nil {
		c.shutdown(err)
		return
	}
	o.mu.Lock()
	if len(o.acks) >= mostAnswers {
		o.mu.Unlock()
		c.shutdown(&ProtocolFault{QuotaExceeded, "too many SUBSCRIBE and UNSUBSCRIBE packets without an answer"})
		return
	}
	o.acks = append(o.acks, savedAnswer{o.change(), b})
	o.unlock(nil)
}

// encode gives the packet's bytes, without its Reason String if it would exceed the client's Maximum Packet
// Size with it [MQTT-3.1.2-24], and an error if it does without.
func (c *Conn) encode(pk *packets.Packet, encode encoder) ([]byte, error) {
	for {
		var buf bytes.Buffer
		if err := encode(pk, &buf); err != nil {
			return nil, err
		}
		if c.maxPacket == 0 || uint32(buf.Len()) <= c.maxPacket {
			return buf.Bytes(), nil
		}
		if pk.Properties.ReasonString == "" {
			return nil, &ProtocolFault{PacketTooLarge, "the answer is larger than the client's Maximum Packet Size"}
		}
		pk.Properties.ReasonString = ""
	}
}

func (c *Conn) newPacket(kind byte) *packets.Packet {
	pk := &packets.Packet{ProtocolVersion: c.version}
	pk.FixedHeader.Type = kind
	pk.Mods.DisallowProblemInfo = !c.problems
	return pk
}

func connackPacket(version byte, present bool, code byte, props packets.Properties) *packets.Packet {
	pk := &packets.Packet{ProtocolVersion: version, SessionPresent: present, ReasonCode: code, Properties: props}
	pk.FixedHeader.Type = packets.Connack
	return pk
}

// sendDisconnect tells an MQTT 5 device why the connection ends. MQTT 3.1.1 has no such packet.
func (c *Conn) sendDisconnect(fault *ProtocolFault) {
	if c.version < 5 {
		return
	}
	pk := c.newPacket(packets.Disconnect)
	pk.ReasonCode = byte(fault.Code)
	pk.Properties.ReasonString = fault.Detail
	pk.Mods.DisallowProblemInfo = false // DISCONNECT may always say why (section 3.1.2.11.7)
	c.respond(pk, (*packets.Packet).DisconnectEncode)
}
