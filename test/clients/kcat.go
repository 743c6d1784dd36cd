package clients

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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

// Stream writes a record to one partition each 20 ms until ctx ends, and counts those that Kafka has acknowledged. It fails
// if kcat can't be started.
func (k Kcat) Stream(ctx context.Context, brokers []string, topic string, partition int, acked *atomic.Int64) error {
	cmd := exec.CommandContext(ctx, k.path, "-P", "-E", "-vvv", "-b", strings.Join(brokers, ","), "-t", topic,
		"-p", fmt.Sprint(partition), "-X", "acks=all")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { // ends with kcat
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if strings.Contains(lines.Text(), "delivered to partition") {
				acked.Add(1)
			}
		}
		_ = cmd.Wait() // it is killed at the end
	}()
	line := []byte(strings.Repeat("-", 1023) + "\n") // kcat reads 1 KiB at a time, and waits until it has it
	go func() {                                      // ends with ctx or kcat
		for pace := time.Tick(20 * time.Millisecond); ctx.Err() == nil; <-pace { // kcat hears of a delivery when it has a next line
			if _, err := stdin.Write(line); err != nil {
				return
			}
		}
	}()
	return nil
}
