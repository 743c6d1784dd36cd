package load

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A Receipt is what became of a command for one device, as Kafka holds it.
type Receipt struct {
	Topic                 string  `json:"topic"`
	Partition             int32   `json:"partition"`
	Offset                int64   `json:"offset"`
	Key                   *string `json:"key"`
	KeyBase64             []byte  `json:"key_base64"`
	ClientID              string  `json:"client_id"`
	Outcome               string  `json:"outcome"`
	Code                  int     `json:"code"`
	Reason                string  `json:"reason"`
	CorrelationData       *string `json:"correlation_data"`
	CorrelationDataBase64 []byte  `json:"correlation_data_base64"`
	Instance              string  `json:"instance"`
	Milliseconds          int64   `json:"milliseconds"`

	RecordKey []byte `json:"-"`
}

// position names the command of a receipt and the device.
type position struct {
	topic     string
	partition int32
	offset    int64
	clientID  string
}

// Receipts follows a Kafka topic of receipts from its start.
type Receipts struct {
	client *kgo.Client
	ended  chan struct{}

	mu   sync.Mutex
	all  []Receipt
	errs []error
}

// FollowReceipts begins to read; Close ends it.
func FollowReceipts(brokers []string, topic string) (*Receipts, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		return nil, err
	}
	r := &Receipts{client: client, ended: make(chan struct{})}
	go r.follow() // ends with Close
	return r, nil
}

// Close ends the reading.
func (r *Receipts) Close() {
	r.client.Close()
	<-r.ended
}

func (r *Receipts) follow() {
	defer close(r.ended)
	for {
		fetches := r.client.PollFetches(context.Background())
		if fetches.IsClientClosed() {
			return
		}
		r.mu.Lock()
		fetches.EachRecord(r.read)
		r.mu.Unlock()
	}
}

// read is called under the lock. A field that the contract does not know is an error.
func (r *Receipts) read(record *kgo.Record) {
	one := Receipt{RecordKey: record.Key}
	d := json.NewDecoder(bytes.NewReader(record.Value))
	d.DisallowUnknownFields()
	if err := d.Decode(&one); err != nil {
		r.errs = append(r.errs, fmt.Errorf("receipt %q: %w", record.Value, err))
		return
	}
	if one.Key != nil && *one.Key != string(record.Key) || one.Key == nil && string(one.KeyBase64) != string(record.Key) {
		r.errs = append(r.errs, fmt.Errorf("receipt %q has the record key %q", record.Value, record.Key))
	}
	r.all = append(r.all, one)
}

// All gives the receipts so far, in the order they were read.
func (r *Receipts) All() []Receipt {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

// Errors gives what could not be read as a receipt.
func (r *Receipts) Errors() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.errs)
}

// A ReceiptReport compares receipts with commands.
type ReceiptReport struct {
	Missing  int            // commands without one for their device
	Twice    int            // receipts beyond the first of a command and device
	Strange  int            // receipts of none of the commands
	Outcomes map[string]int // of the commands, the first receipt of each
}

// String gives the report in one line.
func (r ReceiptReport) String() string {
	s := fmt.Sprintf("receipts: %d missing, %d twice, %d strange", r.Missing, r.Twice, r.Strange)
	for _, o := range slices.Sorted(maps.Keys(r.Outcomes)) {
		s += fmt.Sprintf(", %d %s", r.Outcomes[o], o)
	}
	return s
}

// Report compares the receipts so far with commands that are each for the one device they name.
func (r *Receipts) Report(commands []Command) ReceiptReport {
	report := ReceiptReport{Outcomes: make(map[string]int)}
	count := make(map[position]int)
	outcome := make(map[position]string)
	for _, one := range r.All() {
		p := position{one.Topic, one.Partition, one.Offset, one.ClientID}
		if count[p]++; count[p] == 1 {
			outcome[p] = one.Outcome
		}
	}
	total := 0
	for _, c := range commands {
		p := position{c.Topic, c.Partition, c.Offset, c.Key}
		n := count[p]
		total += n
		switch {
		case n == 0:
			report.Missing++
			continue
		case n > 1:
			report.Twice += n - 1
		}
		report.Outcomes[outcome[p]]++
	}
	report.Strange = len(r.All()) - total
	return report
}
