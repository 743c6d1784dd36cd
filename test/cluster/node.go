package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
)

// node is one Kafka server under the harness's control, either a process or a
// container. Its methods are called under Cluster.mu.
type node interface {
	// start runs the server over the data it had, if any, and does not wait
	// until it serves.
	start(ctx context.Context) error
	// kill ends the server as SIGKILL does and waits until it has gone.
	kill() error
	// stop ends it as SIGTERM does, leadership handed over, and waits.
	stop() error
	// pause and resume are SIGSTOP and SIGCONT.
	pause() error
	resume() error
	// exited returns an error once the server is no longer there.
	exited() error
	// logs returns the last n lines it wrote.
	logs(n int) string
	// remove frees what outlives the server.
	remove() error
}

// process is a node as a JVM of its own.
type process struct {
	java    string
	jars    string
	dir     string   // server.properties, log4j2.properties, server.log, data/
	cluster string   // cluster ID
	kind    []string // of Java: server or loaded
	options []string // of the JVM
	env     []string // beside the harness's own

	cmd  *exec.Cmd     // nil before the first start
	done chan struct{} // closed when cmd has ended
}

// log4j2 sends everything to standard output, which is the node's log file.
const log4j2 = `appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = INFO
rootLogger.appenderRef.out.ref = out
`

func newProcess(java, jars, dir, cluster string, properties []byte, kind, options []string) (*process, error) {
	p := &process{java: java, jars: jars, dir: dir, cluster: cluster, kind: kind, options: options}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(p.path("log4j2.properties"), []byte(log4j2), 0o644); err != nil {
		return nil, err
	}
	return p, os.WriteFile(p.path("server.properties"), properties, 0o644)
}

func (p *process) path(name string) string { return filepath.Join(p.dir, name) }

// server are the options of a node's Java: the compiler and the collector that
// cost least, since most nodes live for a minute. They halve what it can take.
var server = []string{"-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}

// loaded are those of a node that shall take all that it can.
var loaded = []string{"-Xmx384m", "-XX:+UseG1GC"}

// tool are those of a Java that ends at once.
var tool = []string{"-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}

// command is a JVM with Kafka's class path.
func (p *process) command(ctx context.Context, kind []string, class string, args ...string) *exec.Cmd {
	jvm := []string{
		"-Xshare:auto", "-XX:-UsePerfData", "-Djava.awt.headless=true",
		"-Dlog4j2.configurationFile=" + p.path("log4j2.properties"),
		"-cp", filepath.Join(p.jars, "*"), class,
	}
	cmd := exec.CommandContext(ctx, p.java, slices.Concat(p.options, kind, jvm, args)...)
	cmd.Dir = p.dir
	if len(p.env) > 0 {
		cmd.Env = append(os.Environ(), p.env...)
	}
	cmd.SysProcAttr = dieWithParent()
	return cmd
}

// format prepares an empty data directory; one that has data stays as it is.
func (p *process) format(ctx context.Context) error {
	cmd := p.command(ctx, tool, "kafka.tools.StorageTool", "format", "--ignore-formatted",
		"--cluster-id", p.cluster, "--config", p.path("server.properties"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot format Kafka's storage: %w\n%s", err, lastLines(string(out), 20))
	}
	return nil
}

func (p *process) start(ctx context.Context) error {
	if _, err := os.Stat(p.path("data/meta.properties")); err != nil {
		if err := p.format(ctx); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(p.path("server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own descriptor
	// Not the caller's context: it bounds the start, not the node's life.
	cmd := p.command(context.WithoutCancel(ctx), p.kind, "kafka.Kafka", p.path("server.properties"))
	cmd.Stdout, cmd.Stderr = log, log
	return p.spawn(cmd)
}

// spawn starts cmd and waits for its end on one thread of its own: the kernel
// sends the parent-death signal when the thread that forked ends, so that
// thread has to stay for as long as the child.
func (p *process) spawn(cmd *exec.Cmd) error {
	started, done := make(chan error, 1), make(chan struct{})
	go func() { // ends with the child
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how a node ends is seen in its log
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("cannot start Kafka: %w", err)
	}
	p.cmd, p.done = cmd, done
	return nil
}

func (p *process) exited() error {
	if p.cmd == nil {
		return errors.New("the Kafka process was not started")
	}
	select {
	case <-p.done:
		return fmt.Errorf("the Kafka process has ended: %v", p.cmd.ProcessState)
	default:
		return nil
	}
}

func (p *process) kill() error {
	if p.exited() != nil {
		return nil
	}
	err := p.cmd.Process.Kill()
	<-p.done
	return err
}

func (p *process) stop() error {
	if err := p.exited(); err != nil {
		return err
	}
	err := p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.done
	return err
}

func (p *process) pause() error  { return p.signal(syscall.SIGSTOP) }
func (p *process) resume() error { return p.signal(syscall.SIGCONT) }

func (p *process) signal(s syscall.Signal) error {
	if err := p.exited(); err != nil {
		return err
	}
	return p.cmd.Process.Signal(s)
}

func (p *process) logs(n int) string {
	b, err := os.ReadFile(p.path("server.log"))
	if err != nil {
		return err.Error()
	}
	return lastLines(string(b), n)
}

// remove leaves everything: the cluster removes the directory as a whole, or
// keeps it.
func (p *process) remove() error { return nil }
