package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"sluice/kafka"
)

// Receipts is what Kafka has of the outcomes of a run's commands.
type Receipts struct {
	Topic    string         `json:"topic"`
	Missing  int            `json:"missing"`  // commands without one
	Doubled  int            `json:"doubled"`  // beyond the first of a command
	Outcomes map[string]int `json:"outcomes"` // of the first of each
}

// Err says what must not be; nil: all is well. Receipts may come twice.
func (r *Receipts) Err() error {
	if r.Missing > 0 {
		return fmt.Errorf("%d commands have no receipt", r.Missing)
	}
	return nil
}

// A ReceiptReader reads the receipts of a CommandsRun.
type ReceiptReader struct {
	t     *tail
	topic string
	c     Commands

	devices map[string]bool // client IDs
	seen    map[place]*runs // of the command's topic
	out     Receipts
}

// NewReceiptReader checks where to read. Close ends its connections.
func (c Commands) NewReceiptReader(cfg kafka.Config, topic string) (*ReceiptReader, error) {
	r := &ReceiptReader{topic: topic, c: c, devices: map[string]bool{}, seen: map[place]*runs{}, out: Receipts{Topic: topic, Outcomes: map[string]int{}}}
	for i := range c.Connections {
		r.devices[c.ClientIDOf(c.Run, i)] = true
	}
	var err error
	r.t, err = newTail(cfg, func(_ place, f *kafka.Fetched) { r.record(f.Value) }, topic)
	return r, err
}

// Close ends its connections.
func (r *ReceiptReader) Close() { r.t.reader.Close() }

// Begin notes where the topic ends now, before the run.
func (r *ReceiptReader) Begin(ctx context.Context) error { return r.t.begin(ctx) }

// Finish reads until every command that was written has a receipt, or the time is over.
func (r *ReceiptReader) Finish(ctx context.Context, written int) (*Receipts, error) {
	for end := time.Now().Add(r.c.Wait); ; {
		if err := r.t.patiently(ctx); err != nil {
			return nil, fmt.Errorf("cannot read the receipts: %w", err)
		}
		r.out.Missing = written
		for _, of := range r.out.Outcomes {
			r.out.Missing -= of
		}
		if r.out.Missing <= 0 || time.Now().After(end) {
			r.out.Missing = max(0, r.out.Missing)
			return &r.out, nil
		}
		if !sleep(ctx, readAgain) {
			return nil, errors.New("interrupted before all receipts were read")
		}
	}
}

// record takes a receipt, if it is of a device of this run.
func (r *ReceiptReader) record(value []byte) {
	var one struct {
		Topic     string `json:"topic"`
		Partition int32  `json:"partition"`
		Offset    uint64 `json:"offset"`
		ClientID  string `json:"client_id"`
		Outcome   string `json:"outcome"`
	}
	if json.Unmarshal(value, &one) != nil || one.Topic != r.c.KafkaTopic || !r.devices[one.ClientID] {
		return
	}
	at := place{one.Topic, one.Partition}
	if r.seen[at] == nil {
		r.seen[at] = new(runs)
	}
	if r.seen[at].add(one.Offset) {
		r.out.Outcomes[one.Outcome]++
	} else {
		r.out.Doubled++
	}
}

func (r *Receipts) table(t *table) {
	t.b.WriteString("\n")
	t.row("receipts", "in %s", r.Topic)
	for _, o := range slices.Sorted(maps.Keys(r.Outcomes)) {
		t.row("", "%s %s", Thousands(r.Outcomes[o]), o)
	}
	t.row("missing", "%s", Thousands(r.Missing))
	if r.Doubled > 0 {
		t.row("doubled", "%s", Thousands(r.Doubled))
	}
}
