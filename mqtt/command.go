package mqtt

import (
	"sync"
	"sync/atomic"
	"time"
)

// A Command is a PUBLISH for every device with a subscription that matches. It and all it points to must not
// change after Send.
type Command struct {
	Topic   []byte // a legal topic name
	Payload []byte
	// The properties of MQTT 5; nil means absent. None is longer than 65 535 bytes, and all but
	// CorrelationData are legal UTF-8 strings, see ValidString.
	ContentType, ResponseTopic, CorrelationData []byte
	User                                        []Property
	PayloadFormat                               PayloadFormat
	QoS                                         byte // each subscription may lower it
	Retain                                      bool // seen by subscriptions with Retain As Published
	Expires                                     time.Time
	// From is the client ID that published it, for No Local; "" if no device did.
	From string
	// Published is when From did, in unix milliseconds by Message.Received, if it published to Topic; 0: not known. A
	// subscription that it made later does not get the command.
	Published int64
	// To is the only client ID that may get it; "" for everyone.
	To string
	// Connected: only devices that are connected now, not those whose session is stored.
	Connected bool
	// Memory is what the owner keeps for the command, and MemoryEach for each device until it is told of the
	// outcome there, in bytes; both count against CommandMemory.
	Memory, MemoryEach int
	Owner              CommandOwner
	// Place is where the owner has it; a session that is kept elsewhere takes up there later.
	Place Place

	measures  measures
	sharing   sync.Once
	shared    []byte // by rest
	cancelled atomic.Bool
	again     atomic.Pointer[Command] // the same command, given to a share once more
	holders   atomic.Int32            // deliveries that hold it
}

// A CommandOwner is told what became of its commands. Its methods are called from any goroutine that holds no
// lock of this package, at once for several devices, and must not block.
type CommandOwner interface {
	// CommandSent says that the command was handed to the network for the first time on a connection. It may come
	// after CommandSettled, since a device can be faster, and not at all if the connection ends at that moment.
	CommandSent(c *Command)
	// CommandSettled is called exactly once for each device that Send counted, during Send or after it. code
	// is the device's Reason Code, reason says why in a few words, for fates that need it.
	CommandSettled(c *Command, clientID string, fate Fate, code Code, reason string)
}

// A Fate is what became of a command at one device.
type Fate uint8

// The fates.
const (
	Delivered Fate = iota // acknowledged: PUBACK or PUBCOMP
	Sent                  // QoS 0: handed to the network
	Expired               // its time was over before it was sent, or sent again
	Cancelled             // before it was sent
	Rejected              // the device answered with a Reason Code of 0x80 or above
	Offline               // the device went away and nobody keeps the command for it
	Dropped               // a bound of ours
	Kept                  // not settled: the session goes on elsewhere or later, and gets the command there
)

var fateNames = [...]string{"delivered", "sent", "expired", "cancelled", "rejected", "offline", "dropped", "kept"}

// Fates are all there are.
func Fates() []Fate {
	return []Fate{Delivered, Sent, Expired, Cancelled, Rejected, Offline, Dropped, Kept}
}

// String gives the word of receipts and metrics.
func (f Fate) String() string { return fateNames[f] }

// The reasons given with Dropped and Offline, as in receipts and metrics.
const (
	reasonQueueFull     = "queue_full"       // CommandsQueued wait for the device, or it holds its share of CommandMemory
	reasonMemory        = "memory_full"      // CommandMemory is spent
	reasonTooLarge      = "packet_too_large" // for the device's Maximum Packet Size
	reasonNotAuthorized = "not_authorized"   // the device may not, or no longer, get it
	reasonPerhapsSent   = "perhaps_sent"     // with QoS 0, by a server that can't be asked
	reasonNotSent       = "not_sent"         // the device left before
	reasonNotAnswered   = "not_acknowledged" // the session ended before the device had answered
	reasonSessionEnded  = "session_ended"    // before it was sent
)

// Cancel withdraws the command from devices it was not yet sent to. Where it waits it is settled within about
// a second.
func (c *Command) Cancel() { c.cancelled.Store(true) }

// IsCancelled says whether it was.
func (c *Command) IsCancelled() bool {
	for ; c != nil; c = c.again.Load() {
		if c.cancelled.Load() {
			return true
		}
	}
	return false
}

func (c *Command) expired(now time.Time) bool { return !c.Expires.IsZero() && !now.Before(c.Expires) }

// Memory of a command that waits or is in flight, beside its bytes, and of its place at one device.
const (
	commandOverhead  = 512
	deliveryOverhead = 96
)

// measures are what a command has the same for all devices; counted once, since a queue asks again and again.
type measures struct {
	once       sync.Once
	properties int   // length of the properties that appendProperties encodes
	memory     int64 // bytes it holds
}

func (c *Command) measured() *measures {
	m := &c.measures
	m.once.Do(func() {
		for _, b := range [...][]byte{c.ContentType, c.ResponseTopic, c.CorrelationData} {
			if b != nil {
				m.properties += 3 + len(b)
			}
		}
		if c.PayloadFormat != FormatAbsent {
			m.properties += 2
		}
		n := commandOverhead + c.Memory
		for _, u := range c.User {
			m.properties += 5 + len(u.Key) + len(u.Value)
			n += 48
		}
		encoded := m.properties + len(c.Payload)
		if n += len(c.Topic) + encoded; encoded > commandBytes {
			n += encoded // see rest
		}
		m.memory = int64(n)
	})
	return m
}

