package bench

import (
	"testing"

	"go.uber.org/goleak"

	"sluice/kafka"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/rcrowley/go-metrics.(*meterArbiter).tick"))
}

// testKafka is a Kafka that nobody connects to.
var testKafka = kafka.Config{Brokers: []string{"127.0.0.1:1"}}
