package test

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/kafka/embedded"
	"sluice/test/clients"
	"sluice/test/internal/child"
	"sluice/test/internal/ports"
)

// command runs the binary to its end and gives what it printed and its exit code.
func command(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, errs strings.Builder
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	require.NoError(t, ctx.Err())
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "sluice.yaml")
	require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

const goodConfig = `
listeners: [{address: 127.0.0.1:1883}]
kafka: {brokers: [127.0.0.1:1], create_topics: {partitions: 12, replication: 3}}
publish:
  - match: devices/{device}/telemetry/{metric...}
    topic: telemetry
    key: "{device}"
    headers: {metric: "{metric}"}
  - match: plants/{plant}/#
    topic: "plant-{plant}"
    key: "{payload.machine.id}"
`

func TestCheckReportsEveryFaultWithItsPlace(t *testing.T) {
	_, _, code := command(t, "check", "--config", file(t, goodConfig))
	require.Zero(t, code)
	bad := strings.Replace(goodConfig, "topic: telemetry", "topci: telemetry", 1)
	bad = strings.Replace(bad, "partitions: 12", "partitions: many", 1)
	name := file(t, bad)
	_, stderr, code := command(t, "check", "--config", name)
	require.Equal(t, 2, code)
	require.Contains(t, stderr, name+":3:")
	require.Contains(t, stderr, name+":6:5")
	require.Contains(t, stderr, "topci")
	require.Contains(t, stderr, "^")
}

func TestServeRefusesAWrongConfigurationWithExitCode2(t *testing.T) {
	_, stderr, code := command(t, "serve", "--config", file(t, "listeners: 7"))
	require.Equal(t, 2, code)
	require.Contains(t, stderr, ":1:")
	_, _, code = command(t, "serve", "--config", filepath.Join(t.TempDir(), "missing.yaml"))
	require.Equal(t, 2, code)
	_, _, code = command(t, "serve")
	require.Equal(t, 2, code)
	_, _, code = command(t, "no-such-command")
	require.Equal(t, 2, code)
}

func TestExplainShowsRuleTopicKeyPartitionAndHeaders(t *testing.T) {
	name := file(t, goodConfig)
	out, _, code := command(t, "explain", "--config", name, "--topic", "devices/d1/telemetry/temp/inside", "--client-id", "c1",
		"--user-property", "site=north")
	require.Zero(t, code)
	for _, want := range []string{"1  devices/{device}/telemetry/{metric...}", "telemetry\n", `"d1"`, "of 12", `mqtt.client_id = "c1"`, `site = "north"`, `metric = "temp/inside"`} {
		require.Contains(t, out, want)
	}
	out, _, code = command(t, "explain", "--config", name, "--topic", "plants/p7/x", "--payload", `{"machine": {"id": 42}}`)
	require.Zero(t, code)
	require.Contains(t, out, "plant-p7")
	require.Contains(t, out, `"42"`)
	out, _, code = command(t, "explain", "--config", name, "--topic", "elsewhere")
	require.Zero(t, code)
	require.Contains(t, out, "none matches")
	require.Contains(t, out, "0x90")
}

const commandConfig = `
listeners: [{address: 127.0.0.1:1883}]
kafka: {brokers: [127.0.0.1:1]}
commands:
  - topic: device-commands
    publish: devices/{key}/commands/{header.name}
    client: "{key}"
    expiry: 10m
    correlation_data: "{header.id}"
    receipts: command-receipts
  - pattern: '^plant-(?P<plant>[0-9]+)$'
    publish: plants/{plant}/{payload.to}
    qos: 2
    retain: true
    offline: drop
`

func TestCheckCountsCommandsAndNamesTheirTopics(t *testing.T) {
	out, _, code := command(t, "check", "--config", file(t, commandConfig))
	require.Zero(t, code)
	require.Contains(t, out, "0 publish rules, 2 command rules")
	require.Contains(t, out, "[command-receipts device-commands]")
	name := file(t, strings.Replace(commandConfig, "{header.name}", "{headers.name}", 1))
	_, stderr, code := command(t, "check", "--config", name)
	require.Equal(t, 2, code)
	require.Contains(t, stderr, name+":6:")
	require.Contains(t, stderr, "headers.name")
}