// cost is the memory of d beside its command, in bytes.
func (d *delivery) cost() int64 { return int64(deliveryOverhead + d.cmd.MemoryEach + 8*cap(d.ids)) }

// weight is the memory of d with its command, as if no other device had that.
func (d *delivery) weight() int64 { return d.cost() + d.cmd.measured().memory }

// hold counts the memory of d; false if there is none left.
func (s *Server) hold(d *delivery) bool {
	n := d.cost()
	if d.cmd.holders.Add(1) == 1 {
		n += d.cmd.measured().memory
	}
	if s.held.Add(n) <= s.cfg.CommandMemory {
		return true
	}
	s.unhold(d)
	return false
}

// forceHold counts the memory of d, whether there is any left or not.
func (s *Server) forceHold(d *delivery) {
	n := d.cost()
	if d.cmd.holders.Add(1) == 1 {
		n += d.cmd.measured().memory
	}
	s.held.Add(n)
}

func (s *Server) unhold(d *delivery) {
	n := d.cost()
	if d.cmd.holders.Add(-1) == 0 {
		n += d.cmd.measured().memory
	}
	if s.held.Add(-n) == 0 {
		select {
		case s.unheld <- struct{}{}:
		default:
		}
	}
}

// awaitSettlements waits until the owner of every command was told of every outcome, when all sessions have ended:
// a goroutine may still be about to say what a connection sent last. Owners don't block, so it is a moment; one that
// panicked is not waited for longer than lingerTime.
func (s *Server) awaitSettlements() {
	late := time.NewTimer(lingerTime)
	defer late.Stop()
	for s.held.Load() != 0 {
		select {
		case <-s.unheld:
		case <-late.C:
			return
		}
	}
}

// A settlement is the end of a command at one device, to be reported when no lock is held.
type settlement struct {
	delivery
	fate   Fate
	code   Code
	reason string
	unheld bool // no memory was counted for it
}

// report passes settlements on and then gives their memory back.
func (s *Server) report(clientID string, done []settlement) {
	for i := range done {
		d := &done[i]
		d.cmd.Owner.CommandSettled(d.cmd, clientID, d.fate, d.code, d.reason)
		if !d.unheld {
			s.unhold(&d.delivery)
		}
	}
}

// A Reach is what Send did with a command.
type Reach struct {
	Devices int  // that it is settled for, each by one call of its owner
	Known   bool // for a command with To: there is a session, and it has not subscribed to it
	Later   bool // a session has it, gets it from the store, or somebody was told that it is not for it
}

// Send gives c to the devices with a matching subscription. The order of calls of one goroutine is the order at each
// device. Flush must follow, once for any number of calls. It does not block.
func (s *Server) Send(c *Command) (reach Reach) {
	if c.To != "" {
		return s.sendTo(c)
	}
	found := matches.Get().(*[]subscriber)
	*found = s.index.match(c.Topic, (*found)[:0])
	now := time.Now()
	for _, d := range gather(*found, c) {
		reach.count(d.session.offer(d.delivery, now))
	}
	clear(*found)
	matches.Put(found)
	return reach
}

func (r *Reach) count(a answer) {
	switch a {
	case taken:
		r.Devices++
	case later:
		r.Later = true
	case absent:
	}
}

var matches = sync.Pool{New: func() any { return new([]subscriber) }}

// sendTo is Send to one client ID.
func (s *Server) sendTo(c *Command) (reach Reach) {
	ss, connected := s.sessions.find(c.To)
	if ss == nil || c.Connected && !connected {
		return Reach{}
	}
	o := ss.outbox.Load()
	if o == nil {
		return Reach{Known: ss.meet(c.Place)}
	}
	found, told, over := o.meet(c)
	if len(found) == 0 {
		return Reach{Known: !over, Later: told}
	}
	reach.count(ss.offer(found[0].delivery, time.Now()))
	return reach
}

// A delivery is a command at one device.
type delivery struct {
	cmd    *Command
	ids    []int // Subscription Identifiers
	qos    byte
	retain bool
}

type addressed struct {
	session *session
	delivery
}

// gather makes one delivery for each session of the matching subscriptions: with the highest QoS of them and
// all their Subscription Identifiers [MQTT-3.3.4-2] [MQTT-3.3.4-3].
func gather(found []subscriber, c *Command) []addressed {
	all := make([]addressed, 0, len(found))
	var places map[*session]int
	if len(found) > 16 {
		places = make(map[*session]int, len(found))
	}
	for _, f := range found {
		if f.noLocal && f.session.clientID == c.From {
			continue // [MQTT-3.8.3-3]
		}
		if f.excludes(c) {
			continue
		}
		i := placeOf(all, places, f.session)
		if i == len(all) {
			all = append(all, addressed{f.session, delivery{cmd: c}})
			if places != nil {
				places[f.session] = i
			}
		}
		d := &all[i]
		d.qos = max(d.qos, min(f.qos, c.QoS))
		d.retain = d.retain || c.Retain && f.retainAsPublished // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
		if f.id != 0 {
			d.ids = append(d.ids, f.id)
		}
	}
	return all
}

// placeOf gives the place of s in all, len(all) if it has none.
func placeOf(all []addressed, places map[*session]int, s *session) int {
	if places != nil {
		if i, ok := places[s]; ok {
			return i
		}
		return len(all)
	}
	for i := range all {
		if all[i].session == s {
			return i
		}
	}
	return len(all)
}
