package clients

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Mosquitto returns mosquitto_pub, with mosquitto_sub to subscribe.
func Mosquitto(t testing.TB) Runner {
	t.Helper()
	return obtain(t, "mosquitto_pub",
		"install mosquitto's clients and GNU coreutils (Debian: apt-get install mosquitto-clients coreutils)", findMosquitto)
}

// mosquitto is the programs' paths, and that of stdbuf, without which its lines
// would come only at its end and be lost when it is killed.
type mosquitto struct{ pub, sub, stdbuf string }

func findMosquitto(context.Context) (Runner, error) {
	pub, err := exec.LookPath("mosquitto_pub")
	if err != nil {
		return Runner{}, err
	}
	sub, err := exec.LookPath("mosquitto_sub")
	if err != nil {
		return Runner{}, err
	}
	stdbuf, err := exec.LookPath("stdbuf")
	if err != nil {
		return Runner{}, err
	}
	m := mosquitto{pub, sub, stdbuf}
	return Runner{Name: "mosquitto_pub", Versions: []byte{V311, V5}, run: m.run, subscribe: m.subscribe}, nil
}

// run publishes with as few processes as the program's way of taking messages
// allows, one after the other, all with one client ID.
func (m mosquitto) run(ctx context.Context, j job) (Output, error) {
	var out Output
	for from := 0; from < len(j.Messages); {
		n := batch(j.Messages[from:])
		got, err := m.publish(ctx, j, j.Messages[from:from+n])
		for _, a := range got.Acks {
			a.Index += from
			out.Acks = append(out.Acks, a)
		}
		out.Log += got.Log
		if err != nil {
			return out, err
		}
		from += n
	}
	return out, nil
}

// batch is how many of the first messages one process can publish: several
// when they differ in nothing but a payload that fits in a line.
func batch(ms []Message) int {
	n := 1
	for n < len(ms) && line(ms[0]) && line(ms[n]) && ms[n].Topic == ms[0].Topic && ms[n].Retain == ms[0].Retain {
		n++
	}
	return n
}

// line says whether m can be a line of mosquitto_pub -l, which skips empty
// ones and takes its properties from the command line.
func line(m Message) bool {
	return len(m.Payload) > 0 && !m.hasProperties() && !bytes.ContainsAny(m.Payload, "\n\r\x00")
}

func (m mosquitto) publish(ctx context.Context, j job, ms []Message) (Output, error) {
	args, in := arguments(j, ms[0]), ms[0].Payload
	switch {
	case line(ms[0]):
		args = append(args, "-l")
		in = nil
		for _, one := range ms {
			in = append(append(in, one.Payload...), '\n')
		}
	case len(in) == 0:
		args = append(args, "-n")
	default:
		args = append(args, "-s")
	}
	stdout, stderr, err := m.execute(ctx, in, args)
	acks, rest := mosquittoLog(stdout, j.QoS)
	return Output{Acks: acks, Log: stdout + stderr}, strict(err, stderr+rest)
}

// errReconnect ends a mosquitto_pub that lost its connection: it would connect
// again for ever.
var errReconnect = errors.New("the connection was closed")

func (m mosquitto) execute(ctx context.Context, in []byte, args []string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	o := reconnectWatch{cancel: cancel}
	var e bytes.Buffer
	cmd := command(ctx, in, m.stdbuf, append([]string{"-oL", m.pub}, args...)...)
	cmd.Stdout, cmd.Stderr = &o, &e
	if err = cmd.Run(); context.Cause(ctx) != nil {
		err = context.Cause(ctx)
	}
	return o.out.String(), e.String(), err
}

// reconnectWatch keeps a program's output and cancels it at its second
// CONNECT.
type reconnectWatch struct {
	out    bytes.Buffer // not embedded: its ReadFrom would go round Write
	cancel context.CancelCauseFunc
}

// Write is called by one goroutine, that of exec.
func (w *reconnectWatch) Write(p []byte) (int, error) {
	n, err := w.out.Write(p)
	if bytes.Count(w.out.Bytes(), []byte(" sending CONNECT\n")) > 1 {
		w.cancel(errReconnect)
	}
	return n, err
}

func arguments(j job, m Message) []string {
	version := map[byte]string{V311: "mqttv311", V5: "mqttv5"}[j.Version]
	args := []string{"-h", j.Host, "-p", strconv.Itoa(j.Port), "-V", version, "-i", j.ClientID,
		"-q", strconv.Itoa(int(j.QoS)), "-t", m.Topic, "-d"}
	if m.Retain {
		args = append(args, "-r")
	}
	if j.Username != "" {
		args = append(args, "-u", j.Username, "-P", j.Password)
	}
	return append(args, propertyArguments(m)...)
}

func propertyArguments(m Message) (args []string) {
	for _, p := range m.UserProperties {
		args = append(args, "-D", "publish", "user-property", p[0], p[1])
	}
	if m.ContentType != "" {
		args = append(args, "-D", "publish", "content-type", m.ContentType)
	}
	if m.ResponseTopic != "" {
		args = append(args, "-D", "publish", "response-topic", m.ResponseTopic)
	}
	if len(m.CorrelationData) > 0 {
		args = append(args, "-D", "publish", "correlation-data", string(m.CorrelationData))
	}
	if m.Expiry > 0 {
		args = append(args, "-D", "publish", "message-expiry-interval", fmt.Sprint(m.Expiry))
	}
	return args
}

// mosquittoAcks is the line of -d that ends a message's exchange, by QoS. The
// program numbers its packets from 1.
var mosquittoAcks = [3]*regexp.Regexp{
	regexp.MustCompile(`^Client \S+ sending PUBLISH \(d0, q0, r[01], m(\d+),`),
	regexp.MustCompile(`^Client \S+ received PUBACK \(Mid: (\d+), RC:(\d+)\)`),
	regexp.MustCompile(`^Client \S+ received PUBCOMP \(Mid: (\d+), RC:(\d+)\)`),
}

// mosquittoLog reads what -d printed and returns the acknowledgements, and the
// lines that tell of something else than packets.
func mosquittoLog(s string, qos byte) (acks []Ack, rest string) {
	for l := range strings.Lines(s) {
		if f := mosquittoAcks[qos].FindStringSubmatch(l); f != nil {
			a := Ack{Index: number(f[1]) - 1}
			if len(f) > 2 {
				a.Reason = byte(number(f[2]))
			}
			acks = append(acks, a)
		}
		if !strings.HasPrefix(l, "Client ") {
			rest += l
		}
	}
	return acks, rest
}

// number reads digits that a regular expression has found.
func number(s string) int {
	n, _ := strconv.Atoi(s) // digits only; too many of them match no message
	return n
}
