package kafka

import (
	"errors"
	"fmt"
	"strings"

	"github.com/IBM/sarama"
)

// What a record or an administrative request can fail with; test with errors.Is.
var (
	// ErrTooLarge: the record is larger than its topic takes.
	ErrTooLarge = errors.New("record is larger than its Kafka topic takes")
	// ErrTopicMissing: the topic does not exist and nothing may create it.
	ErrTopicMissing = errors.New("the Kafka topic does not exist")
	// ErrNotAuthorized: the cluster does not let this principal do what it was asked for. The text names the operation
	// that the principal needs an ACL for.
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
// given for it. For any other error, and for nil, Final is false.
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

// denied makes an ErrNotAuthorized of what the cluster says to a principal that lacks the right to an operation, as the
// cluster's ACLs name it. Another err stays as it is.
func denied(operation string, err error) error {
	switch kerror(err) {
	case sarama.ErrTopicAuthorizationFailed, sarama.ErrClusterAuthorizationFailed,
		sarama.ErrGroupAuthorizationFailed, sarama.ErrTransactionalIDAuthorizationFailed:
		return fmt.Errorf("%w (operation %s): %w", ErrNotAuthorized, operation, err)
	}
	return err
}

// topicVerdict maps what the cluster says of a topic when an operation is tried to a final error; nil: ask again.
func topicVerdict(operation string, err error) error {
	switch kerror(err) {
	case sarama.ErrTopicAuthorizationFailed, sarama.ErrClusterAuthorizationFailed:
		return denied(operation, err)
	case sarama.ErrInvalidTopic:
		return fmt.Errorf("%w: %w", ErrInvalidRecord, err)
	case sarama.ErrPolicyViolation, sarama.ErrInvalidPartitions, sarama.ErrInvalidConfig:
		return fmt.Errorf("%w, and can't be created: %w", ErrTopicMissing, err)
	}
	return nil
}

// recordVerdict maps what Kafka says of records that it refuses to a final error.
func recordVerdict(err sarama.KError) error {
	switch err {
	case sarama.ErrMessageSizeTooLarge, sarama.ErrMessageSetSizeTooLarge:
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	case sarama.ErrInvalidRecord:
		return fmt.Errorf("%w: %w", ErrInvalidRecord, err)
	case sarama.ErrTopicAuthorizationFailed, sarama.ErrClusterAuthorizationFailed, sarama.ErrInvalidTopic:
		return topicVerdict("Write", err)
	}
	return fmt.Errorf("%w: %w", ErrUncertain, err)
}

// kerror gives the protocol's error in err, or ErrNoError.
func kerror(err error) sarama.KError {
	var k sarama.KError
	if errors.As(err, &k) {
		return k
	}
	return sarama.ErrNoError
}
