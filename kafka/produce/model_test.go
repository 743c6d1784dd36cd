package produce

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A broker is a partition's leader as Kafka's is: a log, and for each producer its epoch and its last five batches.
type broker struct {
	log       []int // numbers of records
	producers map[int64]*producer
	poison    bool // records of which it refuses every fifth
	names     bool // them, or else only the batch
	most      int  // records of a batch
	never     bool // an empty log refuses numbers that do not begin with 0 (KAFKA-15591)
}

type producer struct {
	epoch   int16
	batches []stored
}

type stored struct{ first, last int32 }

// A request is a batch on its way.
type request struct {
	Batch
	numbers []int
}

func poisoned(number int) bool { return number%5 == 3 }

// append does what UnifiedLog.append does, in its order: the records are looked at before the sequence numbers.
func (k *broker) append(r request) Answer {
	if len(r.numbers) > k.most {
		return Answer{Code: MessageTooLarge}
	}
	if k.poison && slices.ContainsFunc(r.numbers, poisoned) {
		a := Answer{Code: InvalidRecord}
		for i, n := range r.numbers {
			if k.names && poisoned(n) {
				a.Named = append(a.Named, int32(i))
			}
		}
		return a
	}
	last := sequenceAfter(r.First, len(r.numbers)-1)
	p := k.producers[r.Ident.ID]
	switch {
	case p == nil:
		if k.never && len(k.log) == 0 && r.First != 0 {
			return Answer{Code: OutOfOrderSequence}
		}
		p = &producer{epoch: r.Ident.Epoch}
		k.producers[r.Ident.ID] = p
	case r.Ident.Epoch < p.epoch:
		return Answer{Code: InvalidProducerEpoch}
	case r.Ident.Epoch > p.epoch:
		if r.First != 0 {
			return Answer{Code: OutOfOrderSequence}
		}
		*p = producer{epoch: r.Ident.Epoch}
	case slices.Contains(p.batches, stored{r.First, last}):
		return Answer{}
	case sequenceAfter(p.batches[len(p.batches)-1].last, 1) != r.First:
		return Answer{Code: OutOfOrderSequence}
	}
	p.batches = append(p.batches, stored{r.First, last})
	p.batches = p.batches[max(0, len(p.batches)-5):]
	k.log = append(k.log, r.numbers...)
	return Answer{}
}

// A sender is what has a partition's records sent, as the engine does it.
type sender struct {
	p       Partition
	ids     int64
	fresh   Ident
	waiting []*request
	out     *request // sent and not settled; it is sent again
	begun   bool     // out has numbers
	ends    map[int]ending
}

type ending int

const (
	isStored ending = iota + 1
	isRefused
	isOpen
)

func (s *sender) end(t *rapid.T, e ending, numbers ...int) {
	for _, n := range numbers {
		if s.ends[n] != 0 {
			t.Fatalf("record %d ends twice", n)
		}
		s.ends[n] = e
	}
}

// next gives what is sent now, or nil.
func (s *sender) next() *request {
	if s.out == nil && len(s.waiting) > 0 {
		s.out, s.waiting, s.begun = s.waiting[0], s.waiting[1:], false
	}
	if s.out != nil && !s.begun {
		if s.p.Ident.Epoch == math.MaxInt16 && s.p.Ident.ID == s.fresh.ID {
			s.fresh = Nobody
		}
		if s.fresh == Nobody {
			s.ids++
			s.fresh = Ident{ID: s.ids}
		}
		s.out.Records = len(s.out.numbers)
		s.p, s.out.Batch = Begin(s.p, s.out.Batch, s.fresh)
		s.begun = true
	}
	return s.out
}

func (s *sender) settle(t *rapid.T, a Answer) {
	r := s.out
	var d Decision
	before := s.p.Ident
	s.p, r.Batch, d = Settle(s.p, r.Batch, a)
	if s.p.Ident == Nobody && before.ID == s.fresh.ID {
		s.fresh = Nobody
	}
	refusal := isRefused
	if d.Open {
		refusal = isOpen
	}
	back := func(numbers ...[]int) {
		var front []*request
		for _, n := range numbers {
			if len(n) > 0 {
				front = append(front, &request{Batch{Inherited: r.Inherited}, n})
			}
		}
		s.waiting, s.out = append(front, s.waiting...), nil
	}
	switch d.Action {
	case Store:
		s.end(t, isStored, r.numbers...)
		for _, w := range s.waiting {
			w.Inherited = false
		}
		s.out = nil
	case SendAgain, EncodeAgain:
	case TakeBack:
		back(r.numbers)
	case Halve:
		half := len(r.numbers) / 2
		back(r.numbers[:half], r.numbers[half:])
	case RefuseNamed:
		var rest []int
		for i, n := range r.numbers {
			if slices.Contains(a.Named, int32(i)) {
				s.end(t, refusal, n)
			} else {
				rest = append(rest, n)
			}
		}
		back(rest)
	case Refuse:
		s.end(t, refusal, r.numbers...)
		s.out = nil
	case LeaveOpen:
		s.end(t, isOpen, r.numbers...)
		for len(s.waiting) > 0 && s.waiting[0].Inherited {
			s.end(t, isOpen, s.waiting[0].numbers...)
			s.waiting = s.waiting[1:]
		}
		s.out = nil
	}
}

