package produce

import "math"

// An Ident is what Kafka knows a producer by. Each partition counts sequence numbers for each Ident.
type Ident struct {
	ID    int64
	Epoch int16
}

// Nobody is no Ident: one has to be asked for.
var Nobody = Ident{-1, -1}

// next returns the Ident of the next epoch, or Nobody after the last one. A producer without transactions raises its
// epoch itself (KIP-360), and a partition has seen none of another's epochs, so each partition has its own.
func (i Ident) next() Ident {
	if i.Epoch == math.MaxInt16 {
		return Nobody
	}
	return Ident{i.ID, i.Epoch + 1}
}

// Above returns what a partition may begin to count with whose past is forgotten: fresh, or if that is not above every
// epoch that was used in it, the next one. It is Nobody after the last.
func Above(fresh Ident, forgotten Partition) Ident {
	if fresh == Nobody || forgotten.Ident.ID != fresh.ID || forgotten.Ident.Epoch < fresh.Epoch {
		return fresh
	}
	return forgotten.Ident.next()
}

// A Partition is where its next batch is numbered from.
type Partition struct {
	Ident    Ident
	Sequence int32
	// Doubtful: a batch that was taken back may be stored from Sequence on, all the same.
	Doubtful bool
}

// A Batch is what has to be known of a batch until it is settled. It is sent with its own Ident and First each time.
type Batch struct {
	Ident   Ident
	First   int32 // sequence number of the first record
	Records int
	// InDoubt: an attempt may have stored it.
	InDoubt bool
	// Unanswered: an attempt had no answer, so it may still arrive.
	Unanswered bool
	// Inherited: its records are of a batch that was in doubt and was taken back. That one began with the same sequence
	// number and had more records, so if it is stored this one is out of order, and if this one is stored it is not.
	Inherited bool
	// Restamped: its records are to have the time of sending.
	Restamped bool
	// Plain: it is to be sent without compression.
	Plain bool
	// Corrupt is how often Kafka found it damaged.
	Corrupt int
}

// mostCorrupt is how often a batch that arrives damaged is encoded anew.
const mostCorrupt = 3

// Begin returns the next batch of a partition, with the records of b. If the partition has no Ident, or loses it here, it
// begins to count with fresh.
func Begin(p Partition, b Batch, fresh Ident) (Partition, Batch) {
	if p.Doubtful && !b.Inherited {
		p = bump(p) // or this batch could be taken for the one that may be stored
	}
	if p.Ident == Nobody {
		p = Partition{Ident: fresh}
	}
	return p, Batch{Ident: p.Ident, First: p.Sequence, Records: b.Records, Inherited: b.Inherited}
}

// sequenceAfter returns the sequence number after n records that begin with first: 2^31-1 is followed by 0.
func sequenceAfter(first int32, n int) int32 {
	return int32((uint32(first) + uint32(n)) & math.MaxInt32)
}

// An Answer is what came of sending a batch.
type Answer struct {
	// Lost: there was none, or none that could be read.
	Lost bool
	Code Code
	// Named are the records that Kafka names as those it refuses, by their place in the batch.
	Named []int32
}

// An Action is what has to happen to the records of a batch.
type Action int

const (
	// Store: they are stored.
	Store Action = iota
	// SendAgain: the batch is sent again as it is.
	SendAgain
	// EncodeAgain: the batch is sent again, with the same records and numbers, and is encoded anew.
	EncodeAgain
	// TakeBack: they go into another batch, before all that wait.
	TakeBack
	// Halve is TakeBack, as two batches.
	Halve
	// RefuseNamed: the records that the answer names are refused; it is TakeBack for the others.
	RefuseNamed
	// Refuse: all of them are refused.
	Refuse
	// LeaveOpen: nobody knows whether they are stored, nor those of the batches that wait and are Inherited.
	LeaveOpen
)

// A Decision says what to do about an answer.
type Decision struct {
	Action Action
	// Wait: not at once, and longer each time.
	Wait bool
	// Elsewhere: the partition may have another leader.
	Elsewhere bool
	// Verify: what is known of the topic may be wrong.
	Verify bool
	// Complain: a setting is the cause, so an operator has to be told.
	Complain bool
	// Open: what is refused may be stored all the same, so it is no verdict.
	Open bool
	// Bumped: the partition has a new Ident.
	Bumped bool
}

