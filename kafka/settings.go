package kafka

import (
	"sync"
	"time"

	"github.com/IBM/sarama"
	gometrics "github.com/rcrowley/go-metrics"
)

var codecs = map[string]sarama.CompressionCodec{
	"none":   sarama.CompressionNone,
	"gzip":   sarama.CompressionGZIP,
	"snappy": sarama.CompressionSnappy,
	"lz4":    sarama.CompressionLZ4,
	"zstd":   sarama.CompressionZSTD,
}

const (
	// maxInFlight is how many records of one partition sarama holds at most. sarama's channels are a little
	// longer, so that no record ever waits in front of one: a partition that is stuck would otherwise fill its
	// own channel, then its topic's, then the one all topics share. It also limits what one partition takes a
	// second: 40 000 records with 256, 140 000 with 1024, 270 000 with 4096, which costs 24 KiB more for each
	// partition (DESIGN.md).
	maxInFlight = 1024
	// channelSlack is room for sarama's own markers in those channels.
	channelSlack = 8

	// retryTime is how long sarama tries while a partition has a leader that can't store. While a partition has no
	// leader nothing counts as a try: see laneClient.Leader. Each partition holds 32 bytes for each retry, so more of
	// them at shorter intervals cost memory.
	retryTime  = 10 * time.Minute
	minBackoff = 50 * time.Millisecond
)

// quietMetrics turns off sarama's own metrics, which cost CPU time for every record. The switch is a variable
// of a library, so it is thrown once and never back.
var quietMetrics = sync.OnceFunc(func() { gometrics.UseNilMetrics = true })

// base is what the clients of producer and admin have in common.
func (c Config) base(d *dialer) *sarama.Config {
	quietMetrics()
	s := sarama.NewConfig()
	s.ClientID = c.ClientID
	s.Version = sarama.MaxVersion // an upper bound: each broker is asked what it knows
	s.Net.Proxy.Enable, s.Net.Proxy.Dialer = true, d
	s.Net.DialTimeout = c.DialTimeout
	s.Net.ReadTimeout = c.RequestTimeout + c.RequestTimeout/2
	s.Net.WriteTimeout = c.RequestTimeout
	s.Metadata.Full = false
	s.Metadata.AllowAutoTopicCreation = false
	s.Metadata.Retry.Max = 0 // laneClient asks again, for one topic at a time
	s.Metadata.RefreshFrequency = 5 * time.Minute
	d.tls = c.Security.TLS
	c.Security.apply(s)
	return s
}

// producer is base for an idempotent producer. skip says whether to leave out a wait before the next try.
func (c Config) producer(d *dialer, skip func() bool) *sarama.Config {
	s := c.base(d)
	s.Net.MaxOpenRequests = 1
	s.ChannelBufferSize = maxInFlight + channelSlack
	s.Producer.RequiredAcks = sarama.WaitForAll
	s.Producer.Idempotent = true
	s.Producer.Timeout = c.RequestTimeout
	s.Producer.Return.Successes = true
	s.Producer.Return.Errors = true
	s.Producer.Compression = codecs[c.Compression]
	s.Producer.Flush.Frequency = c.Linger
	s.Producer.Partitioner = sarama.NewManualPartitioner // the partition is chosen in topic.choose
	s.Producer.MaxMessageBytes = int(sarama.MaxRequestSize) - 1
	s.Producer.Retry.Max = int(retryTime / c.MaxBackoff)
	s.Producer.Retry.BackoffFunc = func(retries, _ int) time.Duration { return backoff(retries, c.MaxBackoff, skip) }
	s.Producer.Transaction.Retry.Max = 2 // of InitProducerId; openLane asks again
	s.Producer.Transaction.Retry.BackoffFunc = s.Producer.Retry.BackoffFunc
	return s
}

// backoff doubles from minBackoff to most.
func backoff(retries int, most time.Duration, skip func() bool) time.Duration {
	if skip() {
		return 0
	}
	return min(minBackoff<<min(max(retries-1, 0), 10), most)
}
