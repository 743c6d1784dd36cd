package mqtt

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// Config is what a Server needs. Start from DefaultConfig; a zero is replaced by its value there, save where
// 0 has a meaning of its own.
type Config struct {
	// MaxPacketSize is the largest packet accepted, in bytes, fixed header included.
	MaxPacketSize int
	// ReceiveMaximum is how many QoS 1 and 2 messages of one connection may be unacknowledged, 1 to 65535.
	// MQTT 5 devices are told; the reading of a connection that sends more all the same pauses at this number.
	ReceiveMaximum int
	// MaxInFlightBytes bounds the unacknowledged bytes of one connection; its reading pauses above it.
	MaxInFlightBytes int
	// TopicAliasMaximum is how many topic aliases an MQTT 5 connection may set; 0: none, which is the default: Paho for
	// Java v5 sends a message again on its next connection with an alias that was set on the one before, without end.
	TopicAliasMaximum int
	// KeepAliveMax is the longest keep-alive granted to MQTT 5 devices [MQTT-3.1.2-21]; 0: no limit.
	KeepAliveMax time.Duration
	// ConnectTimeout is how long a connection may take until its CONNECT is complete.
	ConnectTimeout time.Duration
	// WriteTimeout is how long a device may leave unread what was sent to it.
	WriteTimeout time.Duration
	// MaxUnreadBytes bounds what waits to be written to one device.
	MaxUnreadBytes int
	// MaxPartialBytes bounds the bytes of incomplete packets over all connections, and as many may wait unhandled in
	// paused ones until those are read no further.
	MaxPartialBytes int64
	// MaxExtraBytes bounds, over all connections and sessions, topic aliases above 1 KiB a connection and QoS 2 packet
	// identifiers above ReceiveMaximum a session.
	MaxExtraBytes int64
	// MaxRecordBytes bounds, over all connections, what TLS keeps for them above 12 KiB each: 8 KiB for as long as a connection lasts
	// that has once sent a message of 16 KiB, and what a handshake takes that goes beyond the ordinary.
	MaxRecordBytes int64
	// SessionExpiryMax caps the Session Expiry Interval and is that of MQTT 3.1.1 sessions with clean session 0;
	// 0: every session ends with its connection.
	SessionExpiryMax time.Duration
	// MaxStoredSessions bounds the sessions without a connection; the ones beyond it end with their connection.
	MaxStoredSessions int
	// MaxSubscriptions is how many topic filters a session may have.
	MaxSubscriptions int
	// SubscriptionMemory bounds the bytes of subscriptions over all sessions, those of stored ones too.
	SubscriptionMemory int64
	// CommandsInFlight is how many QoS 1 and 2 commands may be sent to a device and not completed; its Receive
	// Maximum may make it less. 1 to 65535.
	CommandsInFlight int
	// CommandsQueued is how many commands may wait for one device beside those.
	CommandsQueued int
	// CommandMemory bounds the bytes of commands that wait or are in flight, over all devices.
	CommandMemory int64
	// MaxConnections bounds the open connections, those that wait for admission included; one beyond it is closed at
	// once. 0: none.
	MaxConnections int
	// MaxConnectionsPerAddress bounds those of one device address: an IPv4 address, or an IPv6 network of 64 bits.
	// Behind a PROXY protocol header it is the address there. 0: none.
	MaxConnectionsPerAddress int
	// ConnectsPerSecond is how many new connections a second are read at all. Those beyond it wait, in turn by peer
	// address, and the wait does not count against ConnectTimeout. 0: all at once.
	ConnectsPerSecond int
	// PublishesPerSecond bounds the PUBLISH packets of one connection, of every QoS; a second's worth may come at
	// once. 0: none.
	PublishesPerSecond int
	// PublishBytesPerSecond bounds the bytes of those packets in the same way. 0: none.
	PublishBytesPerSecond int64
	// OverRate is what happens to a connection above one of these rates.
	OverRate OverRate
	// TopicLevels is how many levels a topic name or a topic filter may have.
	TopicLevels int
	// UserProperties is how many User Properties a packet may carry, and a will as many of its own.
	UserProperties int
	// MaxSessions bounds the sessions that outlive their connection, also those that have one now; without Store, which
	// has its own bound. 0: none.
	MaxSessions int
	// Away says that nothing is stored for now, so that a message with QoS 0 for which there is no memory is dropped and
	// does not wait for it. It must not block. nil: never.
	Away func() bool
	// Retained holds the retained messages; nil: they are not available.
	Retained *Retained
	// Shares holds the shared subscriptions; nil: they are not available.
	Shares *Shares
	// Store keeps the sessions; nil: they live in this process.
	Store Store
	// Authenticator says who a device is; nil: everybody is let in as who it says it is, and may do everything.
	Authenticator Authenticator
	Logger        zerolog.Logger
	Registerer    prometheus.Registerer
}

