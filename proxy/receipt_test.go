package proxy

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"sluice/mqtt"
)

// TestReceiptSaysWhatBecameOfACommand: the JSON that programs read, field by field and in this order.
func TestReceiptSaysWhatBecameOfACommand(t *testing.T) {
	f := func(key, correlationData, clientID string, fate mqtt.Fate, code mqtt.Code, reason, want string) {
		t.Helper()
		c := named("commands", key, correlationData)
		c.partition, c.offset, c.written = 3, 42, written
		got, err := json.Marshal(receiptOf(c, clientID, fate, code, reason, "host-1", written.Add(1500*time.Millisecond)))
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	f("d1", "7", "d1", mqtt.Delivered, 0, "",
		`{"topic":"commands","partition":3,"offset":42,"key":"d1","client_id":"d1","outcome":"delivered","correlation_data":"7","instance":"host-1","milliseconds":1500}`)
	f("d1", "null", "d1", mqtt.Sent, 0, "",
		`{"topic":"commands","partition":3,"offset":42,"key":"d1","client_id":"d1","outcome":"sent","instance":"host-1","milliseconds":1500}`)
	f("null", "null", "", mqtt.Expired, 0, "",
		`{"topic":"commands","partition":3,"offset":42,"outcome":"expired","instance":"host-1","milliseconds":1500}`)
	f("", "", "", mqtt.Cancelled, 0, "",
		`{"topic":"commands","partition":3,"offset":42,"key":"","outcome":"cancelled","correlation_data":"","instance":"host-1","milliseconds":1500}`)
	f("d1", "7", "d1", mqtt.Rejected, mqtt.NotAuthorized, "",
		`{"topic":"commands","partition":3,"offset":42,"key":"d1","client_id":"d1","outcome":"rejected","code":135,"correlation_data":"7","instance":"host-1","milliseconds":1500}`)
	f("d1", "7", "d1", mqtt.Offline, 0, reasonNotConnected,
		`{"topic":"commands","partition":3,"offset":42,"key":"d1","client_id":"d1","outcome":"offline","reason":"not_connected","correlation_data":"7","instance":"host-1","milliseconds":1500}`)
	f("d1", "7", "d1", mqtt.Dropped, 0, "queue_full",
		`{"topic":"commands","partition":3,"offset":42,"key":"d1","client_id":"d1","outcome":"dropped","reason":"queue_full","correlation_data":"7","instance":"host-1","milliseconds":1500}`)
	f("\xff\x00", "\xfe", "d1", mqtt.Delivered, 0, "",
		`{"topic":"commands","partition":3,"offset":42,"key_base64":"/wA=","client_id":"d1","outcome":"delivered","correlation_data_base64":"/g==","instance":"host-1","milliseconds":1500}`)
}

// TestReceiptOfALargeKeyHasItOnce: twice, and escaped, it could be more than Kafka takes.
func TestReceiptOfALargeKeyHasItOnce(t *testing.T) {
	for _, letter := range []string{"\x01", "\xff"} {
		value := func(n int) []byte {
			c := &command{key: []byte(strings.Repeat(letter, n))}
			b, err := json.Marshal(receiptOf(c, "", mqtt.Sent, 0, "", "", written))
			require.NoError(t, err)
			return b
		}
		require.Greater(t, len(value(4096)), 4096)
		require.Less(t, len(value(4097)), 1000)
		require.NotContains(t, string(value(4097)), "key")
	}
}

// TestReceiptGivesEveryKeyBack: whatever the bytes, a reader of JSON gets them as they were, and no key is no empty one.
func TestReceiptGivesEveryKeyBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bytes := rapid.OneOf(rapid.Just([]byte(nil)), rapid.SliceOfN(rapid.Byte(), 0, 20), rapid.Map(rapid.String(), func(s string) []byte { return []byte(s) }))
		c := &command{key: bytes.Draw(t, "key")}
		c.CorrelationData = bytes.Draw(t, "correlation data")
		value, err := json.Marshal(receiptOf(c, "", mqtt.Sent, 0, "", "", written))
		require.NoError(t, err)
		var back struct {
			Key               *string
			KeyBase64         []byte  `json:"key_base64"`
			Correlation       *string `json:"correlation_data"`
			CorrelationBase64 []byte  `json:"correlation_data_base64"`
		}
		require.NoError(t, json.Unmarshal(value, &back))
		same := func(want []byte, plain *string, inBase64 []byte) {
			if plain != nil {
				require.Nil(t, inBase64, "one of the two")
				inBase64 = []byte(*plain)
			}
			require.Equal(t, want, inBase64)
		}
		same(c.key, back.Key, back.KeyBase64)
		same(c.CorrelationData, back.Correlation, back.CorrelationBase64)
	})
}

// TestReceiptsCountWithTheMemoryTheyHave, the key and the value among it, and give all of it back.
func TestReceiptsCountWithTheMemoryTheyHave(t *testing.T) {
	c, producer, _ := commanding(t, commandsForTests)
	key := strings.Repeat("k", 60_000)
	for range 3 {
		c.handle(recordOf("plain", key, "x", "name", "reboot", "mqtt.expiry", "1"))
	}
	require.Greater(t, producer.Budget().InUse(), int64(3*2*len(key)), "the key is in the record and in its value")
	require.Less(t, producer.Budget().InUse(), int64(3*(3*len(key)+2*receiptBytes)))
	require.Error(t, producer.Close(t.Context()))
	require.Zero(t, producer.Budget().InUse())
	require.EqualValues(t, 3, testutil.ToFloat64(c.m.receiptsLost))
	require.Zero(t, testutil.ToFloat64(c.m.receiptsStored))
}
