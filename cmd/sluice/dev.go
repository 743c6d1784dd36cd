package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"sluice/kafka/embedded"
	"sluice/proxy"
	"sluice/proxy/config"
)

type devCommand struct {
	Address string `default:"127.0.0.1:1883" help:"Where to listen for MQTT."`
	Admin   string `default:"127.0.0.1:8080" help:"Where to serve /readyz and /metrics."`
	Kafka   int    `default:"0" help:"Port of the embedded Kafka on 127.0.0.1; 0: any free one."`
	Config  string `short:"c" placeholder:"FILE" help:"Use the rules of this configuration instead of one that takes every topic."`
	Log     string `default:"warn" enum:"trace,debug,info,warn,error" help:"Log level."`
}

// devRules are used without --config: device topics by device, everything else too.
const devRules = `
  - match: devices/{device}/{kind...}
    topic: devices
    key: "{device}"
    headers: {kind: "{kind}"}
  - match: "#"
    topic: messages
commands:
  - topic: commands
    publish: devices/{key}/commands/{header.name}
    client: "{key}"
    receipts: command-receipts
`

// Run serves devices on an embedded Kafka until it is interrupted, and prints every record as it lands.
func (c *devCommand) Run(std streams) error {
	hangups := catchHangups()
	cluster, err := embedded.Start(embedded.Config{Port: c.Kafka})
	if err != nil {
		return fmt.Errorf("cannot start the embedded Kafka: %w", err)
	}
	defer cluster.Close()
	cfg, err := c.config(cluster.Brokers())
	if err != nil {
		return err
	}
	log := newLogger(std, cfg.Log)
	ctx := untilStopped(log, hangups)
	p, err := proxy.New(cfg, log, newRegistry())
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.Run(gctx) })
	g.Go(func() error { // ends with gctx
		select {
		case <-p.Serving():
			c.printWelcome(std.out, cfg, cluster.Brokers(), p)
		case <-gctx.Done():
			return nil
		}
		printer := &recordPrinter{out: std.out}
		err := cluster.Tail(gctx, printer.print)
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	fmt.Fprintln(std.out, "\nstopped")
	return nil
}

// config makes the configuration: the user's rules or the default ones, this process's Kafka.
func (c *devCommand) config(brokers []string) (*config.Config, error) {
	if c.Config != "" {
		cfg, err := configFlag{c.Config}.load()
		if err != nil {
			return nil, err
		}
		cfg.Kafka.Brokers, cfg.Kafka.TLS, cfg.Kafka.SASL, cfg.Kafka.Identities = brokers, nil, nil, nil
		for i := range cfg.Publish {
			cfg.Publish[i].Identity = ""
		}
		// There is no certificate to show on the listener here.
		cfg.Auth = slices.DeleteFunc(cfg.Auth, func(m config.AuthMethod) bool { return m.MTLS != nil })
		cfg.Listeners = []config.Listener{{Address: c.Address}}
		cfg.Admin.Address, cfg.Log.Level = c.Admin, c.Log
		cfg.Kafka.CreateTopics = &config.CreateTopics{Partitions: 3, Replication: 1}
		return cfg, nil
	}
	text := fmt.Sprintf("listeners: [{address: %q}]\nkafka: {brokers: [%q], create_topics: {partitions: 3, replication: 1}}\nadmin: {address: %q}\nlog: {level: %s}\npublish:%s",
		c.Address, strings.Join(brokers, `", "`), c.Admin, c.Log, devRules)
	cfg, err := config.Parse("the command line", []byte(text), os.LookupEnv)
	if err != nil {
		return nil, usageError{err}
	}
	return cfg, nil
}

func (c *devCommand) printWelcome(w io.Writer, cfg *config.Config, brokers []string, p *proxy.Proxy) {
	listeners, admin := p.Addresses()
	host, port, _ := net.SplitHostPort(listeners[0].String())
	fmt.Fprintf(w, "Sluice %s is taking MQTT messages on %s into an embedded Kafka on %s.\n", version, listeners[0], strings.Join(brokers, ","))
	fmt.Fprintln(w, "Nothing here outlives this process. Stop it with Ctrl-C.")
	if c.Config == "" { // else nobody knows which topics the rules take
		fmt.Fprintln(w, "\nPublish something from another terminal:")
		fmt.Fprintf(w, "  mosquitto_pub -h %s -p %s -q 1 -i d1 -t devices/d1/telemetry -m '{\"temp\": 21.5}'\n", host, port)
		fmt.Fprintf(w, "  npx mqtt pub -h %s -p %s -q 1 -i d2 -t devices/d2/telemetry -m 'hello'        (MQTT.js; MQTTX: mqttx pub with the same options)\n", host, port)
		fmt.Fprintln(w, "\nOr send a command to a device that listens:")
		fmt.Fprintf(w, "  mosquitto_sub -h %s -p %s -q 1 -i d1 -V 5 -t 'devices/d1/commands/#' -F '%%t: %%p'\n", host, port)
		fmt.Fprintf(w, "  echo now | kcat -P -b %s -t commands -k d1 -H name=reboot\n", strings.Join(brokers, ","))
	}
	fmt.Fprintln(w, "\nRules, the first that matches wins:")
	for i, r := range cfg.Publish {
		fmt.Fprintf(w, "  %d  %s  ->  Kafka topic %s\n", i+1, r.Match+r.Regex, r.Topic)
	}
	for i, r := range cfg.Commands {
		fmt.Fprintf(w, "  %d  Kafka topic %s  ->  %s\n", i+1, r.Topic+r.Pattern, r.Publish)
	}
	if admin != nil {
		fmt.Fprintf(w, "\nMetrics: http://%s/metrics\n", admin)
	}
	fmt.Fprintln(w, "\nRecords as they land:")
}

// ownTopics begin the names of the topics that hold sessions and retained messages. Heartbeats alone are one every two
// seconds.
const ownTopics = "sluice-"

// A recordPrinter shows records, one at a time, but for those of our own topics.
type recordPrinter struct {
	mu  sync.Mutex
	out io.Writer
}

func (p *recordPrinter) print(r embedded.Record) {
	if strings.HasPrefix(r.Topic, ownTopics) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, "\n%s  partition %d  offset %d  key %s\n", r.Topic, r.Partition, r.Offset, shown(r.Key, 200))
	for _, h := range r.Headers {
		fmt.Fprintf(p.out, "    %s: %s\n", shown([]byte(h.Key), 200), shown(h.Value, 200))
	}
	fmt.Fprintf(p.out, "  %s\n", shown(r.Value, 2000))
}

// shown makes bytes of a device safe for a terminal: plain if printable, else quoted or in hex.
func shown(b []byte, most int) string {
	if b == nil {
		return "none"
	}
	cut := ""
	if len(b) > most {
		cut = fmt.Sprintf(" … (%d bytes)", len(b))
		b = b[:most]
		for len(b) > 0 && !utf8.Valid(b) && most-len(b) < 4 {
			b = b[:len(b)-1]
		}
	}
	if !utf8.Valid(b) {
		return fmt.Sprintf("0x%x%s", b, cut)
	}
	quoted := fmt.Sprintf("%q", b)
	if inner := quoted[1 : len(quoted)-1]; len(b) > 0 && strings.ReplaceAll(inner, `\"`, `"`) == string(b) {
		return string(b) + cut
	}
	return quoted + cut
}
