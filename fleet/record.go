package fleet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
)

// Version is the version of the records this package writes, and the highest it reads.
const Version = 1

// NeverExpires is the Session Expiry Interval of a session that never expires.
const NeverExpires = math.MaxUint32

// A Record is one record of Kafka. A nil Value is a tombstone.
type Record struct {
	Key, Value []byte
	Offset     int64
	Time       int64 // its timestamp
}

// A Session is what one incarnation says of a client: its claim on the client ID, and the session's state if it has
// opened one. The epoch of a claim is the offset of the claim's record plus 1, so that 0 is none.
//
// A Session that was given to a [Claimer], or came from one, is not changed any more, nor is what it refers to.
type Session struct {
	// Claim is the epoch; 0 in the claim's record itself means the record's own.
	Claim int64 `json:"claim,omitempty"`
	// StateEpoch is the epoch under which the state below was opened, 0 if there is none. A record whose StateEpoch
	// equals its Claim is opened; one whose StateEpoch is lower only carries the state that the key had before.
	StateEpoch int64 `json:"state,omitempty"`
	// Began is the epoch that created the session: what the ledger says of lower epochs is another session's.
	Began int64 `json:"began,omitempty"`

	TxID      string `json:"tx,omitempty"`        // transactional id of the writer's transactions for this client
	Principal string `json:"principal,omitempty"` // whose session or claim it is
	Connected int64  `json:"connected,omitempty"` // time of the CONNECT
	Released  bool   `json:"released,omitempty"`  // the writer is done with this claim, and had opened
	Ended     bool   `json:"ended,omitempty"`     // the state is no session any more
	Withdrawn bool   `json:"withdrawn,omitempty"` // the writer is done with this claim, and had not opened
	Clean     bool   `json:"clean,omitempty"`     // the claim was made by a clean start

	Expiry       uint32 `json:"expiry,omitempty"`  // Session Expiry Interval in seconds
	OfflineSince int64  `json:"offline,omitempty"` // when the connection ended

	Subs    []Sub    `json:"subs,omitempty"`
	Origins []Origin `json:"origins,omitempty"` // where Subs begin
	Will    *Will    `json:"will,omitempty"`
	Owed    []Owed   `json:"owed,omitempty"`
	Progress
	// Unheard: a holder left no last word, and it is not known how far it had given commands. Who opens the session finds out.
	Unheard bool `json:"unheard,omitempty"`
	// Ends is, in a state that has ended with its connection, how far its holder had got in the command topics: of what is
	// below, it tells what became of it. nil: the session was in none. Of one that was never to be stored it has Met alone, where
	// commands came for it.
	Ends *Progress `json:"ends,omitempty"`
	// Begins is where the session begins in the command topics, where its first holder had read commands for the client
	// before it: what is below is not for the session to tell of, but for the one before it or for who looks after the partition.
	// It is kept as long as the session lives.
	Begins *Progress `json:"begins,omitempty"`
	// Gaps has, as Settled, what of the command topics no holder has offered to the session: the one before had not come to it,
	// and who went on with it had read it before. What waited there for the session is replayed.
	Gaps     *Progress `json:"gaps,omitempty"`
	Out      []Out     `json:"out,omitempty"`      // deliveries to the device that are under way
	Received []uint16  `json:"received,omitempty"` // QoS 2 ids taken in and not released, outside the ledger
	Pending  []Pending `json:"pending,omitempty"`  // those of which it is not known yet

	Remote  string `json:"remote,omitempty"`
	Version string `json:"mqtt,omitempty"`
}

// A Sub is a subscription.
type Sub struct {
	Filter            string `json:"f"`
	QoS               byte   `json:"q,omitempty"`
	NoLocal           bool   `json:"nl,omitempty"`
	RetainAsPublished bool   `json:"rap,omitempty"`
	RetainHandling    byte   `json:"rh,omitempty"`
	ID                uint32 `json:"id,omitempty"`
	// Owed is the topic from which on its retained messages are still to be handed out, in the order of their bytes; nil: none are.
	Owed   *string `json:"r,omitempty"`
	Origin int     `json:"o,omitempty"` // its place among the session's Origins, from 1; 0: from the session's positions
}

// An Origin says where the subscriptions of one SUBSCRIBE begin, as far as the session's positions do not say that.
type Origin struct {
	// At is a time in milliseconds: what the device itself published earlier was before. Whoever has the session gives
	// what the device publishes no earlier time.
	At int64 `json:"at,omitempty"`
	// Pos has positions above the session's, in the topics of its IDs.
	Pos map[string]map[int32]int64 `json:"pos,omitempty"`
}

// Begins notes at which offset of a partition the origin's subscriptions begin.
func (o *Origin) Begins(topic string, partition int32, offset int64) {
	if o.Pos == nil {
		o.Pos = make(map[string]map[int32]int64)
	}
	if o.Pos[topic] == nil {
		o.Pos[topic] = make(map[int32]int64)
	}
	o.Pos[topic][partition] = max(o.Pos[topic][partition], offset)
}

// OriginOf gives where a subscription begins, nil for from the session's positions.
func (s *Session) OriginOf(sub *Sub) *Origin {
	if sub.Origin < 1 || sub.Origin > len(s.Origins) {
		return nil
	}
	return &s.Origins[sub.Origin-1]
}

// clockSlack is how far a time of an origin may be ahead of the clock of who opens the session.
const clockSlack = 1000

// forgetAhead leaves out times that are so far ahead that the device's messages would have to wait for them.
func forgetAhead(origins []Origin, now int64) []Origin {
	origins = slices.Clone(origins)
	for i := range origins {
		if origins[i].At > now+clockSlack {
			origins[i].At = 0
		}
	}
	return origins
}

