package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/test/cluster"
	"sluice/test/load"
)

// bareResult is what one run of the bare producer, or of the proxy, gives.
type bareResult struct {
	Acked     float64 `json:"acked"`
	PerSecond float64 `json:"per_second"`
	CPU       float64 `json:"cpu_us_per_msg"`
	P50       float64 `json:"ms_p50"`
	P99       float64 `json:"ms_p99"`
}

func (r bareResult) perSecond() float64 { return r.PerSecond }
func (r bareResult) cpu() float64       { return r.CPU }
func (r bareResult) p50() float64       { return r.P50 }
func (r bareResult) p99() float64       { return r.P99 }

// TestCPUAgainstTheBareProducer measures the CPU time per acknowledged message of the whole proxy and of sarama's
// AsyncProducer alone, in turns on one Kafka. It reports the medians; it fails only where something is badly wrong,
// since machines are noisy.
func TestCPUAgainstTheBareProducer(t *testing.T) {
	kafka := cluster.Shared(t)
	bare := filepath.Join(t.TempDir(), "bareproducer")
	out, err := exec.Command("go", "build", "-o", bare, "../kafka/internal/bareproducer").CombinedOutput()
	require.NoError(t, err, string(out))
	topic := newTopic(t, kafka, 12)
	s := serve(t, kafka.Brokers(), oneTopic(topic), "")
	length := either(2*time.Second, 8*time.Second)
	for _, window := range []int{20, 100, 250} {
		var ours, theirs []bareResult
		for range either(2, 7) {
			theirs = append(theirs, runBare(t, bare, kafka.Brokers()[0], topic, length, window, 0))
			ours = append(ours, runOurs(t, s, length, window, 0))
		}
		a, b := median(ours, bareResult.cpu), median(theirs, bareResult.cpu)
		t.Logf("QoS 1, 50 devices, window %d, 256 B: %.2f µs CPU a message, bare producer %.2f µs, ratio %.2f (medians of %d rounds); %.0f and %.0f messages a second; %d MB",
			window, a, b, a/b, len(ours), median(ours, bareResult.perSecond), median(theirs, bareResult.perSecond), s.rss()>>20)
		require.Less(t, a/b, 4.0, "far from every measurement")
	}
	var ours, theirs []bareResult
	for range either(1, 5) {
		theirs = append(theirs, runBare(t, bare, kafka.Brokers()[0], topic, length, 20, 2000))
		ours = append(ours, runOurs(t, s, length, 20, 2000))
	}
	t.Logf("2 000 messages a second: acknowledged after p50 %.1f ms, p99 %.1f ms; bare producer p50 %.1f ms, p99 %.1f ms (medians of %d rounds)",
		median(ours, bareResult.p50), median(ours, bareResult.p99), median(theirs, bareResult.p50), median(theirs, bareResult.p99), len(ours))
}

const ratioDevices = 50

func runBare(t *testing.T, program, broker, topic string, d time.Duration, window, rate int) (r bareResult) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, "-brokers", broker, "-topic", topic, "-duration", d.String(),
		"-window", strconv.Itoa(window*ratioDevices), "-rate", strconv.Itoa(rate)).Output()
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(out, &r))
	return r
}

func runOurs(t *testing.T, s *instance, d time.Duration, window, rate int) bareResult {
	t.Helper()
	before := s.cpu()
	f := &load.Fleet{Addr: s.address, Run: runID(), Devices: ratioDevices, QoS: 1, Size: 256, Window: window, Rate: rate}
	res := within(t, f, d)
	require.Empty(t, res.Errors)
	used := s.cpu() - before
	ms := func(q float64) float64 { return res.Quantile(q).Seconds() * 1000 }
	return bareResult{float64(res.Acked), float64(res.Acked) / res.Elapsed.Seconds(), used.Seconds() * 1e6 / float64(res.Acked), ms(.5), ms(.99)}
}

func median(rs []bareResult, f func(bareResult) float64) float64 {
	var v []float64
	for _, r := range rs {
		v = append(v, f(r))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// cpu gives the CPU time the process has used; its resolution is 10 ms.
func (s *instance) cpu() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	require.NoError(s.t, err)
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	user, err := strconv.ParseInt(fields[11], 10, 64)
	require.NoError(s.t, err)
	system, err := strconv.ParseInt(fields[12], 10, 64)
	require.NoError(s.t, err)
	return time.Duration(user+system) * 10 * time.Millisecond
}
