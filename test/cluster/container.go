package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// image is the Kafka that a container engine runs.
func image() string {
	if name := os.Getenv("SLUICE_TEST_KAFKA_IMAGE"); name != "" {
		return name
	}
	return "apache/kafka:" + kafkaVersion
}

// pidLabel marks containers and networks with the test binary's process ID.
const pidLabel = "sluice.test.pid"

// container is a node in a container. Its ports are published on the host's
// loopback under their own numbers, the nodes reach each other by name on a
// network of their own.
type container struct {
	engine     string
	name       string
	network    string
	cluster    string
	ports      []int
	properties string
	created    bool
}

// dataDirInContainer lies in the container's own layer, which a kill and a
// restart of the container keep.
const dataDirInContainer = "/tmp/sluice-kafka"

// entry replaces the image's entry point, which would read the properties
// from environment variables and put its own defaults among them.
const entry = `printf %s "$PROPERTIES" >/tmp/server.properties &&
/opt/kafka/bin/kafka-storage.sh format --ignore-formatted --cluster-id "$CLUSTER" --config /tmp/server.properties &&
exec /opt/kafka/bin/kafka-server-start.sh /tmp/server.properties`

func (c *container) start(ctx context.Context) error {
	if c.created {
		_, err := c.run(ctx, "start", c.name)
		return err
	}
	_, err := c.run(ctx, c.runArgs()...)
	c.created = true // also a failed run may have left one to remove
	return err
}

func (c *container) runArgs() []string {
	args := []string{"run", "--detach", "--name", c.name, "--network", c.network,
		"--label", pidLabel + "=" + strconv.Itoa(os.Getpid()),
		"--env", "PROPERTIES=" + c.properties, "--env", "CLUSTER=" + c.cluster,
		"--env", "KAFKA_HEAP_OPTS=-Xmx384m", "--entrypoint", "/bin/sh"}
	for _, p := range c.ports {
		args = append(args, "--publish", fmt.Sprintf("127.0.0.1:%d:%d", p, p))
	}
	return append(args, image(), "-c", entry)
}

// run calls the engine and returns what it printed.
func (c *container) run(ctx context.Context, args ...string) (string, error) {
	return engineRun(ctx, c.engine, args...)
}

func engineRun(ctx context.Context, engine string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, engine, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s failed: %w: %s", engine, args[0], err, lastLines(string(out), 5))
	}
	return strings.TrimSpace(string(out)), nil
}

func (c *container) exited() error {
	state, err := c.run(context.Background(), "inspect", "--format", "{{.State.Status}}", c.name)
	if err != nil {
		return err
	}
	if state != "running" && state != "paused" {
		return fmt.Errorf("container %s is %s", c.name, state)
	}
	return nil
}

// end runs an engine command that ends the server and waits until it has.
func (c *container) end(args ...string) error {
	if _, err := c.run(context.Background(), args...); err != nil {
		return err
	}
	_, err := c.run(context.Background(), "wait", c.name)
	return err
}

// kill resumes a paused container in the same breath, since engines refuse to
// signal one; SIGKILL is sent first where they let us.
func (c *container) kill() error {
	if c.exited() != nil {
		return nil
	}
	if err := c.end("kill", c.name); err == nil {
		return nil
	}
	return errors.Join(c.resume(), c.end("kill", c.name))
}

func (c *container) stop() error   { return c.end("stop", "--time", "60", c.name) }
func (c *container) pause() error  { return c.do("pause") }
func (c *container) resume() error { return c.do("unpause") }

func (c *container) do(verb string) error {
	_, err := c.run(context.Background(), verb, c.name)
	return err
}

func (c *container) logs(n int) string {
	out, err := c.run(context.Background(), "logs", "--tail", strconv.Itoa(n), c.name)
	if err != nil {
		return err.Error()
	}
	return out
}

func (c *container) remove() error {
	if !c.created {
		return nil
	}
	_, err := c.run(context.Background(), "rm", "--force", "--volumes", c.name)
	return err
}

// sweep removes containers and networks of test binaries that no longer run:
// nothing tells an engine that the program which asked for them was killed.
func sweep(ctx context.Context, engine string) {
	format := `{{.Names}} {{.Label "` + pidLabel + `"}}`
	sweepKind(ctx, engine, []string{"ps", "--all", "--filter", "label=" + pidLabel, "--format", format},
		"rm", "--force", "--volumes")
	format = `{{.Name}} {{.Label "` + pidLabel + `"}}`
	sweepKind(ctx, engine, []string{"network", "ls", "--filter", "label=" + pidLabel, "--format", format},
		"network", "rm")
}

func sweepKind(ctx context.Context, engine string, list []string, remove ...string) {
	out, err := engineRun(ctx, engine, list...)
	if err != nil {
		return // tidying up for others; the start itself will say what is wrong
	}
	for line := range strings.Lines(out) {
		name, pid, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.Atoi(pid); err == nil && errors.Is(syscall.Kill(n, 0), syscall.ESRCH) {
			_, _ = engineRun(ctx, engine, append(remove, name)...) // two may sweep at once
		}
	}
}
