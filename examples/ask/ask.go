package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Where examples/request-reply.yaml has answers and receipts.
const answers, receipts = "answers", "receipts"

// A request is what is asked of a device.
type request struct {
	topic, device, name, payload string
	id                           string // its Correlation Data; nobody else has the same
	timeout                      time.Duration
	instances                    int
}

// ask writes the request and waits for its answer. Without one in time, it cancels the request.
func ask(ctx context.Context, brokers []string, req request) (answer []byte, err error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ClientID("ask"))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	limited, cancel := context.WithTimeout(ctx, req.timeout)
	defer cancel()
	if err := followFromEnd(limited, client, answers, receipts); err != nil {
		return nil, err
	}
	seconds := strconv.Itoa(int((req.timeout + time.Second - 1) / time.Second))
	err = req.write(limited, client, []byte(req.payload), "name", req.name, "mqtt.correlation_data", req.id, "mqtt.expiry", seconds)
	if err != nil {
		return nil, err
	}
	answer, err = req.await(limited, client)
	if limited.Err() == nil || err == nil {
		return answer, err
	}
	short, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second) // the request's own time is over
	defer done()
	if failed := req.write(short, client, nil, "mqtt.cancel", req.id); failed != nil {
		return nil, errors.Join(err, failed)
	}
	return nil, fmt.Errorf("%w; cancelled", err)
}

// followFromEnd has the client read what is written to the topics from now on. It asks for their ends first: a client
// that is only told to begin at the end finds out later where that is, and misses what comes before.
func followFromEnd(ctx context.Context, client *kgo.Client, topics ...string) error {
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topics...)
	if err = errors.Join(err, ends.Error()); err != nil {
		return fmt.Errorf("cannot read %v: %w", topics, err)
	}
	client.AddConsumePartitions(ends.KOffsets())
	return nil
}

// write writes a record with these headers, names and values in turn. The key is the device: so a request and its
// cancellation are in one partition, and in this order.
func (req request) write(ctx context.Context, client *kgo.Client, value []byte, headers ...string) error {
	r := &kgo.Record{Topic: req.topic, Key: []byte(req.device), Value: value}
	for i := 0; i < len(headers); i += 2 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: headers[i], Value: []byte(headers[i+1])})
	}
	if err := client.ProduceSync(ctx, r).FirstErr(); err != nil {
		return fmt.Errorf("cannot write to %s: %w", req.topic, err)
	}
	return nil
}

// await reads answers and receipts until they decide or ctx ends.
func (req request) await(ctx context.Context, client *kgo.Client) (answer []byte, err error) {
	heard := outcomes{}
	for {
		fetches := client.PollFetches(ctx)
		for _, r := range fetches.Records() {
			switch {
			case r.Topic == receipts:
				heard.take(r.Value, req.id)
			case answersTo(r, req.id):
				return r.Value, nil
			}
		}
		switch failure := heard.failure(req.instances); {
		case failure != "":
			return nil, fmt.Errorf("no answer from %s: %s", req.device, failure)
		case ctx.Err() != nil:
			return nil, fmt.Errorf("no answer from %s within %v%s", req.device, req.timeout, heard.delivery())
		case fetches.Err() != nil:
			return nil, fmt.Errorf("cannot read: %w", fetches.Err())
		}
	}
}

// answersTo says whether r has the ID: as Correlation Data, or where the rule for MQTT 3.1.1 puts it.
func answersTo(r *kgo.Record, id string) bool {
	return slices.ContainsFunc(r.Headers, func(h kgo.RecordHeader) bool {
		return (h.Key == "mqtt.correlation_data" || h.Key == "correlation") && string(h.Value) == id
	})
}

// outcomes are what the receipts of one request say, by instance: each that does not have the device says so.
type outcomes map[string]string

// take notes a receipt of the request with this ID.
func (o outcomes) take(value []byte, id string) {
	var r struct {
		Outcome, Reason, Instance string
		Code                      int
		CorrelationData           string `json:"correlation_data"`
	}
	if json.Unmarshal(value, &r) != nil || r.CorrelationData != id {
		return
	}
	if r.Code != 0 {
		r.Reason = fmt.Sprintf("reason code 0x%02X", r.Code)
	}
	o[r.Instance] = strings.TrimSuffix(r.Outcome+" ("+r.Reason+")", " ()")
}

// delivery says that the device has the request, if it has.
func (o outcomes) delivery() string {
	for _, outcome := range o {
		if strings.HasPrefix(outcome, "delivered") || outcome == "sent" {
			return ": " + outcome
		}
	}
	return ""
}

// failure says why no answer will come, when no instance is left that could bring the request to the device.
func (o outcomes) failure(instances int) string {
	if o.delivery() != "" || len(o) < instances {
		return ""
	}
	return strings.Join(slices.Sorted(maps.Values(o)), ", ")
}