// TestExplainShowsWhatARecordBecomes: all that a device would see, and where the answer goes.
func TestExplainShowsWhatARecordBecomes(t *testing.T) {
	name := file(t, commandConfig)
	f := func(args string, want ...string) {
		t.Helper()
		out, stderr, code := command(t, append([]string{"explain", "--config", name}, strings.Split(args, " ")...)...)
		require.Zero(t, code, stderr)
		for _, line := range strings.Split(strings.TrimSpace(out), "\n") { // the columns aside
			require.NotEmpty(t, want, "more than expected: %s", line)
			require.Equal(t, want[0], strings.Join(strings.Fields(line), " "))
			want = want[1:]
		}
		require.Empty(t, want)
	}
	f("--kafka-topic device-commands --key d1 --header name=reboot --header id=7 --header mqtt.content_type=text/plain --header mqtt.response_topic=a/b --payload now",
		"rule 1 device-commands", "MQTT topic devices/d1/commands/reboot",
		"to client ID d1, if it has subscribed to the topic; stored sessions get it at their return", "QoS 1", "expires 10m0s after the record's timestamp",
		`content type "text/plain"`, `response topic "a/b"`, `correlation "7"`, `user properties name = "reboot"`, `id = "7"`, "receipts command-receipts")
	f(`--kafka-topic plant-7 --payload {"to":"x"} --header mqtt.expiry=0`,
		"rule 2 ^plant-(?P<plant>[0-9]+)$", "MQTT topic plants/7/x", "to every device that has subscribed to the topic and is connected", "QoS 2",
		"RETAIN set, for subscriptions with Retain As Published", "expires at once")
	f("--kafka-topic device-commands --key d1 --header name=reboot --header mqtt.qos=high",
		"rule 1 device-commands", "refused invalid_header: mqtt.qos is not 0, 1 or 2", "receipts command-receipts")
	f("--kafka-topic device-commands --header name=reboot",
		"rule 1 device-commands", "refused missing_value: publish needs {key}, which the record does not have", "receipts command-receipts")
	f("--kafka-topic device-commands --key d1 --header mqtt.cancel=7",
		`cancels the commands with the same Kafka topic and key and correlation data "7", where they were not yet sent`)
	f("--kafka-topic other", "rule none matches", "refused no_rule: no rule takes this record")
}

func TestExplainRefusesArgumentsThatFitNothing(t *testing.T) {
	name := file(t, commandConfig)
	f := func(want string, args ...string) {
		t.Helper()
		out, stderr, code := command(t, append([]string{"explain", "--config", name}, args...)...)
		require.Equal(t, 2, code)
		require.Empty(t, out)
		require.Contains(t, stderr, want)
	}
	f("--topic")
	f("can't be used together", "--topic", "a", "--kafka-topic", "device-commands")
	for _, of := range []string{"--username=u", "--retain", "--user-property=a=b", "--partitions=3"} {
		f("can't be used together", "--kafka-topic", "device-commands", of)
	}
	for _, of := range []string{"--key=k", "--header=a=b"} {
		f("can't be used together", "--topic", "a", of)
	}
	f(`--header "name" is not NAME=VALUE`, "--kafka-topic", "device-commands", "--header", "name")
	f("cannot read the payload", "--kafka-topic", "device-commands", "--payload", "@"+filepath.Join(t.TempDir(), "missing"))
}

// TestCheckReadsTheFilesThatServeReads: all faults at once, and the same exit code.
func TestCheckReadsTheFilesThatServeReads(t *testing.T) {
	missing := strings.Replace(goodConfig, "[{address: 127.0.0.1:1883}]", "[{address: 127.0.0.1:1883, tls: {certificate: no.pem, key: no.key}}]", 1) + "auth: {file: nobody.yaml}\n"
	missing = strings.Replace(missing, "brokers: [127.0.0.1:1]", "brokers: [127.0.0.1:1], tls: {ca: no-ca.pem}", 1)
	for _, verb := range []string{"check", "serve"} {
		_, stderr, code := command(t, verb, "--config", file(t, missing))
		require.Equal(t, 2, code, stderr)
		for _, name := range []string{"no.pem", "nobody.yaml", "no-ca.pem"} {
			require.Contains(t, stderr, name, verb)
		}
	}
}

func TestPasswdPrintsALineForAUsersFile(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "passwd", "dev1")
	cmd.Stdin = strings.NewReader("a secret\n")
	line, err := cmd.Output()
	require.NoError(t, err)
	require.Regexp(t, `^  - \{name: "dev1", password: "\$argon2id\$[^"]+"\}\n$`, string(line))
	users := filepath.Join(t.TempDir(), "users.yaml")
	require.NoError(t, os.WriteFile(users, append([]byte("users:\n"), line...), 0o600))

	config := file(t, goodConfig+"auth: {file: "+strconv.Quote(users)+"}\n")
	_, stderr, code := command(t, "check", "--config", config)
	require.Zero(t, code, stderr)
	_, stderr, code = command(t, "passwd", "dev1") // nothing comes in
	require.Equal(t, 2, code, stderr)
}

