//go:build unix

package kafka

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
)

// cpu is the processor time of this process.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

const (
	benchWindow = 1000 // records not acknowledged, in all
	benchLinger = 5 * time.Millisecond
)

// window is an Owner that gives records back for the next use.
type window chan *Record

func (w window) RecordDone(r *Record, err error) {
	if err != nil {
		panic(err)
	}
	w <- r
}

func newWindow(n int) window {
	w := make(window, n)
	for range n {
		w <- &Record{Value: make([]byte, 256), Headers: benchHeaders, Owner: w}
	}
	return w
}

func benchKeys() (keys [50][]byte) {
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "load-bare-%d", i)
	}
	return keys
}

// BenchmarkProduce measures the Producer, from Produce to RecordDone, with the broker in another process.
// Compare with BenchmarkBareSarama, interleaved: -bench 'Produce|Bare' -count 6.
func BenchmarkProduce(b *testing.B) {
	for _, topic := range []string{"bench", "single"} {
		b.Run(topic, func(b *testing.B) { benchProduce(b, topic) })
	}
}

func benchProduce(b *testing.B, topic string) {
	p, err := NewProducer(Config{Brokers: externalBroker(b), Compression: "lz4", Linger: benchLinger})
	require.NoError(b, err)
	done := make(chan struct{})
	go func() { _ = p.Run(context.Background()); close(done) }() // ends with Close
	w, keys := newWindow(benchWindow), benchKeys()
	send := func(n int) {
		for i := range n {
			r := <-w
			r.Topic, r.Key, r.Timestamp = topic, keys[i%len(keys)], time.Now()
			p.Produce(r)
		}
	}
	send(2 * benchWindow)
	b.ReportAllocs()
	b.ResetTimer()
	c0 := cpu()
	send(b.N)
	b.StopTimer()
	require.NoError(b, p.Close(context.Background()))
	<-done
	b.ReportMetric(float64(cpu()-c0)/float64(b.N)/1e3, "cpu-µs/op")
}

// BenchmarkBareSarama is sarama's AsyncProducer with the same settings, its messages used again too.
func BenchmarkBareSarama(b *testing.B) {
	for _, topic := range []string{"bench", "single"} {
		b.Run(topic, func(b *testing.B) { benchBare(b, topic) })
	}
}

func benchBare(b *testing.B, topic string) {
	brokers := externalBroker(b)
	c, err := Config{Brokers: brokers, Compression: "lz4"}.withDefaults()
	require.NoError(b, err)
	conf := c.base(newDialer(c.DialTimeout))
	conf.Net.MaxOpenRequests = 1
	conf.Producer.RequiredAcks, conf.Producer.Idempotent = sarama.WaitForAll, true
	conf.Producer.Return.Successes, conf.Producer.Return.Errors = true, true
	conf.Producer.Compression, conf.Producer.Flush.Frequency = sarama.CompressionLZ4, benchLinger
	conf.Producer.Partitioner = sarama.NewMurmur2Partitioner
	p, err := sarama.NewAsyncProducer(brokers, conf)
	require.NoError(b, err)
	w := make(chan *sarama.ProducerMessage, benchWindow)
	for range benchWindow {
		m := &sarama.ProducerMessage{Value: sarama.ByteEncoder(make([]byte, 256))}
		for _, h := range benchHeaders {
			m.Headers = append(m.Headers, sarama.RecordHeader(h))
		}
		w <- m
	}
	drained := make(chan struct{})
	go func() { // ends with Close
		defer close(drained)
		for m := range p.Successes() {
			w <- m
		}
	}()
	go func() { // ends with Close
		for err := range p.Errors() {
			panic(err)
		}
	}()
	keys := benchKeys()
	send := func(n int) {
		for i := range n {
			m := <-w
			m.Topic, m.Key, m.Timestamp = topic, sarama.ByteEncoder(keys[i%len(keys)]), time.Now()
			p.Input() <- m
		}
	}
	send(2 * benchWindow)
	b.ReportAllocs()
	b.ResetTimer()
	c0 := cpu()
	send(b.N)
	b.StopTimer()
	p.AsyncClose()
	<-drained
	b.ReportMetric(float64(cpu()-c0)/float64(b.N)/1e3, "cpu-µs/op")
}
