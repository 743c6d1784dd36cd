//go:build unix

// Command bareproducer is what the proxy is measured against: a Kafka client's producer alone, sarama's AsyncProducer or
// franz-go's, with the proxy's settings, the same keys, headers and number of unacknowledged messages, and no MQTT in
// front. It prints one line of JSON. test/performance has librdkafka's.
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
)

type options struct {
	client, brokers, topic, compression string
	keys, window, size, rate            int
	duration, linger                    time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.client, "client", "sarama", "whose producer: sarama or franz-go")
	flag.StringVar(&o.brokers, "brokers", "127.0.0.1:9092", "brokers")
	flag.StringVar(&o.topic, "topic", "", "Kafka topic")
	flag.StringVar(&o.compression, "compression", "lz4", "lz4, zstd, snappy, gzip or none")
	flag.IntVar(&o.keys, "keys", 50, "different keys")
	flag.IntVar(&o.window, "window", 1000, "unacknowledged messages in all")
	flag.IntVar(&o.size, "size", 256, "payload bytes")
	flag.IntVar(&o.rate, "rate", 0, "messages a second, whose times count from when they were due; 0: as fast as they are acknowledged")
	flag.DurationVar(&o.duration, "duration", 8*time.Second, "how long")
	flag.DurationVar(&o.linger, "linger", 5*time.Millisecond, "how long a record waits for others")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A producer sends records, and says of each once what became of it.
type producer interface {
	produce(key string, value []byte, at time.Time)
	close() // returns when all has been said
}

// A ledger is what was said. Its methods are called by one goroutine each.
type ledger struct {
	room    chan struct{}
	latency []time.Duration
	failure error
}

func (l *ledger) acked(at time.Time) {
	l.latency = append(l.latency, time.Since(at))
	<-l.room
}

func (l *ledger) failed(err error) {
	l.failure = err
	<-l.room
}

func run(o options) error {
	start := map[string]func(options, *ledger) (producer, error){"sarama": newSarama, "franz-go": newFranz}[o.client]
	if start == nil {
		return fmt.Errorf("no client %q", o.client)
	}
	l := &ledger{room: make(chan struct{}, o.window)}
	p, err := start(o, l)
	if err != nil {
		return err
	}
	l.room <- struct{}{}
	p.produce("0", []byte("the first, for which it connects"), time.Now())
	for len(l.room) > 0 { // it is not measured: a proxy that serves has connected long ago
		time.Sleep(time.Millisecond)
	}
	cpu, begin := cpuTime(), time.Now()
	feed(p, o, l.room, begin)
	p.close()
	if l.failure != nil {
		return l.failure
	}
	return report(l.latency[1:], cpuTime()-cpu, time.Since(begin))
}

// feed sends until the time is over.
func feed(p producer, o options, room chan struct{}, start time.Time) {
	for i := 0; time.Since(start) < o.duration; i++ {
		at := time.Time{}
		if o.rate > 0 {
			at = start.Add(time.Duration(i) * time.Second / time.Duration(o.rate))
			time.Sleep(time.Until(at))
		}
		room <- struct{}{}
		if o.rate == 0 {
			at = time.Now()
		}
		key := fmt.Sprintf("%d", i%o.keys)
		value := make([]byte, o.size)
		for k := copy(value, fmt.Sprintf("bare %s %d ", key, i/o.keys)); k < len(value); k++ {
			value[k] = 'x'
		}
		p.produce(key, value, at)
	}
}

// headers are those of a message of a device with this key.
func headers(key string) [4][2]string {
	return [4][2]string{
		{"mqtt.topic", "devices/" + key + "/telemetry/load"},
		{"mqtt.client_id", "load-rxxxxxxxx-" + key},
		{"mqtt.qos", "1"},
		{"metric", "load"},
	}
}

func (o options) seeds() []string { return strings.Split(o.brokers, ",") }

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
