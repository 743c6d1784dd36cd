package clients

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// driver returns a run that starts a program, gives it the job as JSON on its
// standard input, and reads an acknowledgement per line of its output.
func driver(name string, args ...string) func(context.Context, job) (Output, error) {
	return func(ctx context.Context, j job) (Output, error) {
		in, err := json.Marshal(j)
		if err != nil {
			return Output{}, err
		}
		stdout, stderr, err := execute(ctx, in, name, args...)
		out := Output{Log: stderr}
		acks := json.NewDecoder(strings.NewReader(stdout))
		for acks.More() {
			var a Ack
			if derr := acks.Decode(&a); derr != nil {
				return out, errors.Join(err, fmt.Errorf("cannot read the driver's output %q: %w", stdout, derr))
			}
			out.Acks = append(out.Acks, a)
		}
		return out, strict(err, stderr)
	}
}

// execute runs a program to its end.
func execute(ctx context.Context, in []byte, name string, args ...string) (stdout, stderr string, err error) {
	return executeIn(ctx, "", in, name, args...)
}

// executeIn is execute in a directory.
func executeIn(ctx context.Context, dir string, in []byte, name string, args ...string) (stdout, stderr string, err error) {
	var o, e bytes.Buffer
	cmd := command(ctx, in, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &o, &e
	err = cmd.Run()
	return o.String(), e.String(), err
}

func command(ctx context.Context, in []byte, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = bytes.NewReader(in)
	cmd.WaitDelay = 5 * time.Second // a grandchild may hold the pipes open
	return cmd
}

// strict turns anything on standard error into a failure.
func strict(err error, stderr string) error {
	stderr = strings.TrimSpace(stderr)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %s", err, stderr)
	case stderr != "":
		return fmt.Errorf("a warning: %s", stderr)
	}
	return nil
}

// fingerprint names a cache directory after what it is made from.
func fingerprint(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}
