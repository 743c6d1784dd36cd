package produce

import "strconv"

// A Code is Kafka's error code for one partition of a Produce request.
type Code int16

// The codes that have a meaning of their own here. Any other is one that nothing is known of.
const (
	UnknownServerError          Code = -1
	None                        Code = 0
	CorruptMessage              Code = 2
	UnknownTopicOrPartition     Code = 3
	LeaderNotAvailable          Code = 5
	NotLeaderOrFollower         Code = 6
	RequestTimedOut             Code = 7
	MessageTooLarge             Code = 10
	NetworkException            Code = 13
	InvalidTopic                Code = 17
	RecordListTooLarge          Code = 18
	NotEnoughReplicas           Code = 19
	NotEnoughReplicasAfter      Code = 20
	TopicAuthorizationFailed    Code = 29
	ClusterAuthorizationFailed  Code = 31
	InvalidTimestamp            Code = 32
	UnsupportedForMessageFormat Code = 43
	PolicyViolation             Code = 44
	OutOfOrderSequence          Code = 45
	DuplicateSequence           Code = 46
	InvalidProducerEpoch        Code = 47
	KafkaStorageError           Code = 56
	UnknownProducerID           Code = 59
	FencedLeaderEpoch           Code = 74
	UnknownLeaderEpoch          Code = 75
	UnsupportedCompressionType  Code = 76
	InvalidRecord               Code = 87
	ThrottlingQuotaExceeded     Code = 89
)

var names = map[Code]string{
	UnknownServerError:          "UNKNOWN_SERVER_ERROR",
	None:                        "NONE",
	CorruptMessage:              "CORRUPT_MESSAGE",
	UnknownTopicOrPartition:     "UNKNOWN_TOPIC_OR_PARTITION",
	LeaderNotAvailable:          "LEADER_NOT_AVAILABLE",
	NotLeaderOrFollower:         "NOT_LEADER_OR_FOLLOWER",
	RequestTimedOut:             "REQUEST_TIMED_OUT",
	MessageTooLarge:             "MESSAGE_TOO_LARGE",
	NetworkException:            "NETWORK_EXCEPTION",
	InvalidTopic:                "INVALID_TOPIC_EXCEPTION",
	RecordListTooLarge:          "RECORD_LIST_TOO_LARGE",
	NotEnoughReplicas:           "NOT_ENOUGH_REPLICAS",
	NotEnoughReplicasAfter:      "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
	TopicAuthorizationFailed:    "TOPIC_AUTHORIZATION_FAILED",
	ClusterAuthorizationFailed:  "CLUSTER_AUTHORIZATION_FAILED",
	InvalidTimestamp:            "INVALID_TIMESTAMP",
	UnsupportedForMessageFormat: "UNSUPPORTED_FOR_MESSAGE_FORMAT",
	PolicyViolation:             "POLICY_VIOLATION",
	OutOfOrderSequence:          "OUT_OF_ORDER_SEQUENCE_NUMBER",
	DuplicateSequence:           "DUPLICATE_SEQUENCE_NUMBER",
	InvalidProducerEpoch:        "INVALID_PRODUCER_EPOCH",
	KafkaStorageError:           "KAFKA_STORAGE_ERROR",
	UnknownProducerID:           "UNKNOWN_PRODUCER_ID",
	FencedLeaderEpoch:           "FENCED_LEADER_EPOCH",
	UnknownLeaderEpoch:          "UNKNOWN_LEADER_EPOCH",
	UnsupportedCompressionType:  "UNSUPPORTED_COMPRESSION_TYPE",
	InvalidRecord:               "INVALID_RECORD",
	ThrottlingQuotaExceeded:     "THROTTLING_QUOTA_EXCEEDED",
}

// String returns Kafka's name of the code, or its number.
func (c Code) String() string {
	if name, ok := names[c]; ok {
		return name
	}
	return "CODE_" + strconv.Itoa(int(c))
}
