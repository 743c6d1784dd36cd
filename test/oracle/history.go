package oracle

import (
	"fmt"
	"strings"
	"time"
)

// A What says what was seen.
type What string

// What a device, the back end and Kafka do. Those that begin with "got" came to the device, the others went out.
const (
	Connect     What = "CONNECT"
	Publish     What = "PUBLISH"
	Puback      What = "PUBACK"
	Pubrec      What = "PUBREC"
	Pubrel      What = "PUBREL"
	Pubcomp     What = "PUBCOMP"
	Subscribe   What = "SUBSCRIBE"
	Unsubscribe What = "UNSUBSCRIBE"
	Disconnect  What = "DISCONNECT"
	Cut         What = "cut" // the device closed the connection, or gave it up

	GotConnack    What = "got CONNACK"
	GotPublish    What = "got PUBLISH"
	GotPuback     What = "got PUBACK"
	GotPubrec     What = "got PUBREC"
	GotPubrel     What = "got PUBREL"
	GotPubcomp    What = "got PUBCOMP"
	GotSuback     What = "got SUBACK"
	GotUnsuback   What = "got UNSUBACK"
	GotDisconnect What = "got DISCONNECT"
	GotEnd        What = "got end" // the server closed the connection

	Written What = "written" // the back end gave a record to its producer
	Stored  What = "stored"  // Kafka acknowledged it
	Record  What = "record"  // Kafka has a record of a device
	Receipt What = "receipt"

	// Crash and Stall begin a disturbance of the whole World.
	Crash What = "crash"
	Stall What = "stall"
	// Finale is where devices come back to get what is theirs, and Over where they have.
	Finale What = "finale"
	Over   What = "over"
)

// An Event is one thing that was seen.
type Event struct {
	At   time.Duration // since the beginning of the history
	What What
	Dev  int // 0 or 1; of a record or receipt: whose it is
	Conn int // of the device, from 1

	ID          uint16 // packet identifier
	Code        byte
	QoS         byte
	Dup, Retain bool
	Message     int // its number in History.Messages; -1: none
	Topic       string
	Present     bool // Session Present

	Version byte   // CONNECT
	Clean   bool   // CONNECT
	Expiry  int64  // CONNECT, DISCONNECT: seconds, -1 not said
	Delay   int64  // CONNECT: of the will, which is Message
	Options Filter // SUBSCRIBE, UNSUBSCRIBE

	Kafka     string // record: the topic, one of Plain, Once, Loop
	Partition int32
	Offset    int64
	Outcome   string // receipt: outcome and reason
	Instance  string // receipt: the process that wrote it
}

// A Filter is one of SUBSCRIBE.
type Filter struct {
	Name         string
	QoS          byte
	NoLocal, Rap bool
	Handling     byte
}

func (e Event) String() string {
	s := fmt.Sprintf("%9.3fs %c%d %s", e.At.Seconds(), 'a'+rune(e.Dev), e.Conn, e.What)
	if e.ID > 0 {
		s += fmt.Sprintf(" id %d", e.ID)
	}
	if e.Message >= 0 {
		s += fmt.Sprintf(" message %d", e.Message)
	}
	switch e.What {
	case Connect:
		s += fmt.Sprintf(" v%d clean %v expiry %d delay %d", e.Version, e.Clean, e.Expiry, e.Delay)
	case GotConnack:
		s += fmt.Sprintf(" present %v", e.Present)
	case Publish, GotPublish:
		s += fmt.Sprintf(" %s QoS %d dup %v retain %v", e.Topic, e.QoS, e.Dup, e.Retain)
	case Disconnect:
		s += fmt.Sprintf(" expiry %d", e.Expiry)
	case Subscribe, Unsubscribe:
		s += fmt.Sprintf(" %+v", e.Options)
	case Record:
		s += fmt.Sprintf(" in %s/%d at %d", e.Kafka, e.Partition, e.Offset)
	case Receipt:
		s += " " + e.Outcome
	}
	if e.Code > 0 {
		s += fmt.Sprintf(" code 0x%02X", e.Code)
	}
	return s
}

// A Message is what a device or the back end publishes.
type Message struct {
	From  int // the device; Backend
	Topic string
	Kafka string // where its record is
	QoS   byte
	Will  bool
	Keep  bool // RETAIN
	Empty bool
	To    int  // a command: the device, which alone gets it; -1: everybody
	Last  bool // of the finale
	Job   bool // for one member of the share
}

// Backend is who writes commands and notices.
const Backend = 2

// A History is what was seen of a script.
type History struct {
	ID       string
	Messages []Message
	Events   []Event
	// Faults says that instances were killed meanwhile.
	Crashed bool
	Stalled bool
}

// String is one line for each message and event.
func (h *History) String() string {
	var b strings.Builder
	for i, m := range h.Messages {
		fmt.Fprintf(&b, "message %d: %+v\n", i, m)
	}
	for _, e := range h.Events {
		fmt.Fprintf(&b, "%v\n", e)
	}
	return b.String()
}
