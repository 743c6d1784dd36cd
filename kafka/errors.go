package kafka

import (
	"errors"
	"strings"
)

// What a record or an administrative request can fail with; test with errors.Is.
var (
	// ErrTooLarge: the record is larger than its topic takes.
	ErrTooLarge = errors.New("record is larger than its Kafka topic takes")
	// ErrTopicMissing: the topic does not exist and nothing may create it.
	ErrTopicMissing = errors.New("Kafka topic does not exist")
	// ErrNotAuthorized: the cluster does not let this principal write to, or create, the topic.
	ErrNotAuthorized = errors.New("not authorized by Kafka")
	// ErrInvalidRecord: the cluster can't take this record whatever happens, e.g. a record without a key for
	// a compacted topic, or an illegal topic name.
	ErrInvalidRecord = errors.New("record is not valid for its Kafka topic")
	// ErrClosed: the producer was closed before Kafka answered for the record.
	ErrClosed = errors.New("producer is closed")
	// ErrUncertain: Kafka did not say whether the record is stored.
	ErrUncertain = errors.New("unknown whether Kafka stored the record")
)

// Final says whether err is a verdict: the same record can never be stored, so a negative answer may be
// given for it. For any other error, nil included, Final is false.
func Final(err error) bool {
	return errors.Is(err, ErrTooLarge) || errors.Is(err, ErrTopicMissing) ||
		errors.Is(err, ErrNotAuthorized) || errors.Is(err, ErrInvalidRecord)
}

// A MissingTopicsError names every topic that does not exist and must not be created. It is an ErrTopicMissing.
type MissingTopicsError struct{ Topics []string }

// Error names the topics.
func (e *MissingTopicsError) Error() string {
	return "Kafka topics do not exist: " + strings.Join(e.Topics, ", ")
}

// Is makes a MissingTopicsError an ErrTopicMissing.
func (e *MissingTopicsError) Is(target error) bool { return target == ErrTopicMissing }
