package proxy

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/rs/zerolog"

	"sluice/kafka"
	"sluice/mqtt"
)

// A Receipt is the value of a receipt record, as JSON: what became of a command at one device.
type Receipt struct {
	// Topic, Partition and Offset are those of the command's record.
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	// Key of the command's record; in base64 under the second name if it is not UTF-8. Neither: no key, or one of
	// more than 4096 bytes, which is then only the key of the receipt's record.
	Key       *string `json:"key,omitempty"`
	KeyBase64 string  `json:"key_base64,omitempty"`
	// ClientID of the device; missing if the command was not for one device alone and ended before it had any.
	ClientID string `json:"client_id,omitempty"`
	// Outcome is delivered, sent, expired, cancelled, rejected, offline or dropped.
	Outcome string `json:"outcome"`
	// Code is the device's MQTT 5 Reason Code if it is not 0, with rejected and delivered.
	Code int `json:"code,omitempty"`
	// Reason says why, with offline and dropped.
	Reason string `json:"reason,omitempty"`
	// CorrelationData of the command; in base64 under the second name if it is not UTF-8.
	CorrelationData       *string `json:"correlation_data,omitempty"`
	CorrelationDataBase64 string  `json:"correlation_data_base64,omitempty"`
	// Instance is the process that wrote the receipt.
	Instance string `json:"instance"`
	// Milliseconds from the timestamp of the command's record to the outcome.
	Milliseconds int64 `json:"milliseconds"`
}

const (
	// receiptBytes is the memory of a receipt in flight as most are, which must be there before a command is sent.
	receiptBytes = 2048
	// receiptOverhead is that of one beside its key and value.
	receiptOverhead = 1536
)

// receipts writes receipts to Kafka.
type receipts struct {
	producer *kafka.Producer
	instance string
	m        *commandMetrics
	log      zerolog.Logger
	ended    atomic.Int64 // receipts that the end of the producer left without an answer
}

// write produces the receipt of c. It does not block.
func (w *receipts) write(c *command, clientID string, fate mqtt.Fate, code mqtt.Code, reason string) {
	now := time.Now()
	value, err := json.Marshal(receiptOf(c, clientID, fate, code, reason, w.instance, now))
	if err != nil {
		w.lost(err)
		return
	}
	size := receiptOverhead + len(c.key) + len(value)
	w.producer.Budget().Take(c.receiptRoom(), size)
	w.producer.Produce(&kafka.Record{Topic: c.settings.Receipts, Key: c.key, Value: value, Timestamp: now,
		Reserved: size, ReservedFor: c.receiptRoom(), Owner: w})
}

// receiptRoom is what the memory of the receipts of c is taken for.
func (c *command) receiptRoom() kafka.Destination {
	return kafka.Destination{Topic: c.settings.Receipts, Partition: kafka.AnyPartition}
}

func receiptOf(c *command, clientID string, fate mqtt.Fate, code mqtt.Code, reason, instance string, now time.Time) *Receipt {
	r := &Receipt{
		Topic: c.topic, Partition: c.partition, Offset: c.offset, ClientID: clientID, Outcome: fate.String(),
		Code: int(code), Reason: reason, Instance: instance, Milliseconds: now.Sub(c.written).Milliseconds(),
	}
	r.Key, r.KeyBase64 = text(c.key)
	r.CorrelationData, r.CorrelationDataBase64 = text(c.CorrelationData)
	return r
}

// repeatedBytes is the longest key and the longest correlation data that a receipt repeats: one command may have
// ten thousand receipts, and the place of its record names it as well.
const repeatedBytes = 4 << 10

// text gives b as it stands if JSON can hold it, else in base64, and nothing if it is long.
func text(b []byte) (plain *string, inBase64 string) {
	switch {
	case b == nil, len(b) > repeatedBytes:
		return nil, ""
	case utf8.Valid(b):
		s := string(b)
		return &s, ""
	}
	return nil, base64.StdEncoding.EncodeToString(b)
}

// RecordDone counts what became of a receipt.
func (w *receipts) RecordDone(_ *kafka.Record, err error) {
	if err == nil {
		w.m.receiptsStored.Inc()
		return
	}
	w.lost(err)
}

func (w *receipts) lost(err error) {
	w.m.receiptsLost.Inc()
	if errors.Is(err, kafka.ErrClosed) {
		w.ended.Add(1) // said once, for all
		return
	}
	w.log.Error().Err(err).Msg("cannot store a receipt")
}

// atEnd says how many receipts are not stored because the process stops.
func (w *receipts) atEnd() error {
	if n := w.ended.Load(); n > 0 {
		return fmt.Errorf("stopped without the receipts of %d outcomes", n)
	}
	return nil
}
