package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/term"

	"sluice/bench"
	"sluice/kafka"
	"sluice/proxy"
	"sluice/tls"
)

type benchCommand struct {
	Publish  benchPublish  `cmd:"" help:"Devices publish; what they were told can be compared with what is in Kafka."`
	Hold     benchHold     `cmd:"" help:"Devices connect and stay."`
	Commands benchCommands `cmd:"" help:"Devices receive commands that are written to Kafka."`
}

// benchTarget is where and as whom the devices of every kind of load connect.
type benchTarget struct {
	Address      []string `default:"127.0.0.1:1883" placeholder:"HOST:PORT" help:"Where to connect; several, with commas, share the devices (${default})."`
	MQTT         string   `name:"mqtt" default:"5" enum:"3.1.1,5" help:"The version of MQTT: 3.1.1 or 5."`
	ClientID     string   `default:"bench-{run}-{device}" placeholder:"TEXT" help:"The client ID of a device; {run} is new with every run, {device} a number from 0 (${default})."`
	Username     string   `placeholder:"TEXT" help:"The user name of a device; {client_id}, {run} and {device} are filled in."`
	PasswordFile string   `placeholder:"FILE" help:"A file with the password, up to the end of its first line; default: the variable SLUICE_BENCH_PASSWORD."`
	TLS          bool     `name:"tls" help:"Connect with TLS; so do the next four flags."`
	CA           string   `name:"ca" placeholder:"FILE" help:"The authorities that may sign the server's certificate (default: those of the system)."`
	Certificate  string   `placeholder:"FILE" help:"The certificate that the devices show."`
	Key          string   `placeholder:"FILE" help:"Its private key."`
	ServerName   string   `placeholder:"NAME" help:"The name that the server's certificate must have (default: the host of the address)."`
	Websocket    bool     `help:"MQTT in WebSocket."`
	Path         string   `default:"/mqtt" help:"The path to ask for with --websocket."`

	KeepAlive   time.Duration `default:"60s" help:"Keep Alive."`
	ConnectRate int           `default:"0" placeholder:"N" help:"Connections begun in a second; 0: 64 at a time, as fast as they are made (${default})."`
	Duration    time.Duration `default:"30s" help:"How long the load goes on; Ctrl-C ends it in order."`
	JSON        bool          `name:"json" help:"Print the result as JSON."`
}

// target checks what was said.
func (c *benchTarget) target() (t bench.Target, err error) {
	var errs []error
	for _, a := range c.Address {
		if _, _, err := net.SplitHostPort(a); err != nil {
			errs = append(errs, fmt.Errorf("--address %q is not HOST:PORT", a))
		}
	}
	t = bench.Target{Addresses: c.Address, Version: 5, ClientID: c.ClientID, Username: c.Username, KeepAlive: c.KeepAlive, ConnectRate: c.ConnectRate}
	if c.MQTT == "3.1.1" {
		t.Version = 4
	}
	if c.Websocket {
		t.WebSocket = c.Path
	}
	if !strings.Contains(c.ClientID, "{device}") {
		errs = append(errs, errors.New("--client-id needs {device}, or the devices take the connection from each other"))
	}
	if c.KeepAlive < 0 || c.KeepAlive > 65535*time.Second {
		errs = append(errs, errors.New("--keep-alive must be 0s to 65535s"))
	}
	errs = append(errs, atLeast("--connect-rate", c.ConnectRate, 0), positive("--duration", c.Duration))
	if t.Password, err = c.password(); err != nil {
		errs = append(errs, err)
	}
	if c.TLS || c.CA != "" || c.Certificate != "" || c.Key != "" || c.ServerName != "" {
		if (c.Certificate == "") != (c.Key == "") {
			errs = append(errs, errors.New("--certificate and --key belong together"))
		} else if t.TLS, err = tls.NewClient(tls.ClientConfig{CA: c.CA, Certificate: c.Certificate, Key: c.Key, ServerName: c.ServerName, Logger: zerolog.Nop()}); err != nil {
			errs = append(errs, err)
		}
	}
	return t, errors.Join(errs...)
}

