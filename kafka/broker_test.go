package kafka

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
)

// brokerEnv makes the test binary a broker of its own, so that a benchmark measures the client alone.
const brokerEnv = "SLUICE_TEST_BROKER"

func serveBroker() {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(8, "bench"), kfake.SeedTopics(1, "single"), kfake.BlackholeProduce())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.ListenAddrs()[0])
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent is gone
	c.Close()
}

// externalBroker starts a process that takes records and forgets them.
func externalBroker(t testing.TB) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), brokerEnv+"=1")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	return []string{strings.TrimSpace(line)}
}