// Settle returns what an answer for a batch of a partition means, and both as they are after it.
func Settle(p Partition, b Batch, a Answer) (Partition, Batch, Decision) {
	if a.Lost {
		b.InDoubt, b.Unanswered = true, true
		return p, b, Decision{Action: SendAgain}
	}
	switch a.Code {
	case None, DuplicateSequence:
		p.Sequence, p.Doubtful = sequenceAfter(b.First, b.Records), false
		return p, b, Decision{Action: Store}

	case NotLeaderOrFollower, FencedLeaderEpoch, UnknownLeaderEpoch, LeaderNotAvailable, UnknownTopicOrPartition, KafkaStorageError:
		b.InDoubt = true // a leader that steps down while it waits for its followers says so too
		return p, b, Decision{Action: SendAgain, Wait: true, Elsewhere: true, Verify: a.Code == UnknownTopicOrPartition}

	case NotEnoughReplicas, ThrottlingQuotaExceeded, PolicyViolation: // said before anything is written
		return p, b, Decision{Action: SendAgain, Wait: true, Complain: a.Code != ThrottlingQuotaExceeded}

	case CorruptMessage:
		if b.Corrupt++; b.Corrupt <= mostCorrupt {
			return p, b, Decision{Action: EncodeAgain, Wait: true}
		}
		return leaveOpen(p, b)

	case InvalidTimestamp: // of our clock, not of the device
		d := Decision{Action: EncodeAgain, Wait: b.Restamped, Complain: b.Restamped}
		b.Restamped = true
		return p, b, d

	case UnsupportedCompressionType, UnsupportedForMessageFormat:
		d := Decision{Action: EncodeAgain, Wait: b.Plain, Complain: true}
		b.Plain = true
		return p, b, d

	case MessageTooLarge, RecordListTooLarge, InvalidRecord, TopicAuthorizationFailed, ClusterAuthorizationFailed, InvalidTopic:
		return refuse(p, b, a)

	case OutOfOrderSequence, UnknownProducerID, InvalidProducerEpoch:
		if b.InDoubt || b.Inherited {
			return leaveOpen(p, b)
		}
		return bump(p), b, Decision{Action: TakeBack, Bumped: true}

	default: // nothing is known about the records, and to ask again costs only time
		b.InDoubt = true
		return p, b, Decision{Action: SendAgain, Wait: true, Complain: !passing[a.Code]}
	}
}

// passing are the codes that say that Kafka is busy with itself.
var passing = map[Code]bool{RequestTimedOut: true, NetworkException: true, NotEnoughReplicasAfter: true}

// refuse returns what a verdict means. A batch in doubt is taken back too: which of its records are stored shows when one
// of them is, see Batch.Inherited. But what may still arrive, or is in doubt twice, could be taken for another batch.
func refuse(p Partition, b Batch, a Answer) (Partition, Batch, Decision) {
	if b.Unanswered || b.InDoubt && b.Inherited {
		return leaveOpen(p, b)
	}
	d := Decision{Action: Refuse, Open: b.InDoubt || b.Inherited}
	p.Doubtful, b.Inherited = d.Open, d.Open
	switch a.Code {
	case MessageTooLarge, RecordListTooLarge:
		d.Verify = true
	case InvalidRecord:
		if valid(a.Named, b.Records) {
			d.Action = RefuseNamed
			return p, b, d
		}
	default:
		d.Complain = true
		return p, b, d
	}
	if b.Records > 1 {
		d.Action = Halve
	}
	return p, b, d
}

// valid reports whether all that is named is in the batch.
func valid(named []int32, records int) bool {
	for _, i := range named {
		if i < 0 || int(i) >= records {
			return false
		}
	}
	return len(named) > 0
}

// leaveOpen gives up a batch. What is left of it on its way must not be taken for the next, so the epoch is raised.
func leaveOpen(p Partition, b Batch) (Partition, Batch, Decision) {
	return bump(p), b, Decision{Action: LeaveOpen, Bumped: true}
}

// bump begins a new epoch of a partition.
func bump(p Partition) Partition { return Partition{Ident: p.Ident.next()} }

// Anew returns the partition after its topic was made anew, and whether a batch that waits to be sent again is taken
// back: it isn't in the new log if every attempt was answered from the old one. Otherwise it has to be sent as it was.
func Anew(p Partition, b *Batch) (_ Partition, takeBack bool) {
	if b != nil && b.Unanswered {
		return p, false
	}
	return bump(p), b != nil
}
