//go:build unix

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

type franzProducer struct {
	cl *kgo.Client
	l  *ledger
}

var codecs = map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	"snappy": kgo.SnappyCompression(), "gzip": kgo.GzipCompression()}

func newFranz(o options, l *ledger) (producer, error) {
	codec, ok := codecs[o.compression]
	if !ok {
		return nil, fmt.Errorf("no compression %q", o.compression)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(o.seeds()...), kgo.DefaultProduceTopic(o.topic), kgo.ProducerLinger(o.linger),
		kgo.ProducerBatchCompression(codec), kgo.MaxBufferedRecords(o.window+1))
	return &franzProducer{cl, l}, err
}

func (f *franzProducer) produce(key string, value []byte, at time.Time) {
	r := &kgo.Record{Key: []byte(key), Value: value, Timestamp: at, Headers: make([]kgo.RecordHeader, 0, 4)}
	for _, h := range headers(key) {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
	}
	f.cl.Produce(context.Background(), r, func(_ *kgo.Record, err error) { // called for one record after the other
		if err != nil {
			f.l.failed(err)
			return
		}
		f.l.acked(at) // the record's own time has milliseconds only
	})
}

func (f *franzProducer) close() {
	if err := f.cl.Flush(context.Background()); err != nil {
		f.l.failure = err
	}
	f.cl.Close()
}
