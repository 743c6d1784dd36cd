package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A Command is a record that was written.
type Command struct {
	Device    int
	Seq       uint64
	Key       string
	Topic     string
	Partition int32
	Offset    int64
	At        time.Time     // just before it was handed to the Kafka client; the record's timestamp too
	Stored    time.Duration // from At to Kafka's acknowledgement
}

// A CommandWriter writes numbered commands for the devices of a fleet to a Kafka topic; the key is the client ID.
// Its methods may be called by several goroutines.
type CommandWriter struct {
	Size int // payload bytes, at least

	fleet   *CommandFleet
	topic   string
	client  *kgo.Client
	mu      sync.Mutex
	seq     []uint64
	written []Command
	errs    []error
}

// NewCommandWriter starts a Kafka client, which Close ends. It repeats what Kafka did not acknowledge until Close, and
// writes nothing twice.
func NewCommandWriter(f *CommandFleet, brokers []string, topic string) (*CommandWriter, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.DefaultProduceTopic(topic), kgo.ProducerLinger(0),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MaxBufferedRecords(1_000_000))
	if err != nil {
		return nil, err
	}
	return &CommandWriter{Size: 256, fleet: f, topic: topic, client: client, seq: make([]uint64, max(f.Devices, 1))}, nil
}

// Close ends the client.
func (w *CommandWriter) Close() { w.client.Close() }

// Write hands one command for a device to the Kafka client; Flush waits for it.
func (w *CommandWriter) Write(device int, headers ...kgo.RecordHeader) {
	w.mu.Lock()
	w.seq[device]++
	c := Command{Device: device, Seq: w.seq[device], Key: w.fleet.ClientID(device), At: time.Now()}
	r := &kgo.Record{Topic: w.topic, Key: []byte(c.Key), Value: w.payload(c), Headers: headers, Timestamp: c.At}
	// Under the lock, so that a device's commands are produced in their order. Produce does not block below
	// MaxBufferedRecords, and the promise runs on another goroutine.
	w.client.Produce(context.Background(), r, func(r *kgo.Record, err error) { w.stored(c, r, err) })
	w.mu.Unlock()
}

func (w *CommandWriter) payload(c Command) []byte {
	b := fmt.Appendf(make([]byte, 0, w.Size), "%s %d %d %d ", w.fleet.Run, c.Device, c.Seq, c.At.UnixNano())
	for len(b) < w.Size {
		b = append(b, 'x')
	}
	return b
}

func (w *CommandWriter) stored(c Command, r *kgo.Record, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.errs = append(w.errs, fmt.Errorf("command %d of device %d: %w", c.Seq, c.Device, err))
		return
	}
	c.Topic, c.Partition, c.Offset, c.Stored = r.Topic, r.Partition, r.Offset, time.Since(c.At)
	w.written = append(w.written, c)
}

// Flush waits until Kafka has answered for everything, and gives what failed.
func (w *CommandWriter) Flush(ctx context.Context) error {
	if err := w.client.Flush(ctx); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.errs...)
}

// Stream writes commands at a rate a second to the devices in turn until ctx ends, without a wait for the last.
func (w *CommandWriter) Stream(ctx context.Context, rate int, devices []int, headers ...kgo.RecordHeader) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	start := time.Now()
	for n := 0; ; {
		for due := int(time.Since(start).Seconds() * float64(rate)); n < due; n++ {
			if len(devices) > 0 {
				w.Write(devices[n%len(devices)], headers...)
			} else {
				w.Write(n%len(w.seq), headers...)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Written gives the commands that Kafka acknowledged so far, of the devices that pick says; nil: of all.
func (w *CommandWriter) Written(pick func(device int) bool) (picked []Command) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.written {
		if pick == nil || pick(c.Device) {
			picked = append(picked, c)
		}
	}
	return picked
}