// drop ends all there is, as for a topic that is refused.
func (s *sender) drop(t *rapid.T) {
	all := s.waiting
	if s.out != nil {
		all = append([]*request{s.out}, all...)
		if s.begun && s.out.InDoubt {
			s.fresh = Above(s.fresh, s.p)
			s.p, _ = Anew(s.p, nil)
		}
	}
	for _, r := range all {
		if r.InDoubt || r.Inherited {
			s.end(t, isOpen, r.numbers...)
		} else {
			s.end(t, isRefused, r.numbers...)
		}
	}
	s.out, s.waiting = nil, nil
}

// forget forgets a partition that has no records.
func (s *sender) forget() {
	if s.out == nil && len(s.waiting) == 0 {
		s.fresh, s.p = Above(s.fresh, s.p), Partition{Ident: Nobody}
	}
}

// made has the topic made anew, when the one that has its records knows.
func (s *sender) anew() {
	s.fresh = Above(s.fresh, s.p)
	if s.out == nil || !s.begun {
		s.p, _ = Anew(s.p, nil)
	} else {
		var back bool
		if s.p, back = Anew(s.p, &s.out.Batch); !back {
			return
		}
		s.begun, s.out.Batch = false, Batch{}
	}
	for _, w := range s.waiting {
		w.Inherited = false
	}
}

// TestNothingIsStoredTwiceOrAckedAndMissing runs random schedules against the broker: requests and answers that are lost,
// requests that arrive late, refusals that come and go, leaders that step down, topics that are made anew, refused and
// forgotten.
func TestNothingIsStoredTwiceOrAckedAndMissing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := &broker{producers: map[int64]*producer{}, most: 100, names: rapid.Bool().Draw(t, "names"), never: rapid.Bool().Draw(t, "never")}
		s := &sender{ends: map[int]ending{}, p: Partition{Ident: Nobody}, fresh: Nobody}
		if rapid.Bool().Draw(t, "near the end of the numbers") {
			s.p = Partition{Ident{77, int16(rapid.SampledFrom([]int{0, math.MaxInt16 - 1, math.MaxInt16}).Draw(t, "epoch"))}, math.MaxInt32 - 3, false}
			s.fresh = Ident{ID: 77}
			k.producers[77] = &producer{s.p.Ident.Epoch, []stored{{0, math.MaxInt32 - 4}}}
			k.log = []int{-1}
		}
		made := 0
		var late []request
		lost := map[int]bool{} // with an earlier log
		clean := true          // every attempt was answered with what is true of it
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 11).Draw(t, "step") {
			case 0, 1:
				r := &request{}
				for range rapid.IntRange(1, 6).Draw(t, "records") {
					r.numbers = append(r.numbers, made)
					made++
				}
				s.waiting = append(s.waiting, r)
			case 2:
				k.poison = rapid.Bool().Draw(t, "poison")
				k.most = rapid.SampledFrom([]int{1, 2, 3, 100}).Draw(t, "most")
			case 3:
				if len(late) > 0 {
					i := rapid.IntRange(0, len(late)-1).Draw(t, "late")
					k.append(late[i])
					late = slices.Delete(late, i, i+1)
				}
			case 4:
				if rapid.IntRange(0, 5).Draw(t, "anew") > 0 {
					break
				}
				for _, n := range k.log {
					lost[n] = true
				}
				k.log, k.producers = nil, map[int64]*producer{}
				s.anew()
				clean = false
			case 5:
				if rapid.IntRange(0, 5).Draw(t, "drop") == 0 {
					s.drop(t)
				}
			case 6:
				for range 20 {
					if s.next() != nil {
						s.settle(t, k.append(*s.out))
					}
				}
				s.forget()
			default:
				r := s.next()
				if r == nil {
					break
				}
				switch how := rapid.IntRange(0, 9).Draw(t, "network"); how {
				case 0:
					s.settle(t, Answer{Lost: true})
					clean = false
				case 1:
					k.append(*r)
					s.settle(t, Answer{Lost: true})
					clean = false
				case 2:
					late = append(late, *r)
					s.settle(t, Answer{Lost: true})
					clean = false
				case 3:
					s.settle(t, Answer{Code: NotEnoughReplicas})
				case 4:
					s.settle(t, Answer{Code: NotLeaderOrFollower})
					clean = false
				case 5:
					if a := k.append(*r); a.Code == None {
						a.Code = rapid.SampledFrom([]Code{NotLeaderOrFollower, RequestTimedOut, UnknownServerError}).Draw(t, "code")
						s.settle(t, a)
						clean = false
					} else {
						s.settle(t, a)
					}
				default:
					s.settle(t, k.append(*r))
				}
			}
		}
		for range 100 * (made + 1) {
			if s.next() == nil {
				break
			}
			s.settle(t, k.append(*s.out))
		}
		for _, r := range late {
			k.append(r)
		}
		check(t, k, s, made, lost, clean)
	})
}

func check(t *rapid.T, k *broker, s *sender, made int, lost map[int]bool, clean bool) {
	require.Len(t, s.ends, made, "every record ends")
	times := map[int]int{}
	last := -1
	for _, n := range k.log {
		if n >= 0 {
			times[n]++
		}
		if s.ends[n] == isStored && !lost[n] { // what was late for the earlier log is not in its place
			require.Greater(t, n, last, "the order")
			last = n
		}
	}
	for n := range made {
		switch s.ends[n] {
		case isStored:
			require.True(t, times[n] == 1 || times[n] == 0 && lost[n], "record %d is stored %d times", n, times[n])
		case isRefused:
			require.Zero(t, times[n], "record %d was refused and is stored", n)
		case isOpen:
			require.LessOrEqual(t, times[n], 1)
			require.False(t, clean, "record %d is left open, and every answer was clear", n)
		}
	}
}
