package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
)

// errRefused: a record, or a topic, was refused. The groups it is of have their fault set, or most was lowered.
var errRefused = errors.New("a record was refused")

// transact writes groups in one transaction, and ends them or puts them back.
func (t *Transactor) transact(ctx context.Context, groups []*TxGroup) {
	if groups = t.prepare(groups); len(groups) == 0 {
		return
	}
	shares, err := t.attempt(ctx, groups)
	if err != nil {
		groups = t.finishFaulty(groups)
	}
	switch {
	case err == nil:
		t.m.size.Observe(float64(len(groups)))
		t.most = min(2*t.most, t.cfg.MostGroups)
		t.finish(groups, nil)
		if t.stray {
			t.anew(ctx)
		}
	case errors.Is(err, errRefused):
		t.putBack(groups)
	case errors.Is(err, ErrTransactionUnknown) && ctx.Err() == nil:
		t.open = &openEnd{groups, t.id, shares}
		t.lose(err)
	case errors.Is(err, ErrFenced) || errors.Is(err, ErrTransactionUnknown):
		if ctx.Err() == nil {
			t.lose(err)
		}
		t.finish(groups, err)
	case ctx.Err() != nil:
		t.finish(groups, ErrClosed)
	default: // nothing of it is stored, and no verdict was said
		t.told.Warn().Err(err).Int("groups", len(groups)).Msg("a transaction was aborted and is written again")
		t.m.aborts.Inc()
		t.putBack(groups)
		_ = sleep(ctx, storeAgain) // or what Kafka refuses at once is tried, and told, without pause
	}
}

// anew takes the next epoch, so that a request without an answer that arrives only now is of no transaction to come: it
// would begin one, or commit what is half written.
func (t *Transactor) anew(ctx context.Context) {
	id, err := t.net.initProducer(ctx, t.cfg.TransactionalID, t.cfg.Timeout, t.id)
	switch {
	case err == nil:
		t.begin(id)
	case ctx.Err() == nil:
		t.lose(fmt.Errorf("%w: %w", ErrFenced, err))
	}
}

// prepare has the groups made ready, and ends those that are not to be written. The groups before them that failed have
// been told.
func (t *Transactor) prepare(groups []*TxGroup) (rest []*TxGroup) {
	for _, g := range groups {
		if g.Prepare != nil {
			g.fault = g.Prepare()
		}
	}
	return t.finishFaulty(groups)
}

// finishFaulty ends the groups with a fault and gives the others.
func (t *Transactor) finishFaulty(groups []*TxGroup) (rest []*TxGroup) {
	for _, g := range groups {
		if g.fault == nil {
			rest = append(rest, g)
		} else {
			t.finish([]*TxGroup{g}, g.fault)
		}
	}
	return rest
}

// attempt writes one transaction and commits it, or aborts it and says why.
func (t *Transactor) attempt(ctx context.Context, groups []*TxGroup) (shares []*share, err error) {
	began := time.Now()
	writing, cancel := context.WithTimeout(ctx, t.cfg.Timeout*2/3)
	defer cancel()
	if shares = t.topics.shares(groups); len(shares) == 0 {
		return nil, nil
	}
	if err = t.add(writing, shares); err == nil {
		err = t.store(writing, shares)
	}
	if err != nil {
		return nil, t.abort(ctx, err)
	}
	if err := t.commit(ctx); err != nil {
		return shares, err
	}
	t.m.commit.Observe(time.Since(began).Seconds())
	t.topics.trust(shares)
	t.patience = min(storeTime, t.cfg.Timeout/3)
	return shares, nil
}

// coordinate asks the coordinator of the transactional id.
func (t *Transactor) coordinate(ctx context.Context, f func(*sarama.Broker) (sarama.KError, error)) (sarama.KError, error) {
	return t.net.coordinate(ctx, coordinated{sarama.CoordinatorTransaction, t.cfg.TransactionalID}, f)
}

