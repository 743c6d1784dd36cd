package embedded

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A Header is one header of a record.
type Header struct {
	Key   string
	Value []byte
}

// A Record is one that landed.
type Record struct {
	Topic     string
	Partition int32
	Offset    int64
	Key       []byte // nil: none
	Value     []byte
	Headers   []Header
	Timestamp time.Time
}

// findTopics is how often Tail looks for new topics.
const findTopics = 200 * time.Millisecond

// Tail calls f for every record, in the order of its partition, from the first that the cluster has, until ctx
// ends; it returns the error of ctx. Topics that are made meanwhile are found within a moment and read from
// their beginning. f is called from one goroutine.
func (c *Cluster) Tail(ctx context.Context, f func(Record)) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(c.Brokers()...),
		kgo.ConsumeRegex(), kgo.ConsumeTopics(`.*`),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.MetadataMinAge(findTopics/2), kgo.MetadataMaxAge(findTopics),
		kgo.FetchMaxWait(findTopics),
	)
	if err != nil {
		return fmt.Errorf("cannot read the embedded Kafka: %w", err)
	}
	defer client.Close()
	for ctx.Err() == nil {
		client.PollFetches(ctx).EachRecord(func(r *kgo.Record) { f(recordOf(r)) })
	}
	return ctx.Err()
}

func recordOf(r *kgo.Record) Record {
	headers := make([]Header, len(r.Headers))
	for i, h := range r.Headers {
		headers[i] = Header(h)
	}
	return Record{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: r.Key, Value: r.Value,
		Headers: headers, Timestamp: r.Timestamp}
}
