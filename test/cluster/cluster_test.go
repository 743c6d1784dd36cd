package cluster_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"sluice/test/cluster"
	"sluice/test/internal/notrun"
	"sluice/test/netem"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(cluster.Closing(m))
}

// produce writes one record and returns once all replicas in sync have it.
func produce(t *testing.T, brokers []string, topic, value string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	require.NoError(t, err)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr())
}

// read returns the first n values of a topic.
func read(t *testing.T, brokers []string, topic string, n int) (values []string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(t, err)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for len(values) < n {
		fetches := cl.PollFetches(ctx)
		require.NoError(t, ctx.Err(), "have %q", values)
		fetches.EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
	}
	return values
}

func TestRecordsSurviveKillAndRestart(t *testing.T) {
	c := cluster.Need(t, cluster.Config{Own: true})
	require.NoError(t, c.CreateTopic("kept", 1, 1, nil))
	produce(t, c.Brokers(), "kept", "before")
	require.NoError(t, c.Kill(0))
	_, err := net.Dial("tcp", c.Brokers()[0])
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.NoError(t, c.Restart(0))
	produce(t, c.Brokers(), "kept", "after")
	require.Equal(t, []string{"before", "after"}, read(t, c.Brokers(), "kept", 2))
}

func TestAPausedNodeIsSilentWithItsSocketsOpen(t *testing.T) {
	c := cluster.Need(t, cluster.Config{Own: true})
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers()...))
	require.NoError(t, err)
	defer cl.Close()
	require.NoError(t, cl.Ping(t.Context()))
	require.NoError(t, c.Pause(0))
	conn, err := net.Dial("tcp", c.Brokers()[0])
	require.NoError(t, err, "the kernel still accepts")
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, cl.Ping(ctx), context.DeadlineExceeded)
	require.NoError(t, c.Resume(0))
	require.NoError(t, cl.Ping(t.Context()))
	require.NoError(t, c.Pause(0))
	require.NoError(t, c.Kill(0), "also a paused node can be killed")
}

func TestThreeNodesServeWithoutOne(t *testing.T) {
	c := cluster.Need(t, cluster.Config{Nodes: 3})
	require.NoError(t, c.CreateTopic("replicated", 3, 3, map[string]string{"min.insync.replicas": "2"}))
	produce(t, c.Brokers(), "replicated", "three")
	require.NoError(t, c.Kill(1))
	produce(t, c.Brokers(), "replicated", "two")
	require.NoError(t, c.Restart(1))
	require.NoError(t, c.Stop(0))
	require.NoError(t, c.Restart(0))
	produce(t, c.Brokers(), "replicated", "all")
	require.ElementsMatch(t, []string{"three", "two", "all"}, read(t, c.Brokers(), "replicated", 3))
}

func TestClientsAreSentToTheAdvertisedAddress(t *testing.T) {
	var proxy *netem.Proxy
	c := cluster.Need(t, cluster.Config{Advertise: func(_ int, addr string) string {
		var err error
		proxy, err = netem.New(addr)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, proxy.Close()) })
		return proxy.Addr()
	}})
	require.Equal(t, []string{proxy.Addr()}, c.Brokers())
	require.NoError(t, c.CreateTopic("through", 1, 1, nil))
	produce(t, c.Brokers(), "through", "a")
	proxy.Swallow()
	require.NoError(t, c.CreateTopic("behind-its-back", 1, 1, nil))
	produce(t, c.Direct(), "through", "b")
	require.NoError(t, proxy.Heal())
	require.Equal(t, []string{"a", "b"}, read(t, c.Brokers(), "through", 2))
}

func TestSharedClusterMakesNoTopicByAccident(t *testing.T) {
	c := cluster.Shared(t)
	require.Same(t, c, cluster.Shared(t))
	if !c.Owned() {
		notrun.Because(t, cluster.Required(), "SLUICE_TEST_KAFKA", "how the cluster in KAFKA_BROKERS makes topics "+
			"is not the harness's to say. Remedy: unset KAFKA_BROKERS")
	}
	name := cluster.TopicName(t)
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers()...), kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(0))
	require.NoError(t, err)
	defer cl.Close()
	err = cl.ProduceSync(t.Context(), &kgo.Record{Topic: name}).FirstErr()
	require.ErrorIs(t, err, kerr.UnknownTopicOrPartition)
	require.NoError(t, c.CreateTopic(name, 2, 1, nil))
	require.ErrorIs(t, c.CreateTopic(name, 2, 1, nil), kerr.TopicAlreadyExists)
	require.NoError(t, c.DeleteTopic(name))
	require.ErrorIs(t, c.DeleteTopic(name), kerr.UnknownTopicOrPartition)
}

func TestDataInAGivenDirectoryServesASecondStart(t *testing.T) {
	cfg := cluster.Config{Dir: t.TempDir()}
	c := cluster.Need(t, cfg)
	require.NoError(t, c.CreateTopic("kept", 1, 1, nil))
	produce(t, c.Brokers(), "kept", "first life")
	require.NoError(t, c.Close())
	c = cluster.Need(t, cfg)
	require.Equal(t, []string{"first life"}, read(t, c.Brokers(), "kept", 1))
}

// TestNodesDieWithTheTestBinary runs this binary again, has it start a node,
// and kills it.
func TestNodesDieWithTheTestBinary(t *testing.T) {
	if os.Getenv(childVariable) != "" {
		c := cluster.Need(t, cluster.Config{Own: true})
		fmt.Println("address " + c.Direct()[0])
		select {} // until killed
	}
	cluster.Need(t, cluster.Config{Own: true}) // or skip, as the child would
	if runtime.GOOS != "linux" {
		notrun.Because(t, cluster.Required(), "SLUICE_TEST_KAFKA",
			"only Linux ends children with their parent. Remedy: run the tests on Linux")
	}
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), childVariable+"=1", "TMPDIR="+t.TempDir())
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	addr := waitLine(t, out, "address ")
	require.NoError(t, child.Process.Kill())
	_ = child.Wait() // "signal: killed"
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	}, 30*time.Second, 50*time.Millisecond)
}

const childVariable = "SLUICE_TEST_CLUSTER_CHILD"

// waitLine returns the rest of the first line that begins with prefix.
func waitLine(t *testing.T, r io.Reader, prefix string) string {
	t.Helper()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), prefix); ok {
			return rest
		}
	}
	t.Fatal("the child ended before it had a node")
	return ""
}

// TestAWholeClusterIsLeftToTheNextTest, without its topics; one that a test has hurt is not.
func TestAWholeClusterIsLeftToTheNextTest(t *testing.T) {
	var first, second []string
	own := cluster.Config{Own: true}
	t.Run("whole", func(t *testing.T) {
		c := cluster.Need(t, own)
		first = c.Brokers()
		require.NoError(t, c.CreateTopic("of-the-first", 1, 1, nil))
		require.NoError(t, c.Kill(0))
		require.NoError(t, c.Restart(0))
	})
	t.Run("hurt", func(t *testing.T) {
		c := cluster.Need(t, own)
		second = c.Brokers()
		require.Equal(t, first, second)
		require.NoError(t, c.CreateTopic("of-the-first", 2, 1, nil), "it has gone")
		require.NoError(t, c.Kill(0))
	})
	t.Run("new", func(t *testing.T) {
		require.NotEqual(t, second, cluster.Need(t, own).Brokers())
	})
}