// add tells the coordinator which partitions the transaction is about to write to. Only when it knows can it end the
// transaction there.
func (t *Transactor) add(ctx context.Context, shares []*share) error {
	req := &sarama.AddPartitionsToTxnRequest{Version: 3, TransactionalID: t.cfg.TransactionalID, ProducerID: t.id.ID, ProducerEpoch: t.id.Epoch,
		TopicPartitions: map[string][]int32{}}
	for _, s := range shares {
		req.TopicPartitions[s.at.topic] = append(req.TopicPartitions[s.at.topic], s.at.id)
	}
	var refused map[string]sarama.KError
	code, err := t.coordinate(ctx, func(b *sarama.Broker) (sarama.KError, error) {
		resp, err := b.AddPartitionsToTxn(req)
		if err != nil {
			t.stray = true
			return 0, err
		}
		var code sarama.KError
		code, refused = added(resp)
		return code, nil
	})
	switch {
	case err != nil:
		return err
	case taken[code]:
		return fmt.Errorf("%w: %w", ErrFenced, code)
	case len(refused) > 0:
		return t.refuseTopics(shares, refused)
	case code != sarama.ErrNoError:
		return code
	}
	return nil
}

// added gives the one error of an answer that counts, and the topics that are refused, if any are.
func added(resp *sarama.AddPartitionsToTxnResponse) (code sarama.KError, refused map[string]sarama.KError) {
	refused = map[string]sarama.KError{}
	for topic, errs := range resp.Errors {
		for _, e := range errs {
			switch {
			case e.Err == sarama.ErrNoError:
			case topicVerdict("Write", e.Err) != nil:
				refused[topic] = e.Err
			case code == sarama.ErrNoError || taken[e.Err]:
				code = e.Err
			}
		}
	}
	if len(refused) > 0 && !taken[code] { // the others were not attempted
		return sarama.ErrNoError, refused
	}
	if code == sarama.ErrUnknownTopicOrPartition { // a broker that was not told of it yet
		code = sarama.ErrConcurrentTransactions
	}
	return code, nil
}

// refuseTopics sets the fault of all groups with records in topics that were refused.
func (t *Transactor) refuseTopics(shares []*share, refused map[string]sarama.KError) error {
	for _, s := range shares {
		code, ok := refused[s.at.topic]
		if !ok {
			continue
		}
		t.topics.stale(s.at.topic)
		for _, g := range s.groups {
			g.fault = fmt.Errorf("topic %q: %w", s.at.topic, topicVerdict("Write", code))
		}
	}
	return errRefused
}

// commit ends the transaction. Asking again is harmless as long as no other begins: the coordinator remembers how it
// ended. So it is asked until it says so, or says that the right was taken away. If that is its first answer nothing
// was committed; if it is the answer to a repetition, an earlier one may have been heard, and Renew asks the log.
func (t *Transactor) commit(ctx context.Context) error {
	tries, code, err := t.endTxn(ctx, true)
	switch {
	case err == nil && code == sarama.ErrNoError:
		return nil
	case tries == 0:
		return err
	case err != nil:
		return fmt.Errorf("%w: %w", ErrTransactionUnknown, err)
	case tries == 1 && taken[code]:
		return fmt.Errorf("%w: %w", ErrFenced, code)
	}
	return fmt.Errorf("%w: %w", ErrTransactionUnknown, code)
}

// endTxn gives how often the coordinator may have taken the question up, and its last answer. That it is busy with another
// change is no sign of that if it was the first to be asked: somebody else's, a fence or the end of the transaction's time.
func (t *Transactor) endTxn(ctx context.Context, commit bool) (tries int, code sarama.KError, err error) {
	req := &sarama.EndTxnRequest{Version: 3, TransactionalID: t.cfg.TransactionalID, ProducerID: t.id.ID, ProducerEpoch: t.id.Epoch, TransactionResult: commit}
	code, err = t.coordinate(ctx, func(b *sarama.Broker) (sarama.KError, error) {
		tries++
		resp, err := b.EndTxn(req)
		if err != nil {
			t.stray = true
			return 0, err
		}
		if tries == 1 && resp.Err == sarama.ErrConcurrentTransactions {
			tries = 0
		}
		return resp.Err, nil
	})
	return tries, code, err
}

// abort aborts the transaction and gives why, or ErrFenced. A batch whose answer was lost may still reach its
// partition; a new epoch sees to it that it does not become part of the next transaction. The epoch is asked for with
// the current one, so that we notice if somebody took the right in between.
func (t *Transactor) abort(ctx context.Context, why error) error {
	if errors.Is(why, ErrFenced) {
		return why
	}
	_, code, err := t.endTxn(ctx, false)
	switch {
	case err != nil:
		return err
	case taken[code]:
		return fmt.Errorf("%w: %w, after: %v", ErrFenced, code, why)
	}
	id, err := t.net.initProducer(ctx, t.cfg.TransactionalID, t.cfg.Timeout, t.id)
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%w: %w, after: %v", ErrFenced, err, why)
	}
	t.begin(id)
	return why
}
