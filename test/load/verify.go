package load

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A Report compares what the devices were told with what a Kafka topic holds.
type Report struct {
	InKafka    int // records of the run
	Expected   int // messages acknowledged
	Lost       int // acknowledged and not there
	Twice      int // records beyond the first of a message
	Disordered int // records that stand after a later one of their device, repeats not counted
	Spread     int // devices with records in more than one partition
}

// String gives the report in one line.
func (r Report) String() string {
	return fmt.Sprintf("%d acknowledged, %d in Kafka: %d lost, %d twice, %d out of order, %d devices over several partitions",
		r.Expected, r.InKafka, r.Lost, r.Twice, r.Disordered, r.Spread)
}

// Verify reads topics to their ends and compares the records of the run with the result.
func Verify(ctx context.Context, brokers []string, run string, res *Result, topics ...string) (Report, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	v := verifier{run: run, devices: make(map[int]*deviceBooks)}
	for _, topic := range topics {
		if err := v.readTopic(ctx, brokers, topic); err != nil {
			return v.report, err
		}
	}
	for i, acked := range res.PerDevice {
		books := v.devices[i]
		v.report.Expected += len(acked)
		for _, seq := range acked {
			if books == nil || books.seen[seq] == 0 {
				v.report.Lost++
			}
		}
	}
	for _, b := range v.devices {
		if len(b.partitions) > 1 {
			v.report.Spread++
		}
	}
	return v.report, nil
}

type verifier struct {
	run     string
	devices map[int]*deviceBooks
	report  Report
}

type deviceBooks struct {
	seen       map[uint64]int
	last       uint64
	partitions map[string]bool
}

// readTopic reads from the start to the end that the topic has now.
func (v *verifier) readTopic(ctx context.Context, brokers []string, topic string) error {
	left, at, err := span(ctx, brokers, topic)
	if err != nil || len(left) == 0 {
		return err
	}
	c, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: at}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxBytes(32<<20), kgo.KeepControlRecords())
	if err != nil {
		return err
	}
	defer c.Close()
	for len(left) > 0 {
		fetches := c.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("reading %s: %w", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() { // these may be the last there is
				v.record(r)
			}
			if end, ok := left[r.Partition]; ok && r.Offset >= end-1 {
				delete(left, r.Partition)
			}
		})
	}
	return nil
}

// span gives the end and the start of every partition that is not empty.
func span(ctx context.Context, brokers []string, topic string) (map[int32]int64, map[int32]kgo.Offset, error) {
	c, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	admin := kadm.NewClient(c)
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("end offsets of %s: %w", topic, err)
	}
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return nil, nil, fmt.Errorf("start offsets of %s: %w", topic, err)
	}
	left, at := make(map[int32]int64), make(map[int32]kgo.Offset)
	ends.Each(func(o kadm.ListedOffset) {
		if s, ok := starts.Lookup(topic, o.Partition); ok && o.Offset > s.Offset {
			left[o.Partition], at[o.Partition] = o.Offset, kgo.NewOffset().At(s.Offset)
		}
	})
	return left, at, nil
}

func (v *verifier) record(r *kgo.Record) {
	var run string
	var device int
	var seq uint64
	if n, _ := fmt.Sscanf(string(r.Value[:min(len(r.Value), 64)]), "%s %d %d", &run, &device, &seq); n != 3 || !strings.EqualFold(run, v.run) {
		return
	}
	b := v.devices[device]
	if b == nil {
		b = &deviceBooks{seen: make(map[uint64]int), partitions: make(map[string]bool)}
		v.devices[device] = b
	}
	v.report.InKafka++
	b.partitions[fmt.Sprintf("%s/%d", r.Topic, r.Partition)] = true
	switch {
	case b.seen[seq] > 0:
		v.report.Twice++
	case seq < b.last:
		v.report.Disordered++
	}
	b.seen[seq]++
	b.last = max(b.last, seq)
}
