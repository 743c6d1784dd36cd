// Package mosquitto runs Eclipse Mosquitto, an MQTT server not written here: what drives devices is tested against
// it, so that it can be trusted against Sluice.
package mosquitto

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/test/internal/notrun"
	"sluice/test/internal/ports"
)

// Start runs a server until the test ends and returns its address. It refuses what is published outside "open/" and
// "devices/". more is added to its configuration: a bridge, for one. Without the program the test is skipped, or fails
// with required.
func Start(t *testing.T, required bool, more ...string) string {
	t.Helper()
	path := look(t, required)
	ps, err := ports.Take(1)
	require.NoError(t, err)
	t.Cleanup(func() { _ = ps[0].Release() })
	dir := t.TempDir()
	acl, conf := filepath.Join(dir, "acl"), filepath.Join(dir, "conf")
	require.NoError(t, os.WriteFile(acl, []byte("topic readwrite open/#\ntopic readwrite devices/#\n"), 0o644))
	require.NoError(t, os.WriteFile(conf, fmt.Appendf(nil,
		"listener %d 127.0.0.1\nallow_anonymous true\nacl_file %s\nuser root\nmax_queued_messages 100000\n%s", ps[0].Number, acl, strings.Join(more, "")), 0o644))
	var log bytes.Buffer
	cmd := exec.Command(path, "-c", conf)
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // fails when it has ended by itself, which the test has noticed
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("mosquitto:\n%s", log.String())
		}
	})
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", ps[0].Addr())
		if err == nil {
			c.Close()
		}
		return err == nil
	}, 20*time.Second, 20*time.Millisecond)
	return ps[0].Addr()
}

func look(t *testing.T, required bool) string {
	t.Helper()
	for _, name := range []string{"mosquitto", "/usr/sbin/mosquitto"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	notrun.Because(t, required, "SLUICE_TEST_CLIENTS",
		"no mosquitto server to test the drivers against. Remedy: install it (Debian: apt-get install mosquitto)")
	return ""
}