// A Will is a Will Message. It is a duty only in a state that was opened; its epoch is that state's.
type Will struct {
	Topic           string      `json:"topic"`
	Payload         []byte      `json:"payload,omitempty"`
	QoS             byte        `json:"qos,omitempty"`
	Retain          bool        `json:"retain,omitempty"`
	ContentType     *string     `json:"type,omitempty"` // nil: absent, which empty is not
	ResponseTopic   *string     `json:"response,omitempty"`
	PayloadFormat   *byte       `json:"format,omitempty"`
	CorrelationData []byte      `json:"correlation,omitzero"`
	User            [][2][]byte `json:"user,omitempty"`
	Expiry          *uint32     `json:"expiry,omitempty"`
	Delay           uint32      `json:"delay,omitempty"` // Will Delay Interval in seconds
	Due             int64       `json:"due,omitempty"`   // when to publish, once the connection has ended
	Username        string      `json:"username,omitempty"`
	CommonName      string      `json:"cn,omitempty"` // of the device's certificate
}

// Pending is a QoS 2 id that was taken in, and of which Inc alone knows whether its message is stored: when it does, it
// says so in the record under its own key. ID 0 stands for all that Inc has taken in and not written down yet.
type Pending struct {
	ID  uint16 `json:"id,omitempty"`
	Inc string `json:"inc"`
}

// Owed is a Will that is due and not published yet, of a connection whose state the same incarnation has replaced.
type Owed struct {
	Epoch int64 `json:"epoch"` // under which the connection was opened
	Will  *Will `json:"will"`
}

// An Out is a delivery to the device that was begun and is not completed: which command has which packet id, and how
// far it has got. With QoS 1 it can be missing, and the device then gets the command with another id. A retained message
// that was handed out is one too, by its record in the topic of retained messages.
type Out struct {
	ID        uint16 `json:"id"`
	Topic     string `json:"t"`
	Partition int32  `json:"p"`
	Offset    int64  `json:"o"`
	Received  bool   `json:"rec,omitempty"` // PUBREC has come: go on with PUBREL
	QoS       byte   `json:"q,omitempty"`   // of the PUBLISH
}

// An Instance is an incarnation's heartbeat, or the verdict on it.
type Instance struct {
	Address string   `json:"address,omitempty"`
	Started int64    `json:"started,omitempty"`
	TxIDs   []string `json:"tx,omitempty"` // its transactional ids
	Alive   int64    `json:"alive,omitempty"`
	Beat    int64    `json:"beat,omitempty"` // when it was written, on the writer's monotonic clock in milliseconds
	Dead    bool     `json:"dead,omitempty"`
	By      string   `json:"by,omitempty"`
	At      int64    `json:"at,omitempty"`
	// Ends is, in a verdict, how far the command topics went when it was known to be there: of what came later the dead one
	// has given nothing.
	Ends *Progress `json:"ends,omitempty"`
	// Since and From are, in a verdict that takes the place of one without Ends, the timestamp of that one's record, and the
	// epoch that a claim would have had in its place.
	Since int64 `json:"since,omitempty"`
	From  int64 `json:"from,omitempty"`
}

// Opened says that the state was opened under the record's own claim.
func (s *Session) Opened() bool { return s.StateEpoch > 0 && s.StateEpoch == s.Claim }

// IsLast reports whether this is the last word of who had the connection, so that Received and Pending, and Progress, are what
// the session has. It is written at the end of a connection, and a later claim by the same incarnation carries it on, unopened.
// In the record of an open connection Received and Pending are what that found: an id may have been released since, and taken
// for received it would swallow the next message that has it.
func (s *Session) IsLast() bool { return s.Released || s.StateEpoch < s.Claim }

// unheard notes that another incarnation had the session in this state, and left no last word: it may have given commands with
// QoS 0 since, all that there were until the verdict on it, or until now.
func (s *Session) unheard(verdict *Instance) {
	s.Unheard = verdict == nil || verdict.Ends == nil || !s.hasGiven(verdict.Ends)
}

// Encode is the value of a session record; nil, a tombstone, for nil.
func (s *Session) Encode() ([]byte, error) {
	if s == nil {
		return nil, nil
	}
	return marshal(struct {
		V int `json:"v"`
		*Session
	}{Version, s})
}

// marshal is json.Marshal without the escapes for HTML, which make six bytes of one.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// DecodeSession reads the value of a session record. Fields it does not know are ignored.
func DecodeSession(value []byte) (*Session, error) {
	var s struct {
		V int `json:"v"`
		Session
	}
	if err := decode(value, &s, &s.V); err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	return &s.Session, nil
}

// Encode is the value of a heartbeat or a verdict.
func (i *Instance) Encode() ([]byte, error) {
	return json.Marshal(struct {
		V int `json:"v"`
		*Instance
	}{Version, i})
}

// DecodeInstance reads the value of a heartbeat or a verdict.
func DecodeInstance(value []byte) (*Instance, error) {
	var i struct {
		V int `json:"v"`
		Instance
	}
	if err := decode(value, &i, &i.V); err != nil {
		return nil, fmt.Errorf("instance: %w", err)
	}
	return &i.Instance, nil
}

func decode(value []byte, into any, version *int) error {
	if err := json.Unmarshal(value, into); err != nil {
		// A later version may have given a field another type.
		if *version > Version {
			return ErrNewerVersion
		}
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	switch {
	case *version > Version:
		return fmt.Errorf("%w: %d, this is %d", ErrNewerVersion, *version, Version)
	case *version < 1:
		return fmt.Errorf("%w: no version", ErrMalformed)
	}
	return nil
}
