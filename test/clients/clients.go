package clients

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"sluice/test/internal/notrun"
)

// Protocol levels, as CONNECT carries them.
const (
	V311 byte = 4
	V5   byte = 5
)

// Message is one PUBLISH. The properties exist in MQTT 5 only.
type Message struct {
	Topic           string      `json:"topic"`
	Payload         []byte      `json:"payload"`
	Retain          bool        `json:"retain,omitempty"`
	UserProperties  [][2]string `json:"user_properties,omitempty"`
	ContentType     string      `json:"content_type,omitempty"`
	ResponseTopic   string      `json:"response_topic,omitempty"`
	CorrelationData []byte      `json:"correlation_data,omitempty"`
	Expiry          uint32      `json:"expiry,omitempty"` // seconds, 0 for none
}

func (m Message) hasProperties() bool {
	return len(m.UserProperties) > 0 || m.ContentType != "" || m.ResponseTopic != "" ||
		len(m.CorrelationData) > 0 || m.Expiry > 0
}

// Ack is the end of one message's exchange: PUBACK, PUBCOMP or a negative
// PUBREC. For QoS 0 it is the library's word that the message went out.
type Ack struct {
	Index  int  `json:"index"`  // of the message, from 0
	Reason byte `json:"reason"` // Reason Code; 0 in MQTT 3.1.1
}

// Output is what a run reported.
type Output struct {
	Acks []Ack  // in the order they came
	Log  string // whatever else the client printed
}

// Runner runs one kind of client. Its fields may be set before Run.
type Runner struct {
	Name     string
	Versions []byte // the protocol levels it speaks
	ClientID string // empty: one of the driver's making
	Username string
	Password string

	run       func(context.Context, job) (Output, error)
	subscribe func(context.Context, subscribeJob) (*Subscriber, error)
}

// job is one run, as it is told to a driver.
type job struct {
	Host     string    `json:"host"`
	Port     int       `json:"port"`
	Version  byte      `json:"version"`
	QoS      byte      `json:"qos"`
	ClientID string    `json:"client_id"`
	Username string    `json:"username,omitempty"`
	Password string    `json:"password,omitempty"`
	Messages []Message `json:"messages"`
}

// Run connects to addr, publishes messages in their order at one QoS, waits
// for their acknowledgements and disconnects. The output is valid with an error
// too. The end of ctx ends the client.
func (r Runner) Run(ctx context.Context, addr string, version, qos byte, messages []Message) (Output, error) {
	j, err := r.job(addr, version, qos, messages)
	if err != nil {
		return Output{}, fmt.Errorf("%s: %w", r.Name, err)
	}
	out, err := r.run(ctx, j)
	if err == nil {
		err = complete(out, len(messages))
	}
	if err != nil {
		return out, fmt.Errorf("%s, MQTT level %d, QoS %d: %w", r.Name, version, qos, err)
	}
	return out, nil
}

// complete checks that each of n messages was acknowledged once and positively.
func complete(out Output, n int) error {
	seen := make([]bool, n)
	for _, a := range out.Acks {
		switch {
		case a.Index < 0 || a.Index >= n:
			return fmt.Errorf("acknowledgement of message %d of %d", a.Index, n)
		case seen[a.Index]:
			return fmt.Errorf("message %d was acknowledged twice", a.Index)
		case a.Reason >= 0x80:
			return fmt.Errorf("message %d was refused with reason 0x%02X", a.Index, a.Reason)
		}
		seen[a.Index] = true
	}
	if len(out.Acks) != n {
		return fmt.Errorf("%d of %d messages were acknowledged", len(out.Acks), n)
	}
	return nil
}

// Required says whether a missing client fails a test instead of skipping it:
// SLUICE_TEST_CLIENTS=required.
func Required() bool { return os.Getenv("SLUICE_TEST_CLIENTS") == "required" }

// installLimit bounds the download of a client library.
const installLimit = 5 * time.Minute

// obtain skips or fails t when a client cannot be had.
func obtain(t testing.TB, name, remedy string, install func(context.Context) (Runner, error)) Runner {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), installLimit)
	defer cancel()
	r, err := install(ctx)
	if err == nil {
		return r
	}
	notrun.Because(t, Required(), "SLUICE_TEST_CLIENTS", fmt.Sprintf("no %s: %v. Remedy: %s", name, err, remedy))
	return Runner{}
}

// All returns every client there is, for a matrix of subtests. Each is
// obtained within its subtest, so that a missing one skips no other.
func All() map[string]func(testing.TB) Runner {
	return map[string]func(testing.TB) Runner{
		"paho-python": Python, "mqttjs": Node, "mosquitto_pub": Mosquitto, "paho-go": Go,
	}
}