func (c *benchTarget) password() (string, error) {
	text := os.Getenv("SLUICE_BENCH_PASSWORD")
	if c.PasswordFile != "" {
		b, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return "", fmt.Errorf("cannot read the password: %w", err)
		}
		text, _, _ = strings.Cut(string(b), "\n")
		text = strings.TrimSuffix(text, "\r")
	}
	switch {
	case c.Username == "" && c.PasswordFile != "":
		return "", errors.New("--password-file needs --username")
	case c.Username != "" && text == "":
		return "", errors.New("--username needs a password: --password-file, or the variable SLUICE_BENCH_PASSWORD")
	}
	return text, nil
}

// benchKafka is where Kafka is, for loads that read or write there.
type benchKafka struct {
	Kafka  []string `xor:"kafka" placeholder:"HOST:PORT" help:"Some brokers of the Kafka behind it."`
	Config string   `short:"c" xor:"kafka" placeholder:"FILE" help:"Sluice's configuration, whose kafka section says where Kafka is and how to log in."`
}

// kafka gives how to reach Kafka; said is false if nothing says so.
func (c *benchKafka) kafka() (cfg kafka.Config, said bool, err error) {
	if c.Config == "" {
		return kafka.Config{Brokers: c.Kafka, ClientID: "sluice-bench"}, len(c.Kafka) > 0, nil
	}
	file, err := configFlag{c.Config}.load()
	if err != nil {
		return kafka.Config{}, false, err
	}
	cfg, err = proxy.KafkaClient(file)
	return cfg, true, err
}

func atLeast(flag string, n, least int) error {
	if n < least {
		return fmt.Errorf("%s must be at least %d", flag, least)
	}
	return nil
}

func between(flag string, n, least, most int) error {
	if n < least || n > most {
		return fmt.Errorf("%s must be %d to %d", flag, least, most)
	}
	return nil
}

func devices(n int) error { return between("--connections", n, 1, bench.MaxDevices) }

func positive(flag string, d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("%s must be more than 0s", flag)
	}
	return nil
}

// newRun gives a name that no run before had.
func newRun() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// untilInterrupted gives a context that ends with SIGINT or SIGTERM; a second one ends the process at once.
func untilInterrupted() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// terminal gives err if a person looks at it, and how many columns it has.
func terminal(err io.Writer) (io.Writer, func() int) {
	f, ok := err.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return nil, nil
	}
	return f, func() int {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return w
		}
		return 80
	}
}

// show shows a bar if a person looks at it.
func show(std streams, title string, state func() bench.State) *bench.Bar {
	w, width := terminal(std.err)
	return bench.Show(w, width, title, state)
}

// kafkaTime is how long Kafka may take to say where its topics end.
const kafkaTime = 20 * time.Second

// beginReading asks Kafka where its topics end now.
func beginReading(ctx context.Context, begin func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, kafkaTime)
	defer cancel()
	return begin(ctx)
}

// connecting connects with a bar.
func connecting(ctx context.Context, std streams, wanted int, done func() int, connect func(context.Context) error) error {
	bar := show(std, "connecting", func() bench.State {
		return bench.State{Done: float64(done()) / float64(wanted), Text: bench.Thousands(done()) + " of " + bench.Thousands(wanted)}
	})
	defer bar.Close()
	return connect(ctx)
}

// A benchResult is what a load saw.
type benchResult interface {
	WriteTable(w io.Writer) error
	Err() error
}

// print writes a result; its faults are the error.
func (c *benchTarget) print(std streams, r benchResult) error {
	write := r.WriteTable
	if c.JSON {
		write = func(w io.Writer) error {
			e := json.NewEncoder(w)
			e.SetIndent("", "  ")
			return e.Encode(r)
		}
	}
	return errors.Join(write(std.out), r.Err())
}
