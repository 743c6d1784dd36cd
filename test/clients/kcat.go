package clients

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"sluice/test/internal/notrun"
)

// A Kcat is kcat, which writes records with librdkafka.
type Kcat struct{ path string }

// FindKcat returns kcat; without the program t is skipped, or fails when clients are required.
func FindKcat(t testing.TB) Kcat {
	t.Helper()
	path, err := exec.LookPath("kcat")
	if err != nil {
		notrun.Because(t, Required(), "SLUICE_TEST_CLIENTS", fmt.Sprintf("no kcat: %v. Remedy: install it (Debian: apt-get install kcat)", err))
	}
	return Kcat{path}
}

// Produce writes one record and waits until Kafka has it. The value is one line of text.
func (k Kcat) Produce(ctx context.Context, brokers []string, topic, key string, headers [][2]string, value string) error {
	args := []string{"-P", "-b", strings.Join(brokers, ","), "-t", topic, "-k", key}
	for _, h := range headers {
		args = append(args, "-H", h[0]+"="+h[1])
	}
	stdout, stderr, err := execute(ctx, []byte(value+"\n"), k.path, args...)
	if err != nil {
		return fmt.Errorf("kcat: %w: %s%s", err, stdout, stderr)
	}
	return nil
}
