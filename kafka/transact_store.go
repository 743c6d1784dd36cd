package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"sluice/kafka/produce"
)

const (
	// storeAgain is between tries to store.
	storeAgain = 50 * time.Millisecond
	// storeTime is how long a transaction waits for a partition that does not store at first. What is in it is written
	// again without that partition.
	storeTime = 2 * time.Second
)

// store has all records of a transaction stored, batch by batch: one for each partition at a time, those for all
// brokers at once. A batch whose answer is lost is sent again as it was, and Kafka drops the second by its sequence
// number. A partition that does not take its records in time is left out for a while: an open transaction holds up all
// that are in it.
func (t *Transactor) store(ctx context.Context, shares []*share) error {
	ctx, cancel := context.WithTimeout(ctx, t.patience)
	defer cancel()
	for {
		var open []*share
		for _, s := range shares {
			if s.stored < len(s.records) {
				open = append(open, s)
			}
		}
		if len(open) == 0 {
			return nil
		}
		again, err := t.round(ctx, open)
		if err != nil {
			return err
		}
		if again == nil {
			continue
		}
		if sleep(ctx, storeAgain) != nil {
			t.patience = min(2*t.patience, t.cfg.Timeout*2/3)
			for _, s := range open {
				if s.stored < len(s.records) {
					t.topics.doubt(s)
				}
			}
			return fmt.Errorf("not all records could be stored in time: %w", again)
		}
		t.topics.lead(open)
	}
}

// round sends the next batch of each share. again says why some have to be sent once more.
func (t *Transactor) round(ctx context.Context, open []*share) (again, err error) {
	byLeader := map[string][]*share{}
	for _, s := range open {
		if s.leader == "" {
			again = fmt.Errorf("partition %d of topic %q has no leader", s.at.id, s.at.topic)
			continue
		}
		byLeader[s.leader] = append(byLeader[s.leader], s)
	}
	var mu sync.Mutex
	answers := map[spot]answer{}
	var wg sync.WaitGroup
	for leader, shares := range byLeader {
		req := t.request(shares)
		wg.Go(func() { // ends with the answer, a time-out or ctx
			got := t.send(ctx, leader, req, shares)
			mu.Lock()
			defer mu.Unlock()
			for at, a := range got {
				answers[at] = a
			}
		})
	}
	wg.Wait()
	for _, s := range open {
		if a, ok := answers[s.at]; ok {
			retry, fatal := t.settle(s, a)
			again, err = first(again, retry), worse(err, fatal)
		}
	}
	return again, err
}

// An answer is what became of a batch: what Kafka said of it, or that it said nothing.
type answer struct {
	block *sarama.ProduceResponseBlock
	err   error
}

func (t *Transactor) request(shares []*share) *sarama.ProduceRequest {
	req := &sarama.ProduceRequest{Version: 10, TransactionalID: &t.cfg.TransactionalID, RequiredAcks: sarama.WaitForAll,
		Timeout: int32((t.cfg.Timeout / 4).Milliseconds())}
	for _, s := range shares {
		req.AddBatch(s.at.topic, s.at.id, s.next(t.at(s.at), codecs[t.cfg.Compression], t.plain[s.at.topic]))
	}
	return req
}

// send sends to one broker.
func (t *Transactor) send(ctx context.Context, leader string, req *sarama.ProduceRequest, shares []*share) map[spot]answer {
	var resp *sarama.ProduceResponse
	err := t.net.call(ctx, leader, func(b *sarama.Broker) (err error) {
		resp, err = b.Produce(req)
		return err
	})
	answers := map[spot]answer{}
	for _, s := range shares {
		a := answer{err: err}
		if err == nil {
			if a.block = resp.GetBlock(s.at.topic, s.at.id); a.block == nil {
				a.err = sarama.ErrIncompleteResponse
			}
		}
		answers[s.at] = a
	}
	return answers
}

// settle draws the conclusion from an answer, by the same rules as the Producer: the batch is stored, or has to be sent again,
// or the transaction can't be committed. An abort decides what is in doubt, so a verdict is one all the same.
func (t *Transactor) settle(s *share, a answer) (again, fatal error) {
	p, b := t.at(s.at), s.batch
	if a.err != nil {
		_, b.Batch, _ = produce.Settle(p, b.Batch, produce.Answer{Lost: true})
		return a.err, nil
	}
	code := a.block.Err
	if taken[code] {
		return nil, fmt.Errorf("%w: %w", ErrFenced, code)
	}
	if code == sarama.ErrInvalidTxnState {
		return nil, code
	}
	var d produce.Decision
	p, b.Batch, d = produce.Settle(p, b.Batch, produce.Answer{Code: produce.Code(code)})
	if d.Complain {
		t.told.Error().Str("kafka_topic", s.at.topic).Int16("code", int16(code)).Str("kafka_says", said(a.block)).
			Str("setting", settingOf[produce.Code(code)]).Msg("Kafka does not take the records of a transaction")
	}
	switch verdict := recordVerdict(code); {
	case d.Action == produce.Store:
		t.seqs[s.at] = p
		if a.block.Offset >= 0 {
			s.first, s.placed = a.block.Offset, true
		}
		s.advance()
		return nil, nil
	case d.Action == produce.EncodeAgain:
		b.encoded = false
		if b.Plain {
			t.plain[s.at.topic] = true
		}
		fallthrough
	case d.Action == produce.SendAgain:
		return fmt.Errorf("partition %d of topic %q: %w", s.at.id, s.at.topic, code), nil
	case topicVerdict("Write", code) != nil:
		return nil, t.refuseTopics([]*share{s}, map[string]sarama.KError{s.at.topic: code})
	case Final(verdict):
		return nil, t.refuseBatch(s, a.block, verdict)
	}
	return nil, code // what Kafka remembers of this producer is not what we do: only a new epoch helps
}

// refuseBatch finds the groups because of which a batch was refused. Kafka may name the records. If it does not, and the
// batch is of several groups, the next transaction has half as many, until it is known.
func (t *Transactor) refuseBatch(s *share, block *sarama.ProduceResponseBlock, verdict error) error {
	verdict = fmt.Errorf("topic %q: %w", s.at.topic, verdict)
	t.topics.stale(s.at.topic) // its limit may have been lowered
	for _, e := range block.RecordErrors {
		if i := int(e.BatchIndex); i >= 0 && i < len(s.batch.records) {
			s.groups[s.stored+i].fault = verdict
		}
	}
	if groups := s.inBatch(); len(groups) == 1 {
		groups[0].fault = verdict
	} else if len(block.RecordErrors) == 0 {
		t.most = max(1, len(groups)/2)
	}
	return errRefused
}

// first gives the first error there is.
func first(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// worse gives the error that leaves less hope.
func worse(a, b error) error {
	if b != nil && (a == nil || errors.Is(b, ErrFenced)) {
		return b
	}
	return a
}
