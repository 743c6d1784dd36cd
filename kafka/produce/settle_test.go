package produce

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSequenceNumbersBeginAgainAfterTheLast(t *testing.T) {
	f := func(first int32, n int, want int32) {
		t.Helper()
		require.Equal(t, want, sequenceAfter(first, n))
	}
	f(0, 10, 10)
	f(math.MaxInt32, 1, 0)
	f(math.MaxInt32-3, 10, 6)
	f(math.MaxInt32, 0, math.MaxInt32)
}

func TestAnswers(t *testing.T) {
	f := func(b Batch, a Answer, want Decision, wantAfter func(*Batch)) {
		t.Helper()
		b.Ident = Ident{7, 3}
		p := Partition{Ident: b.Ident, Sequence: 40}
		b.First = p.Sequence
		after, got, d := Settle(p, b, a)
		require.Equal(t, want, d)
		if wantAfter != nil {
			wantAfter(&b)
		}
		b.Inherited = got.Inherited
		require.Equal(t, b, got)
		switch {
		case d.Bumped:
			require.Equal(t, Partition{Ident: Ident{7, 4}}, after)
		case d.Action == Store:
			require.Equal(t, int32(40+b.Records), after.Sequence)
		default:
			require.Equal(t, int32(40), after.Sequence)
		}
	}
	doubt := func(b *Batch) { b.InDoubt = true }
	ten, one := Batch{Records: 10}, Batch{Records: 1}
	f(ten, Answer{}, Decision{Action: Store}, nil)
	f(ten, Answer{Code: DuplicateSequence}, Decision{Action: Store}, nil)
	f(ten, Answer{Lost: true}, Decision{Action: SendAgain}, func(b *Batch) { b.InDoubt, b.Unanswered = true, true })
	for _, c := range []Code{NotLeaderOrFollower, FencedLeaderEpoch, UnknownLeaderEpoch, LeaderNotAvailable, KafkaStorageError} {
		f(ten, Answer{Code: c}, Decision{Action: SendAgain, Wait: true, Elsewhere: true}, doubt)
	}
	f(ten, Answer{Code: UnknownTopicOrPartition}, Decision{Action: SendAgain, Wait: true, Elsewhere: true, Verify: true}, doubt)
	f(ten, Answer{Code: NotEnoughReplicas}, Decision{Action: SendAgain, Wait: true, Complain: true}, nil)
	f(ten, Answer{Code: PolicyViolation}, Decision{Action: SendAgain, Wait: true, Complain: true}, nil)
	f(ten, Answer{Code: ThrottlingQuotaExceeded}, Decision{Action: SendAgain, Wait: true}, nil)
	for _, c := range []Code{RequestTimedOut, NetworkException, NotEnoughReplicasAfter} {
		f(one, Answer{Code: c}, Decision{Action: SendAgain, Wait: true}, doubt)
	}
	for _, c := range []Code{UnknownServerError, 1234} {
		f(one, Answer{Code: c}, Decision{Action: SendAgain, Wait: true, Complain: true}, doubt)
	}
	for _, c := range []Code{MessageTooLarge, RecordListTooLarge} {
		f(ten, Answer{Code: c}, Decision{Action: Halve, Verify: true}, nil)
		f(one, Answer{Code: c}, Decision{Action: Refuse, Verify: true}, nil)
	}
	f(ten, Answer{Code: InvalidRecord}, Decision{Action: Halve}, nil)
	f(one, Answer{Code: InvalidRecord}, Decision{Action: Refuse}, nil)
	f(ten, Answer{Code: InvalidRecord, Named: []int32{0, 9}}, Decision{Action: RefuseNamed}, nil)
	f(ten, Answer{Code: InvalidRecord, Named: []int32{10}}, Decision{Action: Halve}, nil)
	f(ten, Answer{Code: InvalidRecord, Named: []int32{-1}}, Decision{Action: Halve}, nil)
	for _, c := range []Code{TopicAuthorizationFailed, ClusterAuthorizationFailed, InvalidTopic} {
		f(ten, Answer{Code: c}, Decision{Action: Refuse, Complain: true}, nil)
	}
	f(ten, Answer{Code: InvalidTimestamp}, Decision{Action: EncodeAgain}, func(b *Batch) { b.Restamped = true })
	f(Batch{Records: 2, Restamped: true}, Answer{Code: InvalidTimestamp}, Decision{Action: EncodeAgain, Wait: true, Complain: true}, nil)
	for _, c := range []Code{UnsupportedCompressionType, UnsupportedForMessageFormat} {
		f(ten, Answer{Code: c}, Decision{Action: EncodeAgain, Complain: true}, func(b *Batch) { b.Plain = true })
		f(Batch{Records: 2, Plain: true}, Answer{Code: c}, Decision{Action: EncodeAgain, Wait: true, Complain: true}, nil)
	}
	f(ten, Answer{Code: CorruptMessage}, Decision{Action: EncodeAgain, Wait: true}, func(b *Batch) { b.Corrupt = 1 })
	f(Batch{Records: 2, Corrupt: 3}, Answer{Code: CorruptMessage}, Decision{Action: LeaveOpen, Bumped: true}, func(b *Batch) { b.Corrupt = 4 })
	for _, c := range []Code{OutOfOrderSequence, UnknownProducerID, InvalidProducerEpoch} {
		f(ten, Answer{Code: c}, Decision{Action: TakeBack, Bumped: true}, nil)
		f(Batch{Records: 2, InDoubt: true}, Answer{Code: c}, Decision{Action: LeaveOpen, Bumped: true}, nil)
		f(Batch{Records: 2, Inherited: true}, Answer{Code: c}, Decision{Action: LeaveOpen, Bumped: true}, nil)
	}
	// Refusals of what an attempt may have stored.
	f(Batch{Records: 2, InDoubt: true}, Answer{Code: InvalidRecord}, Decision{Action: Halve, Open: true}, nil)
	f(Batch{Records: 1, InDoubt: true}, Answer{Code: MessageTooLarge}, Decision{Action: Refuse, Open: true, Verify: true}, nil)
	f(Batch{Records: 2, InDoubt: true, Unanswered: true}, Answer{Code: InvalidRecord}, Decision{Action: LeaveOpen, Bumped: true}, nil)
	f(Batch{Records: 2, InDoubt: true, Inherited: true}, Answer{Code: InvalidRecord}, Decision{Action: LeaveOpen, Bumped: true}, nil)
}

func TestTheLastEpochIsFollowedByAnotherIdent(t *testing.T) {
	p, _, d := Settle(Partition{Ident: Ident{7, math.MaxInt16}, Sequence: 5}, Batch{Records: 1}, Answer{Code: OutOfOrderSequence})
	require.True(t, d.Bumped)
	require.Equal(t, Nobody, p.Ident)
	p, b := Begin(p, Batch{Records: 4}, Ident{8, 2})
	require.Equal(t, Partition{Ident: Ident{8, 2}}, p)
	require.Equal(t, Batch{Ident: Ident{8, 2}, Records: 4}, b)
}
