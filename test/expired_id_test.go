package test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/test/cluster"
	"sluice/test/load"
)

// TestExactlyOnceGoesOnWhenKafkaForgotTheTransactionalID: an instance that writes no transaction for days is forgotten by
// Kafka. Its next ones go through all the same, and no device is disconnected.
func TestExactlyOnceGoesOnWhenKafkaForgotTheTransactionalID(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Need(t, cluster.Config{Own: true, Properties: map[string]string{
		"transactional.id.expiration.ms":                             "3000",
		"transaction.remove.expired.transaction.cleanup.interval.ms": "500",
	}})
	topic := newTopic(t, kafka, 4)
	s := serve(t, kafka.Brokers(), oneTopic(topic)+"    exactly_once: true\n", "")
	c, err := kgo.NewClient(kgo.SeedBrokers(kafka.Direct()...))
	require.NoError(t, err)
	defer c.Close()
	known := func() int {
		txns, err := kadm.NewClient(c).ListTransactions(t.Context(), nil, nil)
		require.NoError(t, err)
		n := 0
		for _, id := range txns.TransactionalIDs() {
			if len(id) > 7 && id[:7] == "sluice-" {
				n++
			}
		}
		return n
	}
	for round := range 2 {
		for qos := byte(0); qos <= 2; qos++ {
			f := &load.Fleet{Addr: s.address, Run: runID(), Devices: 16, QoS: qos, Window: 5, Size: 128, Rate: 200}
			r := within(t, f, 2*time.Second)
			require.Empty(t, r.Errors, "round %d, QoS %d", round, qos)
			if qos > 0 {
				exact(t, verify(t, kafka.Brokers(), f.Run, r, topic))
			}
			require.Eventually(t, func() bool { return known() == 0 }, 60*time.Second, 100*time.Millisecond, fmt.Sprint("Kafka forgets them after round ", round))
		}
	}
}
