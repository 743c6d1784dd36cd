// Command bareproducer is what the proxy is measured against: sarama's AsyncProducer alone, with the proxy's settings,
// the same keys, headers and number of unacknowledged messages, and no MQTT in front. It prints one line of JSON.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/IBM/sarama"
	"github.com/rcrowley/go-metrics"
)

type options struct {
	brokers, topic, compression string
	keys, window, size, rate    int
	duration, linger            time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.brokers, "brokers", "127.0.0.1:9092", "brokers")
	flag.StringVar(&o.topic, "topic", "", "Kafka topic")
	flag.StringVar(&o.compression, "compression", "lz4", "lz4, zstd, snappy, gzip or none")
	flag.IntVar(&o.keys, "keys", 50, "different keys")
	flag.IntVar(&o.window, "window", 1000, "unacknowledged messages in all")
	flag.IntVar(&o.size, "size", 256, "payload bytes")
	flag.IntVar(&o.rate, "rate", 0, "messages a second; 0: as fast as they are acknowledged")
	flag.DurationVar(&o.duration, "duration", 8*time.Second, "how long")
	flag.DurationVar(&o.linger, "linger", 5*time.Millisecond, "Flush.Frequency")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func config(o options) (*sarama.Config, error) {
	metrics.UseNilMetrics = true
	c := sarama.NewConfig()
	c.Version = sarama.MaxVersion
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Idempotent = true
	c.Net.MaxOpenRequests = 1
	c.Producer.Partitioner = sarama.NewMurmur2Partitioner
	c.Producer.Return.Successes = true
	c.Producer.Retry.Max = 300
	c.Producer.Flush.Frequency = o.linger
	return c, c.Producer.Compression.UnmarshalText([]byte(o.compression))
}

func run(o options) error {
	c, err := config(o)
	if err != nil {
		return err
	}
	p, err := sarama.NewAsyncProducer(strings.Split(o.brokers, ","), c)
	if err != nil {
		return err
	}
	room := make(chan struct{}, o.window)
	done := make(chan []time.Duration)
	failed := make(chan error, 1)
	go func() { // ends when the producer is closed
		for e := range p.Errors() {
			select {
			case failed <- e:
			default:
			}
			<-room
		}
	}()
	go func() { // ends when the producer is closed
		var latency []time.Duration
		for m := range p.Successes() {
			latency = append(latency, time.Since(m.Timestamp))
			<-room
		}
		done <- latency
	}()
	cpu, start := cpuTime(), time.Now()
	feed(p, o, room, start)
	p.AsyncClose()
	latency := <-done
	select {
	case err := <-failed:
		return err
	default:
	}
	return report(latency, cpuTime()-cpu, time.Since(start))
}

// feed sends until the time is over.
func feed(p sarama.AsyncProducer, o options, room chan struct{}, start time.Time) {
	var pace <-chan time.Time
	if o.rate > 0 {
		t := time.NewTicker(time.Second / time.Duration(o.rate))
		defer t.Stop()
		pace = t.C
	}
	for i := 0; time.Since(start) < o.duration; i++ {
		if pace != nil {
			<-pace
		}
		room <- struct{}{}
		key := fmt.Sprintf("%d", i%o.keys)
		value := make([]byte, o.size)
		for k := copy(value, fmt.Sprintf("bare %s %d ", key, i/o.keys)); k < len(value); k++ {
			value[k] = 'x'
		}
		p.Input() <- &sarama.ProducerMessage{Topic: o.topic, Key: sarama.StringEncoder(key), Value: sarama.ByteEncoder(value), Headers: headers(key), Timestamp: time.Now()}
	}
}

// headers are those of a message of a device with this key.
func headers(key string) []sarama.RecordHeader {
	return []sarama.RecordHeader{
		{Key: []byte("mqtt.topic"), Value: []byte("devices/" + key + "/telemetry/load")},
		{Key: []byte("mqtt.client_id"), Value: []byte("load-rxxxxxxxx-" + key)},
		{Key: []byte("mqtt.qos"), Value: []byte("1")},
		{Key: []byte("metric"), Value: []byte("load")},
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func report(latency []time.Duration, cpu, elapsed time.Duration) error {
	if len(latency) == 0 {
		return fmt.Errorf("nothing was acknowledged")
	}
	slices.Sort(latency)
	at := func(q float64) float64 { return latency[int(q*float64(len(latency)-1))].Seconds() * 1000 }
	return json.NewEncoder(os.Stdout).Encode(map[string]float64{
		"acked":          float64(len(latency)),
		"per_second":     float64(len(latency)) / elapsed.Seconds(),
		"cpu_us_per_msg": cpu.Seconds() * 1e6 / float64(len(latency)),
		"ms_p50":         at(.5), "ms_p99": at(.99),
	})
}
