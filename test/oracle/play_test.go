package oracle

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestLastWordKnowsEveryRecord: a device sends a message with QoS 1 again, so that there may be two records, and both are
// delivered and answered before the second is noted.
func TestLastWordKnowsEveryRecord(t *testing.T) {
	const suffix = "late"
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, KafkaTopics(suffix)...))
	require.NoError(t, err)
	defer cluster.Close()
	w, err := NewWorld(cluster.ListenAddrs(), nil, suffix)
	require.NoError(t, err)
	defer w.Close()

	h := &told{History: History{ID: "h"}}
	say := h.message(Message{Topic: "say/h/a/1", Kafka: Loop, QoS: 1, To: -1})
	filter := Filter{Name: "say/h/+/1", QoS: 1}
	h.see(
		Event{What: Connect, Dev: 1, Conn: 1, Version: 4, Message: -1},
		Event{What: GotConnack, Dev: 1, Conn: 1, Message: -1},
		Event{What: Subscribe, Dev: 1, Conn: 1, ID: 1, Options: filter, Message: -1},
		Event{What: GotSuback, Dev: 1, Conn: 1, ID: 1, Code: 1, Message: -1})
	for conn := 1; conn <= 2; conn++ {
		h.see(Event{What: Connect, Conn: conn, Version: 4, Message: -1},
			Event{What: GotConnack, Conn: conn, Present: conn > 1, Message: -1},
			Event{What: Publish, Conn: conn, ID: 1, QoS: 1, Dup: conn > 1, Message: say, Topic: "say/h/a/1"})
		if conn == 1 {
			h.record(say)
			h.see(Event{What: Cut, Conn: conn, Message: -1})
		} else {
			h.see(Event{What: GotPuback, Conn: conn, ID: 1, Message: -1})
		}
		id := uint16(conn)
		h.see(Event{What: GotPublish, Dev: 1, Conn: 1, ID: id, QoS: 1, Message: say, Topic: "say/h/a/1"},
			Event{What: Puback, Dev: 1, Conn: 1, ID: id, Message: say})
	}
	require.NotEmpty(t, Judge(&h.History), "without the second record it comes twice")

	p, other := newPlay(t.Context(), w, "h"), newPlay(t.Context(), w, "other")
	p.h = h.History
	w.plays.Store("h", p)
	w.plays.Store("other", other)
	headers := []kgo.RecordHeader{{Key: "mqtt.topic", Value: []byte("say/h/a/1")}, {Key: "mqtt.qos", Value: []byte("1")}}
	other.mu.Lock() // the reader waits here
	require.NoError(t, w.producer.ProduceSync(t.Context(),
		&kgo.Record{Topic: w.topic(Loop), Value: []byte("other|0|")},
		&kgo.Record{Topic: w.topic(Loop), Value: []byte("h|0|"), Headers: headers}).FirstErr())
	found := make(chan []Violation, 1)
	go func() { found <- p.settle() }()
	require.Eventually(t, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.quiet || len(found) > 0
	}, patience, time.Millisecond)
	other.mu.Unlock()
	require.Empty(t, <-found)
	require.Equal(t, 2, strings.Count(p.h.String(), " record message 0"))
}
