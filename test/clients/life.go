package clients

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A Library is a client library as its users run it: it connects with a session that is kept, subscribes, publishes
// bursts as fast as it takes them, and connects again by its own means when it is cut off. Nothing of it is adapted to
// the server, and what it does not survive is the finding.
//
// A driver is a program of a few lines around the library. It reads lines of words from its standard input, first
//
//	HOST PORT VERSION CLIENT_ID FILTER
//
// and for each burst
//
//	MQTT_TOPIC QOS FIRST COUNT
//
// upon which it publishes the numbers from FIRST on. It disconnects and ends when its input does. It writes lines:
// "connected SESSION_PRESENT" (0, 1, or ? where the library doesn't say), "granted QOS", "acked NUMBER", "message PAYLOAD", "lost WHY" for the end of a connection, "dropped NUMBER
// WHY" where the library says that it has given a message up with its connection, and "fault WHY" for all that must
// not be.
type Library struct {
	Name     string
	Versions []byte // the protocol levels it speaks
	remedy   string
	command  func(ctx context.Context, scratch string) ([]string, error)
}

// Libraries returns all there are.
func Libraries() []Library {
	both := []byte{V311, V5}
	debian := "install a C compiler and the libraries (Debian: apt-get install gcc libc6-dev libmosquitto-dev libpaho-mqtt-dev)"
	python := "install Python 3 with venv (Debian: apt-get install python3-venv) and let pip reach a package index"
	node := "install Node.js 18 or newer with npm and let npm reach a registry"
	java := "install a Java 17 JDK and Maven (Debian: apt-get install openjdk-17-jdk-headless maven)"
	return []Library{
		{"paho-python", both, python, pythonLife("drive_paho.py")},
		{"gmqtt", both, python, pythonLife("drive_gmqtt.py")},
		{"mqttjs", both, node, nodeLife("drive_mqttjs.mjs")},
		{"node-red", both, node, nodeLife("drive_nodered.cjs")},
		{"paho-java-v3", []byte{V311}, java, javaLife("PahoV3")},
		{"paho-java-v5", []byte{V5}, java, javaLife("PahoV5")},
		{"hivemq-java", both, java, javaLife("HiveMq")},
		{"paho-go-v5", []byte{V5}, "none: it is built with the tests", goLife("paho")},
		{"paho-go-v3", []byte{V311}, "none: it is built with the tests", goLife("pahov3")},
		{"rumqttc", both, "install Rust with cargo and let it reach a registry", rustLife},
		{"libmosquitto", both, debian, cLife("mosquitto", "-lmosquitto")},
		{"paho-c", both, debian, cLife("paho", "-lpaho-mqtt3a")},
	}
}

// A Life is a library's client that runs. Its methods may be called by several goroutines.
type Life struct {
	name  string
	cmd   *exec.Cmd
	stdin io.WriteCloser

	watch
	connected []string // Session Present of each
	granted   []string
	acked     map[int]int // times a number was acknowledged
	got       map[int]int // times a number was received
	lost      []string
	faults    []string
	dropped   map[int]string
}

// Start starts the client against an address, to run until whole ends. t is skipped, or fails, where the library can't be had.
func (l Library) Start(whole, t testing.TB, address string, version byte, clientID, filter string) *Life {
	t.Helper()
	var command []string
	scratch := whole.TempDir()
	obtain(t, l.Name, l.remedy, func(ctx context.Context) (r Runner, err error) {
		command, err = l.command(ctx, scratch)
		return r, err
	})
	f := &Life{name: l.Name, watch: newWatch(), acked: map[int]int{}, got: map[int]int{}, dropped: map[int]string{}}
	if err := f.start(whole.Context(), command, address, version, clientID, filter); err != nil {
		t.Fatalf("cannot start %s: %v", l.Name, err)
	}
	return f
}

func (f *Life) start(ctx context.Context, command []string, address string, version byte, clientID, filter string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	f.cmd = exec.CommandContext(ctx, command[0], command[1:]...)
	f.cmd.WaitDelay = 5 * time.Second
	stderr := new(strings.Builder)
	f.cmd.Stderr = stderr
	if f.stdin, err = f.cmd.StdinPipe(); err != nil {
		return err
	}
	stdout, err := f.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := f.cmd.Start(); err != nil {
		return err
	}
	go func() { // ends with the program
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			f.change(func() { f.read(lines.Text()) })
		}
		err := f.cmd.Wait()
		f.change(func() {
			f.ended = true
			if err != nil {
				f.err = fmt.Errorf("%w: %s", err, stderr)
			}
		})
	}()
	_, err = fmt.Fprintf(f.stdin, "%s %s %d %s %s\n", host, port, version, clientID, filter)
	return err
}

// read takes a line of the driver; the lock is held.
func (f *Life) read(line string) {
	word, rest, _ := strings.Cut(line, " ")
	first, why, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(first)
	switch word {
	case "connected":
		f.connected, err = append(f.connected, rest), nil
	case "granted":
		f.granted, err = append(f.granted, rest), nil
	case "acked":
		f.acked[n]++
	case "message":
		f.got[n]++
	case "dropped":
		f.dropped[n] = why
	case "lost":
		f.lost, err = append(f.lost, rest), nil
	case "fault":
		f.faults, err = append(f.faults, rest), nil
	default:
		err = fmt.Errorf("no such word")
	}
	if err != nil {
		f.faults = append(f.faults, fmt.Sprintf("cannot read %q", line))
	}
}

// Publish begins a burst: count numbers from first on.
func (f *Life) Publish(mqttTopic string, qos byte, first, count int) error {
	_, err := fmt.Fprintf(f.stdin, "%s %d %d %d\n", mqttTopic, qos, first, count)
	return err
}

// State is what is known of a client.
type State struct {
	Connected    []string // Session Present of each connection: 0, 1 or ?
	Granted      int
	Acked, Got   map[int]int // how often each number was acknowledged, and received
	Lost, Faults []string
	Dropped      map[int]string
}

// Await waits until a state meets a condition.
func (f *Life) Await(ctx context.Context, cond func(State) bool) (State, error) {
	var s State
	err := f.await(ctx, func() bool {
		s = State{f.connected, len(f.granted), maps.Clone(f.acked), maps.Clone(f.got), f.lost, f.faults, maps.Clone(f.dropped)}
		return len(f.faults) > 0 || cond(s)
	})
	if err == nil && len(s.Faults) > 0 {
		err = fmt.Errorf("%s: %s", f.name, s.Faults[0])
	}
	return s, err
}

// End lets the client disconnect and waits for its end.
func (f *Life) End(ctx context.Context) error {
	if err := f.stdin.Close(); err != nil {
		return err
	}
	f.await(ctx, func() bool { return false }) // until it has ended
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}
