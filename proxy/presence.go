package proxy

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/rs/zerolog"

	"sluice/fleet"
	"sluice/fleet/driver"
	"sluice/kafka"
)

// A Presence is the value of a presence record, as JSON: a connection began or ended.
type Presence struct {
	// ClientID of the device; it is the record's key too.
	ClientID string `json:"client_id"`
	// Event is connected or disconnected.
	Event string `json:"event"`
	// Instance is the name under which the instance that has, or had, the connection shares sessions.
	Instance string `json:"instance"`
	// Address of the device, host:port.
	Address string `json:"address,omitempty"`
	// Protocol is the MQTT version: 3.1, 3.1.1 or 5.
	Protocol string `json:"protocol,omitempty"`
	Username string `json:"username,omitempty"`
	// SessionPresent says, with connected, that a session was resumed.
	SessionPresent bool `json:"session_present,omitempty"`
	// Reason says why the connection ended.
	Reason string `json:"reason,omitempty"`
	// Connected and Disconnected are the times of the event, and with disconnected of the connection's beginning.
	Connected    time.Time  `json:"connected"`
	Disconnected *time.Time `json:"disconnected,omitempty"`
	// Epoch orders the connections of a client ID: that with the highest is the one that counts.
	Epoch int64 `json:"epoch"`
}

// reasonInstanceDied is the end of a connection whose instance was declared dead.
const reasonInstanceDied = "instance died"

// reasonNotResumed is the end of a connection whose session could not be read, before CONNACK.
const reasonNotResumed = "session not available"

// presence tells back ends who is connected. With no topic it tells nobody.
type presence struct {
	topic    string
	producer *kafka.Producer
	m        *sessionMetrics
	log      zerolog.Logger
}

func presenceOf(c *driver.Conn) Presence {
	return Presence{ClientID: c.ClientID(), Instance: c.Incarnation(), Address: c.Remote, Protocol: c.Version, Username: c.Principal,
		Connected: c.Began(), Epoch: c.Epoch()}
}

// Connected tells of a connection that has begun.
func (s *sessions) Connected(c *driver.Conn) {
	p := presenceOf(c)
	p.Event, p.SessionPresent = "connected", c.Present
	s.presence.write(&p)
}

// Disconnected tells of its end.
func (s *sessions) Disconnected(c *driver.Conn, reason string, at int64) {
	p := presenceOf(c)
	s.presence.ended(&p, reason, at)
}

// Died tells of the end of a connection that a dead instance had.
func (s *sessions) Died(client, inc string, st *fleet.Session, at int64) {
	s.presence.ended(&Presence{
		ClientID: client, Instance: inc, Address: st.Remote, Protocol: st.Version, Username: st.Principal,
		Connected: time.UnixMilli(st.Connected).UTC(), Epoch: st.StateEpoch,
	}, reasonInstanceDied, at)
}

func (w *presence) ended(p *Presence, reason string, at int64) {
	end := time.UnixMilli(at).UTC()
	p.Event, p.Reason, p.Disconnected = "disconnected", reason, &end
	w.write(p)
}

func (w *presence) write(p *Presence) {
	if w.topic == "" {
		return
	}
	value, err := json.Marshal(p)
	if err != nil {
		w.log.Error().Err(err).Msg("cannot write a presence record")
		return
	}
	r := &kafka.Record{Topic: w.topic, Key: []byte(p.ClientID), Value: value, Timestamp: time.Now(), Owner: w}
	r.Reserved = receiptOverhead + len(r.Key) + len(value)
	r.ReservedFor = kafka.Destination{Topic: w.topic, Partition: kafka.AnyPartition}
	w.producer.Budget().Take(r.ReservedFor, r.Reserved)
	w.producer.Produce(r)
}

// RecordDone counts what became of a presence record.
func (w *presence) RecordDone(_ *kafka.Record, err error) {
	switch {
	case err == nil:
		w.m.presence.WithLabelValues("stored").Inc()
	default:
		w.m.presence.WithLabelValues("lost").Inc()
		if !errors.Is(err, kafka.ErrClosed) {
			w.log.Error().Err(err).Msg("cannot store a presence record")
		}
	}
}
