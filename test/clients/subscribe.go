package clients

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// A Subscription says what a client asks for. NoLocal, RetainAsPublished and ID exist in MQTT 5 only.
type Subscription struct {
	Filters           []string `json:"filters"`
	QoS               byte     `json:"qos"`
	ID                int      `json:"id,omitempty"` // Subscription Identifier, 0 for none
	NoLocal           bool     `json:"no_local,omitempty"`
	RetainAsPublished bool     `json:"retain_as_published,omitempty"`
	// Keep keeps the session for an hour beyond the connection, and uses the one that is there.
	Keep bool `json:"keep,omitempty"`
	// Answer makes the client publish each message's payload to its response topic, if it has one, with QoS 1 and its
	// correlation data. Of the clients here mosquitto_sub can't.
	Answer bool `json:"answer,omitempty"`
}

// Received is a PUBLISH that a client got.
type Received struct {
	Message
	QoS             byte  `json:"qos"`
	Dup             bool  `json:"dup,omitempty"`
	SubscriptionIDs []int `json:"subscription_ids,omitempty"`
}

// A Subscriber is a client that runs and receives. Its methods may be called by several goroutines.
type Subscriber struct {
	name string
	stop func() error // makes the client disconnect and waits for its end

	watch
	granted []int // nil: no SUBACK yet
	got     []Received
}

func newSubscriber(name string) *Subscriber { return &Subscriber{name: name, watch: newWatch()} }

// Subscribe connects, subscribes and returns when the SUBACK came; it is an error if a filter was refused or got
// another QoS. Close ends the client, as the end of ctx does.
func (r Runner) Subscribe(ctx context.Context, addr string, version byte, sub Subscription) (*Subscriber, error) {
	s, err := r.start(ctx, addr, version, sub)
	if err != nil {
		return nil, fmt.Errorf("%s, MQTT level %d: %w", r.Name, version, err)
	}
	var granted []int
	err = s.await(ctx, func() bool {
		granted = s.granted
		return granted != nil
	})
	if slices.ContainsFunc(granted, func(code int) bool { return code != int(sub.QoS) }) {
		err = fmt.Errorf("SUBACK %d for QoS %d", granted, sub.QoS)
	}
	if err != nil {
		return nil, fmt.Errorf("%s, MQTT level %d: %w", r.Name, version, errors.Join(err, s.Close()))
	}
	return s, nil
}

func (r Runner) start(ctx context.Context, addr string, version byte, sub Subscription) (*Subscriber, error) {
	j, err := r.job(addr, version, sub.QoS, nil)
	if err != nil {
		return nil, err
	}
	if version != V5 && (sub.ID > 0 || sub.NoLocal || sub.RetainAsPublished) {
		return nil, errors.New("subscription options need MQTT 5")
	}
	return r.subscribe(ctx, subscribeJob{job: j, Subscription: sub})
}

// subscribeJob is a job without messages, and a subscription.
type subscribeJob struct {
	job
	Subscription Subscription `json:"subscription"`
}

// Await waits until the client has got n messages and gives all it has.
func (s *Subscriber) Await(ctx context.Context, n int) ([]Received, error) {
	err := s.await(ctx, func() bool { return len(s.got) >= n })
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		err = fmt.Errorf("%s: %d of %d messages: %w", s.name, len(s.got), n, err)
	}
	return slices.Clone(s.got), err
}

// Close makes the client disconnect, waits for its end, and says what it complained of.
func (s *Subscriber) Close() error { return s.stop() }