// TestPasswdRefusesWhatTheUsersFileRefuses, and a password that it would have to cut.
func TestPasswdRefusesWhatTheUsersFileRefuses(t *testing.T) {
	passwd := func(name, password string) (int, string) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, "passwd", "--", name)
		cmd.Stdin = strings.NewReader(password)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		_ = cmd.Run()
		require.NoError(t, ctx.Err())
		return cmd.ProcessState.ExitCode(), stderr.String()
	}
	for _, name := range []string{"", "a/b", "plant+", "#", "a\nb", strings.Repeat("a", 1025)} {
		code, stderr := passwd(name, "a secret\n")
		require.Equal(t, 2, code, "%q: %s", name, stderr)
		require.Contains(t, stderr, "must have 1 to 1024 bytes", name)
	}
	for length, want := range map[int]int{1024: 0, 1025: 2, 5000: 2} {
		code, stderr := passwd("dev1", strings.Repeat("p", length)+"\n")
		require.Equal(t, want, code, stderr)
		require.NotContains(t, stderr, "ppp")
	}
}

func TestSchemaAndVersionPrint(t *testing.T) {
	out, _, code := command(t, "schema")
	require.Zero(t, code)
	require.Contains(t, out, `"$schema"`)
	out, _, code = command(t, "version")
	require.Zero(t, code)
	require.Contains(t, out, "sluice")
	out, _, code = command(t, "--help")
	require.Zero(t, code)
	require.Contains(t, out, "explain")
}

// dev starts `sluice dev` on free ports and gives what it prints, until end interrupts it and waits. kafka is where
// its Kafka is.
func dev(t *testing.T) (mqtt, kafka string, lines <-chan string, end func()) {
	t.Helper()
	taken, err := ports.Take(3)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ports.Release(taken)) })
	cmd := exec.Command(program, "dev", "--address", taken[0].Addr(), "--admin", taken[1].Addr(), "--kafka", strconv.Itoa(taken[2].Number))
	cmd.SysProcAttr = child.DiesWithUs()
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	printed := make(chan string, 100)
	go func() { // ends with the process
		defer close(printed)
		for s := bufio.NewScanner(out); s.Scan(); {
			printed <- s.Text()
		}
		_, _ = io.Copy(io.Discard, out)
	}()
	return taken[0].Addr(), taken[2].Addr(), printed, func() {
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		for range printed { // until it has ended
		}
		require.NoError(t, cmd.Wait())
	}
}

// TestDevShowsARecordAsItLands: the newcomer's first minute.
func TestDevShowsARecordAsItLands(t *testing.T) {
	addr, _, lines, end := dev(t)
	welcome := until(t, lines, "Records as they land")
	require.Contains(t, welcome, addr)
	require.Contains(t, welcome, "mosquitto_pub -h 127.0.0.1")
	require.Contains(t, welcome, "mqtt pub")

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := clients.Go(t).Run(ctx, addr, clients.V5, 1, []clients.Message{{Topic: "devices/d1/telemetry", Payload: []byte(`{"temp": 21.5}`)}})
	require.NoError(t, err)
	record := until(t, lines, `{"temp": 21.5}`)
	for _, want := range []string{"devices  partition ", "offset 0", "key d1", "mqtt.topic: devices/d1/telemetry", "kind: telemetry"} {
		require.Contains(t, record, want)
	}
	end()
}

// TestDevTakesACommandToADevice: the newcomer's second minute, with the commands that the welcome shows.
func TestDevTakesACommandToADevice(t *testing.T) {
	addr, kafka, lines, end := dev(t)
	welcome := until(t, lines, "Records as they land")
	require.Contains(t, welcome, "-i d1 -V 5 -t 'devices/d1/commands/#'")
	require.Contains(t, welcome, "kcat -P -b "+kafka+" -t commands -k d1 -H name=reboot")
	require.Contains(t, welcome, "Kafka topic commands  ->  devices/{key}/commands/{header.name}")

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sender, err := kgo.NewClient(kgo.SeedBrokers(kafka))
	require.NoError(t, err)
	defer sender.Close()
	send := func() {
		t.Helper()
		require.NoError(t, sender.ProduceSync(ctx, &kgo.Record{Topic: "commands", Key: []byte("d1"), Value: []byte("now"),
			Headers: []kgo.RecordHeader{{Key: "name", Value: []byte("reboot")}}}).FirstErr())
	}
	send()
	require.Contains(t, until(t, lines, `"outcome":"offline"`), "command-receipts  partition ")
	client := clients.Go(t)
	client.ClientID = "d1"
	d, err := client.Subscribe(ctx, addr, clients.V5, clients.Subscription{Filters: []string{"devices/d1/commands/#"}, QoS: 1})
	require.NoError(t, err)
	send()
	got, err := d.Await(ctx, 1)
	require.NoError(t, err)
	require.Equal(t, "devices/d1/commands/reboot now", got[0].Topic+" "+string(got[0].Payload))
	until(t, lines, `"client_id":"d1","outcome":"delivered"`)
	require.NoError(t, d.Close())
	end()
}

