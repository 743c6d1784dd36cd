package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/test/cluster"
	"sluice/test/internal/notrun"
)

// TestTheBinaryRunsAloneAndNotAsRoot runs what the image would: the static binary in a root directory that holds
// nothing else, as the image's user.
func TestTheBinaryRunsAloneAndNotAsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		notrun.Because(t, false, "", "changing the root directory needs root. Remedy: run the tests as root")
	}
	dockerfile, err := os.ReadFile("../Dockerfile")
	require.NoError(t, err)
	require.Contains(t, string(dockerfile), "FROM scratch")
	require.Contains(t, string(dockerfile), "USER 65532:65532")
	kafka := cluster.Shared(t)
	topic := newTopic(t, kafka, 1)

	root := t.TempDir()
	for dir := root; dir != "/" && strings.HasPrefix(dir, os.TempDir()) && dir != os.TempDir(); dir = filepath.Dir(dir) {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(root, "sluice"), "../cmd/sluice")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))

	s := prepare(t, kafka.Brokers(), oneTopic(topic), "")
	config, err := os.ReadFile(s.args[2])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(root, "sluice.yaml"), config, 0o644))
	s.program, s.args[2] = "/sluice", "/sluice.yaml"
	s.attr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
	s.start()
	s.awaitReady()
	require.Zero(t, s.terminate(), s.log)
}
