package fleet

// An ActionKind says what a machine asks of its runtime.
type ActionKind uint8

// The actions. In brackets the method that answers.
const (
	// ActWrite: write Value, or a tombstone if it is nil, under the client's key of this incarnation, in this
	// order. State is the session that a claim ends because its time is over, as it was left. [Wrote or Failed]
	ActWrite ActionKind = iota + 1
	// ActFence: take a new producer epoch on the transactional ids TxIDs of incarnation Inc, which returns when
	// its open transaction is decided. [Fenced]
	ActFence
	// ActLedger: read the ledger to an end (read committed) that is fetched now. A runtime without exactly-once
	// rules may answer at once. [LedgerRead]
	ActLedger
	// ActWait: start takeover_wait, or half of it if Short: who has a successor must not keep that waiting longer than
	// it waits. [Waited with N; it is ignored if what it was started for is over]
	ActWait
	// ActOpened: the session is open and durable: send CONNACK. Present is Session Present, State the session as
	// opened, Epoch the claim's.
	ActOpened
	// ActSaved: all Saves up to number N are durable.
	ActSaved
	// ActLost: another connection took the client ID, or Kafka refused a record. [Gone or End]
	ActLost
	// ActRefused: the client ID's session belongs to Principal, who is not this device. [Gone]
	ActRefused
	// ActWill: publish Will of the connection that opened with Epoch, in one transaction with the ledger's record,
	// unless the ledger at its end says that it is done. The Owner's carries Client. [WillDone with Epoch]
	ActWill
	// ActReceived: it is known now of some QoS 2 ids of the open session, which it found Pending, whether their messages
	// are stored: those of Received are, those that are neither there nor in Pending are not.
	ActReceived
	// ActIdle: nothing is to be done for this client until its next CONNECT or a [Duty]; the Claimer may go.
	ActIdle

	// ActTake: take a new producer epoch on the transactional id of the partition's owner. [Owner.Taken]
	ActTake
	// ActReadEnds: read the partition, then the ledger, to ends fetched now. [Owner.EndsRead]
	ActReadEnds
	// ActVerdict: write Verdict under Key into the partition. [Owner.Judged]
	ActVerdict
	// ActReach: find out where the command topics end, and write Verdict with that, as its Ends, under Key.
	ActReach
	// ActTombstone: write a tombstone under Key into the partition, in this order. [Owner.Removed]
	ActTombstone
	// ActEnded: the session State of Client, whose holder is dead, has ended by its expiry. Given once by this
	// owner, and again by the next if this one goes before the key is removed.
	ActEnded
)

// An Action is something for the runtime to do. Which fields are set is told at each kind.
type Action struct {
	Kind      ActionKind
	Value     *Session
	Inc       string
	TxIDs     []string
	Present   bool
	State     *Session
	Epoch     int64
	N         int64
	Received  []uint16
	Pending   []Pending
	Short     bool
	Principal string
	Will      *Will
	Client    string
	Key       []byte
	Verdict   *Instance
}