// until collects lines up to one that contains want.
func until(t *testing.T, lines <-chan string, want string) string {
	t.Helper()
	limit := time.After(time.Minute)
	var all strings.Builder
	for {
		select {
		case line, ok := <-lines:
			require.True(t, ok, "the output ended before %q:\n%s", want, all.String())
			all.WriteString(line + "\n")
			if strings.Contains(line, want) {
				return all.String()
			}
		case <-limit:
			t.Fatalf("no %q in time:\n%s", want, all.String())
		}
	}
}

// TestSighupEndsNothing: a terminal that closes, or a habitual "reload", takes nothing from the devices.
func TestSighupEndsNothing(t *testing.T) {
	kafka, err := embedded.Start(embedded.Config{Topics: []string{"data"}})
	require.NoError(t, err)
	t.Cleanup(kafka.Close)
	f := func(s *instance) {
		t.Helper()
		require.NoError(t, s.cmd.Process.Signal(syscall.SIGHUP))
		require.Eventually(t, func() bool { return !s.running() || strings.Contains(s.log.String(), "SIGHUP is ignored") }, time.Minute, 10*time.Millisecond)
		require.True(t, s.running(), "it ended")
		p := dial(t, s.address, "d", nil)
		answer, err := p.Publish(t.Context(), &paho.Publish{Topic: "chat/d", QoS: 1})
		require.NoError(t, err)
		require.Zero(t, answer.ReasonCode)
		require.Zero(t, s.terminate())
	}
	f(serve(t, kafka.Brokers(), `  [{match: "#", topic: data}]`, ""))
	f(try(t, "loopback.yaml").instance)
}

// TestSighupWhileTheConfigurationIsReadEndsNothing: the signal comes before there is a log, and is told of when there is one.
func TestSighupWhileTheConfigurationIsReadEndsNothing(t *testing.T) {
	kafka, err := embedded.Start(embedded.Config{Topics: []string{"data"}})
	require.NoError(t, err)
	t.Cleanup(kafka.Close)
	s := prepare(t, kafka.Brokers(), `  [{match: "#", topic: data}]`, "")
	config := s.args[len(s.args)-1]
	text, err := os.ReadFile(config)
	require.NoError(t, err)
	require.NoError(t, os.Remove(config))
	require.NoError(t, syscall.Mkfifo(config, 0o600))
	s.start()
	pipe, err := os.OpenFile(config, os.O_WRONLY, 0) // returns when it is being read
	require.NoError(t, err)
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGHUP))
	_, err = pipe.Write(text)
	require.NoError(t, err)
	require.NoError(t, pipe.Close())
	s.awaitReady()
	require.Contains(t, s.log.String(), "SIGHUP is ignored")
	require.Zero(t, s.terminate())
}

// TestALogThatNobodyReadsEndsNothing: what the log was piped to has ended.
func TestALogThatNobodyReadsEndsNothing(t *testing.T) {
	kafka, err := embedded.Start(embedded.Config{Topics: []string{"data"}})
	require.NoError(t, err)
	t.Cleanup(kafka.Close)
	s := serve(t, kafka.Brokers(), `  [{match: "#", topic: data}]`, "")
	s.log.mu.Lock()
	s.log.gone = true
	s.log.mu.Unlock()
	for range 3 { // a line of each, the first of which finds that nobody reads
		c, err := net.Dial("tcp", s.address)
		require.NoError(t, err)
		_, err = c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		require.NoError(t, err)
		_, _ = io.Copy(io.Discard, c) // until we are thrown out
		require.NoError(t, c.Close())
	}
	answer, err := dial(t, s.address, "d", nil).Publish(t.Context(), &paho.Publish{Topic: "chat/d", QoS: 1})
	require.NoError(t, err)
	require.Zero(t, answer.ReasonCode)
}
