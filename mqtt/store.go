package mqtt

import (
	"context"
	"net"
)

// A Store keeps the sessions of several servers, so that a session goes on wherever its device connects. Without
// one, sessions live in this process and end with it.
type Store interface {
	// Open takes the client ID of a CONNECT for this server: whoever had it lets go of it, and what was stored of its
	// session is read. It is called from the connection's goroutine, blocks until ctx ends at the latest, and at most
	// once at a time for a client ID. An error is a *ProtocolFault, which CONNACK tells, or means Server unavailable.
	Open(ctx context.Context, o *Opening) (*Opened, error)
	// Admits says whether a user may have the client ID, before an older connection with it is ended here. It does not
	// block.
	Admits(clientID, username string) bool
	// Full says that stored sessions may not grow: a SUBSCRIBE to one more topic filter is refused with Quota exceeded.
	// It does not block.
	Full() bool
}

// An Opening is a CONNECT that asks for its session.
type Opening struct {
	// Session is the session as this server will know it, from the return of Open until Keeper.Left.
	Session  *Session
	ClientID string
	Username string
	Clean    bool   // Clean Start, or clean session
	Expiry   uint32 // Session Expiry Interval, granted; 0: the session ends with the connection
	// Will is published by the Keeper when the connection ends without DISCONNECT; nil: none.
	Will      *Message
	WillDelay uint32 // seconds
	Remote    net.Addr
	Version   string // of MQTT
}

// Opened is the answer to an Opening.
type Opened struct {
	// Present is Session Present: there was a session, and State is what it holds.
	Present bool
	State   State
	// Keeper keeps the session from here on; nil: nobody does, and the will is the server's own matter.
	Keeper Keeper
}

// A Keeper writes down what a session must not lose while its connection is here. Its methods must not block; they
// are called from any goroutine, with no lock of this package held save where they say so.
type Keeper interface {
	// Changed asks for Session.Snapshot to be stored and Session.Saved to be called then: something waits for it.
	// Calls may be joined.
	Changed()
	// Progressed says that commands were settled. It can be stored at leisure; what is not is delivered again.
	Progressed()
	// Lagging says that commands of some streams wait in the store and there is room for more of them, see
	// Session.Behind; or that something is in flight that was Unread, see Session.Found.
	Lagging()
	// Released says that the QoS 2 packet id of a received message is free (PUBREL). On true, done is called once that
	// is stored, also before Released returns; PUBCOMP waits for it. On false there is nothing to wait for.
	Released(id uint16, done func()) bool
	// Streams gives what Session.Snapshot is to be called with, for the State of Leaving. It is called with a lock held.
	Streams() (streams []int32, next func(stream int32) (int64, bool))
	// Left is the last call: the connection has ended.
	Left(l *Leaving)
}

// Leaving is what a connection leaves behind.
type Leaving struct {
	Tidy    bool     // DISCONNECT came: no will
	Expiry  uint32   // the Session Expiry Interval at the end, which DISCONNECT may have changed; 0: the session has ended
	State   Snapshot // of a session that has ended, what nobody has told the outcome of waits in the store
	Reason  string   // why, one of a bounded set of words
	Session *Session
}

// State is what a stored session holds.
type State struct {
	Subscriptions []Subscription
	Flight        []Unfinished
	Received      []uint16 // QoS 2 packet ids that were received and not released; see Session.Settle for others
	Behind        []Place  // streams that are to be replayed from an offset, before their commands come by Send again
	Done          []Place  // settled commands that are not below that offset
	// Past has the offsets up to which the commands of streams were offered to the session, or to the client's one before
	// it, elsewhere. Of what is below, Send gives it nothing, and only Behind, Flight and Done say what is open.
	Past []Place
	// Before has the offsets below which the commands of streams came before a new session: of those for everybody Send gives it
	// none.
	Before []Place
	// Given has the offsets below which a server that left no last word may have given commands of streams to the device:
	// those with QoS 0 are not given again.
	Given []Place
}

// A Subscription is a topic filter with its options (section 3.8.3.1).
type Subscription struct {
	Filter            string
	ID                int // Subscription Identifier; 0: none
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte
	Origin            *Origin // the same pointer for those of one SUBSCRIBE
	Owed              *string // the topic from which on its retained messages are still to be handed out; nil: none are
}

// An Unfinished delivery was sent and not completed.
type Unfinished struct {
	Place
	ID       uint16 // Packet Identifier
	QoS      byte
	Received bool // PUBREC came
	// Command is nil where it can no longer be had: a QoS 2 exchange is then completed with PUBREL.
	Command *Command
	// Unread: Command can't be read now, and is not known to be gone. The exchange stays where it is, with its packet
	// identifier, and nothing of it is sent until Session.Found.
	Unread bool
}

// A Place says where the owner of commands has one: streams are numbered from 1 by the owner, and commands of a
// stream come in the order of their offsets. The zero value is no place: such a command is not kept for anybody. A negative
// stream is one of retained messages: what is in flight is found again there, and nothing else waits in it.
type Place struct {
	Stream int32
	Offset int64
}

// A Snapshot is the whole state of a session at one moment.
type Snapshot struct {
	Version       uint64 // for Session.Saved
	Subscriptions []Subscription
	Flight        []Unfinished // with a place or with QoS 2, Command left out
	// Next has, for each stream asked about, the offset below which everything is settled; Done what is settled at or
	// above it.
	Next []Place
	Done []Place
	// Met has the offset after the last command that the session was offered, where that is above Next, or there is no Next or
	// nothing it counts for: without a subscription, and in a session that is not kept, it is about commands for it alone.
	Met []Place
	// Given is State.Given, where that is above Next.
	Given []Place
}