// OverRate says what is done with a device that sends more than it may.
type OverRate int

const (
	// DelayReading leaves what the device sends unread until it is within its rate again, and answers PINGREQ.
	DelayReading OverRate = iota
	// DisconnectClient ends the connection: MQTT 5 with DISCONNECT 0x97 Quota exceeded.
	DisconnectClient
)

// mostPerSecond is the largest rate of packets or connections that can be told from none.
const mostPerSecond = 100_000_000

// connectPacketMax bounds a CONNECT, which comes before anybody is known: 64 KiB hold a client ID, a will
// and a token of common sizes.
const connectPacketMax = 64 << 10

// DefaultConfig gives the values that are safe in production.
func DefaultConfig() Config {
	return Config{
		MaxPacketSize:      256 << 10,
		ReceiveMaximum:     256,
		MaxInFlightBytes:   8 << 20,
		KeepAliveMax:       time.Hour,
		ConnectTimeout:     10 * time.Second,
		WriteTimeout:       20 * time.Second,
		MaxUnreadBytes:     64 << 10,
		MaxPartialBytes:    64 << 20,
		MaxExtraBytes:      32 << 20,
		MaxRecordBytes:     512 << 20,
		SessionExpiryMax:   24 * time.Hour,
		MaxStoredSessions:  100_000,
		MaxSubscriptions:   100,
		SubscriptionMemory: 256 << 20,
		CommandsInFlight:   64,
		CommandsQueued:     1000,
		CommandMemory:      64 << 20,
		ConnectsPerSecond:  2000,
		TopicLevels:        128,
		UserProperties:     64,
		MaxSessions:        1_000_000,
		Logger:             zerolog.Nop(),
	}
}

// check says what can't be used, all of it.
func (c *Config) check() error {
	var faults []error
	within := func(name string, v, least, most int) {
		if v < least || v > most {
			faults = append(faults, fmt.Errorf("cannot use %s %d: it must be from %d to %d", name, v, least, most))
		}
	}
	within("ReceiveMaximum", c.ReceiveMaximum, 1, math.MaxUint16)
	within("TopicAliasMaximum", c.TopicAliasMaximum, 0, math.MaxUint16)
	within("MaxPacketSize", c.MaxPacketSize, 1, largestPacket)
	within("MaxInFlightBytes", c.MaxInFlightBytes, 1, math.MaxInt)
	within("MaxUnreadBytes", c.MaxUnreadBytes, 1, math.MaxInt)
	within("MaxPartialBytes", int(c.MaxPartialBytes), 1, math.MaxInt)
	within("MaxExtraBytes", int(c.MaxExtraBytes), 1, math.MaxInt)
	within("MaxRecordBytes", int(c.MaxRecordBytes), 1, math.MaxInt)
	within("MaxSubscriptions", c.MaxSubscriptions, 1, math.MaxInt)
	within("SubscriptionMemory", int(c.SubscriptionMemory), 1, math.MaxInt)
	within("CommandsInFlight", c.CommandsInFlight, 1, math.MaxUint16)
	within("CommandsQueued", c.CommandsQueued, 1, math.MaxInt)
	within("CommandMemory", int(c.CommandMemory), 1, math.MaxInt)
	within("MaxStoredSessions", c.MaxStoredSessions, 1, math.MaxInt)
	within("MaxConnections", c.MaxConnections, 0, math.MaxInt)
	within("MaxConnectionsPerAddress", c.MaxConnectionsPerAddress, 0, math.MaxInt)
	within("ConnectsPerSecond", c.ConnectsPerSecond, 0, mostPerSecond)
	within("PublishesPerSecond", c.PublishesPerSecond, 0, mostPerSecond)
	within("PublishBytesPerSecond", int(c.PublishBytesPerSecond), 0, math.MaxInt)
	within("OverRate", int(c.OverRate), int(DelayReading), int(DisconnectClient))
	within("TopicLevels", c.TopicLevels, 1, math.MaxUint16)
	within("UserProperties", c.UserProperties, 1, math.MaxUint16)
	within("MaxSessions", c.MaxSessions, 0, math.MaxInt)
	return errors.Join(faults...)
}

// largestPacket is what a Remaining Length can say, with its fixed header.
const largestPacket = 268_435_455 + 5
