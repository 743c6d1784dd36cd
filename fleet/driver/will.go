package driver

import (
	"context"
	"errors"
	"fmt"

	"sluice/fleet"
	"sluice/kafka"
)

// A willing is a will that is to be published: by the instance that had its device, or by the owner of the partition
// if that instance is dead.
type willing struct {
	d      *Driver
	client string
	epoch  int64
	will   *fleet.Will
	by     willWriter
	turn   int // of by
}

// A willWriter is a shard, or the ownership of the partition.
type willWriter interface {
	write(g *kafka.TxGroup)
	right() (turn int, held bool)
}

var errNoRight = errors.New("the right to write transactions was lost and is not taken again yet")

// publish publishes the will, unless the ledger says that it was. The record and the note in the ledger are one
// transaction: after a crash between them the will would be published again. An error: try again.
func (w *willing) publish(ctx context.Context) error {
	l := w.d.ledger(w.client)
	var held bool
	if w.turn, held = w.by.right(); !held {
		return errNoRight
	}
	if err := w.d.readLedger(ctx, l); err != nil {
		return err
	}
	if l.willDone(w.client, w.epoch) {
		return nil
	}
	records, end, done := w.d.host.WillRecords(w.client, w.will)
	note, err := w.note(end)
	if err == nil {
		err = w.write(ctx, append(records, note))
	}
	done(err)
	if err == nil {
		w.d.countWill(end)
	} else if kafka.Final(err) && end == fleet.WillPublished {
		w.d.lines.Warn().Err(err).Str("client_id", w.client).Msg("Kafka does not take a will")
		return w.drop(ctx)
	} else {
		return err
	}
	return nil
}

// drop notes that the will can't be published.
func (w *willing) drop(ctx context.Context) error {
	note, err := w.note(fleet.WillDropped)
	if err != nil {
		return err
	}
	if err := w.write(ctx, []*kafka.TxRecord{note}); err != nil {
		return err
	}
	w.d.countWill(fleet.WillDropped)
	return nil
}

// note makes the record of the ledger that says what became of the will.
func (w *willing) note(end fleet.WillEnd) (*kafka.TxRecord, error) {
	value, err := fleet.LedgerWill{Will: end}.Encode()
	entry := w.d.entry(w.client, fleet.LedgerWillKey(w.client, w.epoch), value)
	return &entry, err
}

// write writes records in one transaction.
func (w *willing) write(ctx context.Context, records []*kafka.TxRecord) error {
	done := make(chan error, 1)
	w.by.write(&kafka.TxGroup{Records: records, Owner: groupDone(func(err error) { done <- err }), Prepare: w.prepare})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// prepare holds that the right is the one with which the ledger was read. Between them another one may have had it, and
// have published the will.
func (w *willing) prepare() error {
	if turn, held := w.by.right(); !held || turn != w.turn {
		return fmt.Errorf("%w: %w", kafka.ErrAborted, errNoRight)
	}
	return nil
}

// groupDone is called with the outcome of a group.
type groupDone func(err error)

// GroupDone passes the outcome on.
func (f groupDone) GroupDone(_ *kafka.TxGroup, err error) { f(err) }

// entry makes a record of the ledger about a client; nil is a tombstone.
func (d *Driver) entry(client string, key, value []byte) kafka.TxRecord {
	return kafka.TxRecord{Topic: d.cfg.Ledger, Key: key, PartitionKey: []byte(client), Among: d.Partitions(), Value: value}
}

func (d *Driver) countWill(end fleet.WillEnd) {
	if end == fleet.WillPublished {
		d.m.WillsPublished.Inc()
	} else {
		d.m.WillsDropped.Inc()
	}
}
