package proxy

import (
	"encoding/json"
	"errors"
	"net"
	"time"

	"github.com/rs/zerolog"

	"sluice/kafka"
	"sluice/mqtt"
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
	// Protocol is the MQTT version: 3.1.1 or 5.
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

func (w *presence) of(k *keeper) Presence {
	o := k.opening
	return Presence{ClientID: o.ClientID, Instance: k.h.inc.name, Address: addressOf(o.Remote), Protocol: o.Version, Username: o.Username,
		Connected: k.began, Epoch: k.epoch}
}

func addressOf(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}

// connected tells of a connection that has begun.
func (w *presence) connected(k *keeper, present bool) {
	p := w.of(k)
	p.Event, p.SessionPresent = "connected", present
	w.write(&p)
}

// disconnected tells of its end.
func (w *presence) disconnected(k *keeper, reason string, at int64) {
	p := w.of(k)
	w.ended(&p, reason, at)
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

// ingestFault ends a connection whose transaction failed.
const ingestFault = mqtt.ImplementationSpecificError
