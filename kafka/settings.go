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
	s.Metadata.Retry.Max = 0 // who asks waits, and asks again
	s.Metadata.RefreshFrequency = 5 * time.Minute
	d.tls = c.Security.TLS
	c.Security.apply(s)
	return s
}
