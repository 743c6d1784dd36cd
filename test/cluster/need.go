package cluster

import (
	"context"
	"errors"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"

	"sluice/test/internal/notrun"
)

// Required says whether a test that finds no Kafka fails instead of being
// skipped: SLUICE_TEST_KAFKA=required.
func Required() bool { return os.Getenv("SLUICE_TEST_KAFKA") == "required" }

// room is how many nodes the tests of a binary have together: two large
// clusters. With more, tests that run beside each other would keep each other's
// nodes from the processor for longer than Kafka's own time-outs.
const room = 6

var free = semaphore.NewWeighted(room)

// Need gives a test a cluster that is its own until it ends, when there is
// room for it: a new one or, where cfg has no more than Nodes and Own, one
// that another test has left whole. Without a way to have one the test is skipped, or fails where
// Required, and the reason and the remedy are named. When the test fails, the
// nodes' last lines are shown.
func Need(t testing.TB, cfg Config) *Cluster {
	t.Helper()
	demand(t, cfg)
	nodes := int64(min(cfg.nodes(), room))
	if err := free.Acquire(t.Context(), nodes); err != nil {
		t.Fatalf("no room for a Kafka of %d nodes: %v", nodes, err)
	}
	t.Cleanup(func() { free.Release(nodes) })
	c := take(cfg)
	if c == nil {
		var err error
		if c, err = Start(t.Context(), cfg); err != nil {
			t.Fatalf("%v", err)
		}
	}
	t.Cleanup(func() {
		showLogs(t, c)
		if !t.Failed() && keep(c, cfg) {
			return
		}
		if err := c.Close(); err != nil {
			t.Errorf("cannot end the cluster: %v", err)
		}
	})
	return c
}

// demand skips or fails t where cfg cannot be served at all.
func demand(t testing.TB, cfg Config) {
	t.Helper()
	ok, why := Available()
	if ok && machine().way == wayContainer && cfg.process() {
		notrun.Because(t, Required(), "SLUICE_TEST_KAFKA", "this test needs Kafka as processes of its own. Remedy: install Java 17 and Maven")
	}
	if ok && (machine().way != wayExternal || !cfg.own()) {
		return
	}
	if ok {
		why = "this test kills or configures Kafka's nodes, which the cluster in KAFKA_BROKERS is not for. " +
			"Remedy: unset KAFKA_BROKERS and install Java 17 and Maven, or start a container engine"
	}
	notrun.Because(t, Required(), "SLUICE_TEST_KAFKA", why)
}

func showLogs(t testing.TB, c *Cluster) {
	if t.Failed() && c.Owned() {
		t.Logf("the last lines of Kafka:\n%s", c.Logs(60))
	}
}

// shared is the cluster of the whole test binary. It is a variable of the
// package because TestMain and the tests have nothing else in common.
var shared struct {
	open atomic.Bool // Main runs
	once sync.Once
	c    *Cluster
	err  error
}

// Shared returns the test binary's own single node, started by the first test
// that asks and ended by [Main]. Tests share it, so they name their topics by
// [TopicName] and do nothing to the node. It may be the cluster of
// KAFKA_BROKERS.
func Shared(t testing.TB) *Cluster {
	t.Helper()
	demand(t, Config{})
	if !shared.open.Load() {
		t.Fatal("cluster.Shared needs a TestMain that calls cluster.Main, which ends the cluster")
	}
	shared.once.Do(func() {
		shared.c, shared.err = Start(context.Background(), Config{Load: true})
	})
	if shared.err != nil {
		t.Fatalf("%v", shared.err)
	}
	t.Cleanup(func() { showLogs(t, shared.c) })
	return shared.c
}

// Main runs the tests, ends the clusters that are left and returns the exit code:
//
//	func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }
func Main(m interface{ Run() int }) int { return Closing(m).Run() }

// Closing is Main for goleak.VerifyTestMain, which wants something to run and
// must look after the clusters have ended.
func Closing(m interface{ Run() int }) interface{ Run() int } { return closing{m} }

type closing struct{ tests interface{ Run() int } }

func (m closing) Run() int {
	shared.open.Store(true)
	code := m.tests.Run()
	err := closeIdle()
	if shared.c != nil {
		err = errors.Join(err, shared.c.Close())
	}
	if err != nil {
		os.Stderr.WriteString("cannot end a cluster: " + err.Error() + "\n")
		code = max(code, 1)
	}
	return code
}

var notInTopicName = regexp.MustCompile(`[^a-zA-Z0-9._-]+`)

// topicSerial tells the topics of one test apart.
var topicSerial atomic.Int64

// TopicName returns a legal topic name that no other test and no earlier run
// has used.
func TopicName(t testing.TB) string {
	name := strings.Trim(notInTopicName.ReplaceAllString(t.Name(), "-"), "-")
	unique := strconv.FormatInt(time.Now().UnixNano(), 36) + "-" + strconv.FormatInt(topicSerial.Add(1), 36)
	return name[:min(len(name), 150)] + "-" + unique
}
