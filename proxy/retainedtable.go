package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/rs/zerolog"

	"sluice/kafka"
	"sluice/mqtt"
	"sluice/topicmap"
)

// headerVersion says by which version of this contract a record of our own topics is written.
var (
	headerVersion = []byte("sluice.v")
	valueVersion  = []byte("1")
)

// isReserved says whether only the proxy may set a header of this name.
func isReserved(name []byte) bool {
	return bytes.HasPrefix(name, reservedPrefixes[0]) || bytes.HasPrefix(name, reservedPrefixes[1])
}

// errNewerVersion: the record was written by a version of Sluice that says more than this one understands.
var errNewerVersion = errors.New("the record is of a newer version")

// A retainedTable fills the index of retained messages from their Kafka topic.
type retainedTable struct {
	index *mqtt.Retained
	m     *retainedMetrics
	log   zerolog.Logger // sampled: records can trigger these lines
}

func newRetainedTable(index *mqtt.Retained, m *retainedMetrics, log zerolog.Logger) *retainedTable {
	return &retainedTable{index: index, m: m, log: log.Sample(&zerolog.BurstSampler{Burst: 5, Period: time.Second})}
}

// handle takes one record. It may be called for several partitions at once, in the order of each.
func (t *retainedTable) handle(r *kafka.Fetched) {
	if r.Value == nil {
		t.index.Delete(r.Key)
		t.m.read[readDeleted].Inc()
		return
	}
	tr := translations.Get().(*translation)
	defer tr.free()
	m, err := retainedFrom(r, tr)
	if err == nil {
		err = t.index.Set(&m)
	}
	switch {
	case err == nil:
		t.m.read[readSet].Inc()
		return
	case errors.Is(err, errNewerVersion):
		t.m.read[readNewer].Inc()
	default:
		t.m.read[readInvalid].Inc()
	}
	t.index.Delete(r.Key) // what it replaced is not the message of this topic any more
	t.log.Warn().Err(err).Str("kafka_topic", r.Topic).Int32("partition", r.Partition).Int64("offset", r.Offset).
		Msg("a record is no retained message for this version; its topic has none here")
}

// retainedFrom reads a retained message, which shares its memory with r and tr.
func retainedFrom(r *kafka.Fetched, tr *translation) (m mqtt.RetainedMessage, err error) {
	if err := checkVersion(r.Headers); err != nil {
		return m, err
	}
	if err := topicmap.LegalMQTTTopic(r.Key); err != nil {
		return m, fmt.Errorf("the key is no topic name: %w", err)
	}
	tr.read(r)
	tr.properties(r)
	said := &tr.said
	m = mqtt.RetainedMessage{
		Topic: r.Key, Payload: r.Value, ContentType: said.contentType, ResponseTopic: said.responseTopic,
		CorrelationData: said.correlationData, User: tr.user, ClientID: string(said.clientID),
		Place: mqtt.Place{Stream: -1 - r.Partition, Offset: r.Offset},
	}
	if m.QoS, err = qosOf(said.qos); err != nil {
		return m, err
	}
	if m.PayloadFormat, err = formatOf(said.format); err != nil {
		return m, err
	}
	if m.Expires, err = expiryOf(said.expiry, r.Timestamp); err != nil {
		return m, err
	}
	return m, checkRetained(&m)
}

// checkVersion holds a record to the version that it says, 1 if it says none.
func checkVersion(headers []kafka.Header) error {
	for _, h := range headers {
		if !bytes.Equal(h.Key, headerVersion) {
			continue
		}
		v, err := strconv.ParseUint(string(h.Value), 10, 32)
		switch {
		case err != nil || v == 0:
			return errors.New("the header sluice.v is no number from 1")
		case v > 1:
			return fmt.Errorf("%w: %d", errNewerVersion, v)
		}
		return nil
	}
	return nil
}

func qosOf(b []byte) (byte, error) {
	switch {
	case b == nil:
		return 0, nil
	case len(b) != 1 || b[0] < '0' || b[0] > '2':
		return 0, errors.New("mqtt.qos is not 0, 1 or 2")
	}
	return b[0] - '0', nil
}

func formatOf(b []byte) (mqtt.PayloadFormat, error) {
	switch {
	case b == nil:
		return mqtt.FormatAbsent, nil
	case len(b) != 1 || b[0] != '0' && b[0] != '1':
		return mqtt.FormatAbsent, errors.New("mqtt.payload_format is not 0 or 1")
	}
	return mqtt.FormatBytes + mqtt.PayloadFormat(b[0]-'0'), nil
}

var errNoResponseTopic = errors.New("mqtt.response_topic is no UTF-8 string of at most 65535 bytes without wildcards")

// legalResponseTopic takes what a device may send [MQTT-3.3.2-14], so also the empty string: a message that was
// acknowledged is passed on.
func legalResponseTopic(b []byte) bool {
	return len(b) <= math.MaxUint16 && mqtt.ValidString(b) && !bytes.ContainsAny(b, "+#")
}

// expiryOf counts from the record's timestamp: a message is not younger because it was read again.
func expiryOf(b []byte, written time.Time) (time.Time, error) {
	if b == nil {
		return time.Time{}, nil
	}
	seconds, err := strconv.ParseUint(string(b), 10, 32)
	if err != nil {
		return time.Time{}, errors.New("mqtt.expiry is no number of seconds from 0 to 4294967295")
	}
	if written.UnixMilli() <= 0 {
		written = time.Now() // the record has none
	}
	return written.Add(time.Duration(seconds) * time.Second), nil
}

// checkRetained holds what is sent to devices to the specification: others may write to the topic too.
func checkRetained(m *mqtt.RetainedMessage) error {
	switch {
	case len(m.ContentType) > math.MaxUint16 || !mqtt.ValidString(m.ContentType):
		return errors.New("mqtt.content_type is no UTF-8 string of at most 65535 bytes")
	case !legalResponseTopic(m.ResponseTopic):
		return errNoResponseTopic
	case len(m.CorrelationData) > math.MaxUint16:
		return errors.New("mqtt.correlation_data is longer than 65535 bytes")
	}
	return nil
}
