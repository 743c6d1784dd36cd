package test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/kafka/embedded"
	"sluice/test/internal/child"
	"sluice/test/internal/notrun"
	"sluice/test/internal/ports"
)

// A trial is a running `sluice dev` with one of the examples.
type trial struct {
	*instance
	kafka string
}

func try(t *testing.T, example string) *trial {
	t.Helper()
	taken, err := ports.Take(3)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ports.Release(taken)) })
	d := &trial{&instance{t: t, program: program, address: taken[0].Addr(), admin: taken[1].Addr(), log: new(lockedBuffer)}, taken[2].Addr()}
	d.args = []string{"dev", "--config", filepath.Join("..", "examples", example), "--address", d.address, "--admin", d.admin,
		"--kafka", fmt.Sprint(taken[2].Number)}
	t.Cleanup(d.cleanup)
	d.start()
	d.awaitReady()
	return d
}

// A phone is a client with MQTT 5 that was not written here, and what it received.
type phone struct {
	*paho.Client
	mu       sync.Mutex
	received []*paho.Publish
	work     sync.WaitGroup
}

// dial connects; the session outlives the connection by a minute.
func dial(t *testing.T, address, clientID string, answer func(p *phone, request *paho.Publish)) *phone {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	p := new(phone)
	p.Client = paho.NewClient(paho.ClientConfig{Conn: conn, OnPublishReceived: []func(paho.PublishReceived) (bool, error){
		func(r paho.PublishReceived) (bool, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.received = append(p.received, r.Packet)
			if answer != nil {
				p.work.Go(func() { answer(p, r.Packet) }) // ends with its PUBACK; here it would keep that from being read
			}
			return true, nil
		}}})
	expiry := uint32(60)
	_, err = p.Connect(t.Context(), &paho.Connect{ClientID: clientID, KeepAlive: 60, Properties: &paho.ConnectProperties{SessionExpiryInterval: &expiry}})
	require.NoError(t, err)
	t.Cleanup(p.hangUp)
	return p
}

func (p *phone) hangUp() {
	p.work.Wait()
	_ = p.Disconnect(&paho.Disconnect{}) // fails the second time
	<-p.Done()
}

func (p *phone) listen(t *testing.T, filter string, noLocal bool) {
	t.Helper()
	_, err := p.Subscribe(t.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: 1, NoLocal: noLocal}}})
	require.NoError(t, err)
}

// heard gives the payloads that came to a topic of which name is a part.
func (p *phone) heard(name string) (payloads []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.received {
		if strings.Contains(m.Topic, name) {
			payloads = append(payloads, string(m.Payload))
		}
	}
	return payloads
}

func (p *phone) send(t *testing.T, topic, payload string, method paho.PublishMethod) {
	t.Helper()
	_, err := p.PublishWithOptions(t.Context(), &paho.Publish{Topic: topic, Payload: []byte(payload), QoS: 1}, paho.PublishOptions{Method: method})
	require.NoError(t, err)
}

// reply answers as MQTT 5 says: to the Response Topic, with the Correlation Data.
func reply(p *phone, request *paho.Publish) {
	_, _ = p.Publish(context.Background(), &paho.Publish{Topic: request.Properties.ResponseTopic, QoS: 1, Payload: append([]byte("did "), request.Payload...),
		Properties: &paho.PublishProperties{CorrelationData: request.Properties.CorrelationData}}) // whoever asked notices a failure
}

// buildAsk builds examples/ask beside the program under test.
var buildAsk = sync.OnceValues(func() (path string, err error) {
	path = filepath.Join(filepath.Dir(program), "ask")
	out, err := exec.Command("go", "build", "-o", path, "../examples/ask").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return path, err
})

// runAsk runs it to its end.
func runAsk(t *testing.T, broker string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	path, err := buildAsk()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, errs strings.Builder
	cmd := exec.CommandContext(ctx, path, append([]string{"--brokers", broker}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	require.NoError(t, ctx.Err())
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// asked is runAsk for a device, with a time limit that no machine exceeds.
func asked(t *testing.T, broker, device, payload string, more ...string) (stdout, stderr string, code int) {
	t.Helper()
	return runAsk(t, broker, append(append([]string{"--device", device, "--name", "do", "--timeout", "50s"}, more...), payload)...)
}

func TestAskGetsTheAnswerOfEachDevice(t *testing.T) {
	besideOthers(t)
	d := try(t, "request-reply.yaml")
	for _, id := range []string{"d1", "d2"} {
		dial(t, d.address, id, reply).listen(t, "devices/"+id+"/requests/#", false)
	}
	var wg sync.WaitGroup
	for i := range 6 { // at once: nobody takes another's answer
		wg.Go(func() {
			payload := fmt.Sprint("job ", i)
			out, errs, code := asked(t, d.kafka, fmt.Sprint("d", 1+i%2), payload)
			require.Zero(t, code, errs)
			require.Equal(t, "did "+payload+"\n", out)
		})
	}
	wg.Wait()
}

// TestAskGetsTheAnswerOfADeviceWithoutProperties: MQTT 3.1.1, where the topic carries the ID there and back.
func TestAskGetsTheAnswerOfADeviceWithoutProperties(t *testing.T) {
	besideOthers(t)
	sub, err := exec.LookPath("mosquitto_sub")
	if err != nil {
		notrun.Because(t, false, "", "mosquitto_sub is missing. Remedy: install mosquitto's clients (Debian: apt-get install mosquitto-clients)")
	}
	d := try(t, "request-reply.yaml")
	host, port, err := net.SplitHostPort(d.address)
	require.NoError(t, err)
	cmd := exec.Command(sub, "-h", host, "-p", port, "-V", "mqttv311", "-i", "old", "-q", "1", "-t", "devices/old/requests/#", "-F", "%t %p", "-C", "1")
	cmd.SysProcAttr = child.DiesWithUs()
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Wait() })
	require.Eventually(t, func() bool { return d.metric("sluice_mqtt_subscriptions") == 1 }, time.Minute, 10*time.Millisecond)
	answered := make(chan error, 1)
	go func() { // ends after one request, or with the process
		topic, payload, _ := strings.Cut(strings.TrimSpace(lineOf(bufio.NewReader(out))), " ")
		id := topic[strings.LastIndexByte(topic, '/')+1:]
		answered <- exec.Command("mosquitto_pub", "-h", host, "-p", port, "-V", "mqttv311", "-i", "old-2", "-q", "1",
			"-t", "devices/old/answers/"+id, "-m", "did "+payload).Run()
	}()
	stdout, errs, code := asked(t, d.kafka, "old", "job", "--v3")
	require.Zero(t, code, errs)
	require.Equal(t, "did job\n", stdout)
	require.NoError(t, <-answered)
}

func lineOf(r *bufio.Reader) string {
	line, _ := r.ReadString('\n')
	return line
}

func TestAskSaysThatTheDeviceIsNotThere(t *testing.T) {
	besideOthers(t)
	d := try(t, "request-reply.yaml")
	_, errs, code := asked(t, d.kafka, "nobody", "job")
	require.Equal(t, 1, code)
	require.Equal(t, "ask: no answer from nobody: offline (not_connected)\n", errs)
	dial(t, d.address, "deaf", nil).listen(t, "elsewhere", false)
	_, errs, code = asked(t, d.kafka, "deaf", "job")
	require.Equal(t, 1, code)
	require.Equal(t, "ask: no answer from deaf: dropped (not_subscribed)\n", errs)
}

// TestAskWithdrawsWhatTookTooLong: a device that is away does not do later what nobody waits for any more.
func TestAskWithdrawsWhatTookTooLong(t *testing.T) {
	d := try(t, "request-reply.yaml")
	p := dial(t, d.address, "d1", nil)
	p.listen(t, "devices/d1/requests/#", false)
	_, errs, code := asked(t, d.kafka, "d1", "unanswered", "--timeout", "4s")
	require.Equal(t, 1, code)
	require.Equal(t, "ask: no answer from d1 within 4s: delivered; cancelled\n", errs)
	require.Equal(t, []string{"unanswered"}, p.heard("requests"))

	p.hangUp()
	_, errs, code = asked(t, d.kafka, "d1", "too late", "--timeout", "2s")
	require.Equal(t, 1, code)
	require.Equal(t, "ask: no answer from d1 within 2s; cancelled\n", errs)
	p = dial(t, d.address, "d1", reply) // its session, with the subscription; what was cancelled waited in Kafka
	require.Eventually(t, func() bool {
		return d.metric("sluice_command_outcomes_total", `outcome="cancelled"`)+d.metric("sluice_command_outcomes_total", `outcome="expired"`) == 1
	},
		time.Minute, 10*time.Millisecond)
	out, errs, code := asked(t, d.kafka, "d1", "in time")
	require.Zero(t, code, errs)
	require.Equal(t, "did in time\n", out)
	require.Equal(t, []string{"in time"}, p.heard("requests"))
}

// A pretender is a Kafka with the topics of the example, in which the test says what Sluice would.
type pretender struct {
	*embedded.Cluster
	t      *testing.T
	client *kgo.Client
}

// pretend calls play for every request, with its ID.
func pretend(t *testing.T, play func(p *pretender, r embedded.Record, id string)) *pretender {
	t.Helper()
	c, err := embedded.Start(embedded.Config{Topics: []string{"requests", "answers", "receipts"}})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers()...))
	require.NoError(t, err)
	t.Cleanup(client.Close)
	p := &pretender{c, t, client}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { // ends with ctx
		_ = c.Tail(ctx, func(r embedded.Record) {
			if r.Topic == "requests" {
				play(p, r, headerOf(r, "mqtt.correlation_data"))
			}
		})
	})
	t.Cleanup(wg.Wait)
	t.Cleanup(cancel)
	return p
}

func headerOf(r embedded.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

func (p *pretender) put(topic, value string, headers ...kgo.RecordHeader) {
	require.NoError(p.t, p.client.ProduceSync(p.t.Context(), &kgo.Record{Topic: topic, Value: []byte(value), Headers: headers}).FirstErr())
}

func (p *pretender) receipt(instance, id, rest string) {
	p.put("receipts", fmt.Sprintf(`{"topic":"requests","partition":0,"offset":0,"correlation_data":%q,"instance":%q,"milliseconds":1,%s}`, id, instance, rest))
}

func (p *pretender) answer(id, value string) {
	p.put("answers", value, kgo.RecordHeader{Key: "mqtt.correlation_data", Value: []byte(id)})
}

func TestAskBelievesTheReceiptsOfItsOwnRequest(t *testing.T) {
	besideOthers(t)
	for rest, want := range map[string]string{
		`"outcome":"expired"`:                               "expired",
		`"outcome":"cancelled"`:                             "cancelled",
		`"outcome":"rejected","code":151`:                   "rejected (reason code 0x97)",
		`"outcome":"offline","reason":"session_ended"`:      "offline (session_ended)",
		`"outcome":"dropped","reason":"queue_full"`:         "dropped (queue_full)",
		`"outcome":"dropped","reason":"illegal_mqtt_topic"`: "dropped (illegal_mqtt_topic)",
	} {
		p := pretend(t, func(p *pretender, _ embedded.Record, id string) {
			p.put("receipts", "no JSON")
			p.receipt("one", "somebody else's", `"outcome":"offline"`)
			p.answer("somebody else's", "wrong")
			p.receipt("one", id, rest)
		})
		out, errs, code := asked(t, p.Brokers()[0], "d1", "job")
		require.Equal(t, 1, code)
		require.Empty(t, out)
		require.Equal(t, "ask: no answer from d1: "+want+"\n", errs)
	}
}

// TestAskHearsAllInstances: each that has not got the device says that it is offline.
func TestAskHearsAllInstances(t *testing.T) {
	besideOthers(t)
	p := pretend(t, func(p *pretender, r embedded.Record, id string) {
		p.receipt("one", id, `"outcome":"offline","reason":"not_connected"`)
		p.receipt("two", id, string(r.Value))
		if strings.Contains(string(r.Value), "delivered") {
			p.receipt("three", id, `"outcome":"offline","reason":"not_connected"`)
			p.answer(id, "done")
		}
	})
	out, errs, code := asked(t, p.Brokers()[0], "d1", `"outcome":"delivered","code":16`, "--instances", "2")
	require.Zero(t, code, errs)
	require.Equal(t, "done\n", out)
	_, errs, code = asked(t, p.Brokers()[0], "d1", `"outcome":"rejected","code":135`, "--instances", "2")
	require.Equal(t, 1, code)
	require.Equal(t, "ask: no answer from d1: offline (not_connected), rejected (reason code 0x87)\n", errs)
}

// TestAskMissesNoAnswer: it reads before it writes, however fast the answer is.
func TestAskMissesNoAnswer(t *testing.T) {
	besideOthers(t)
	p := pretend(t, func(p *pretender, _ embedded.Record, id string) { p.answer(id, "answer to "+id) })
	for range 10 {
		_, errs, code := asked(t, p.Brokers()[0], "d1", "job")
		require.Zero(t, code, errs)
	}
}

// TestAskCancelsInThePartitionOfTheRequest: where order puts the cancellation behind it.
func TestAskCancelsInThePartitionOfTheRequest(t *testing.T) {
	seen := make(chan embedded.Record, 2)
	p := pretend(t, func(_ *pretender, r embedded.Record, _ string) { seen <- r })
	_, errs, code := asked(t, p.Brokers()[0], "d1", "job", "--timeout", "2100ms")
	require.Equal(t, 1, code)
	require.Equal(t, "ask: no answer from d1 within 2.1s; cancelled\n", errs)
	request, cancel := <-seen, <-seen
	require.Equal(t, []string{"d1", "job", "do", "3"}, []string{string(request.Key), string(request.Value), headerOf(request, "name"), headerOf(request, "mqtt.expiry")})
	require.Equal(t, headerOf(request, "mqtt.correlation_data"), headerOf(cancel, "mqtt.cancel"))
	require.Equal(t, []any{request.Key, request.Partition, request.Offset + 1}, []any{cancel.Key, cancel.Partition, cancel.Offset})
	require.Nil(t, cancel.Value)
	for _, args := range [][]string{{"job"}, {"--device", "d1", "--name", "do"}, {"--timeout", "0s", "--device", "d1", "--name", "do", "job"}, {"--no-such-flag"}} {
		_, _, code = runAsk(t, p.Brokers()[0], args...)
		require.Equal(t, 2, code, args)
	}
}

// TestLoopbackIsABroker: subscribers get what others publish, in the order of each publisher and never their own with
// No Local, and what MQTT 5 says beside the payload comes through.
func TestLoopbackIsABroker(t *testing.T) {
	besideOthers(t)
	d := try(t, "loopback.yaml")
	const each = 200
	var all []*phone
	for _, id := range []string{"d1", "d2"} {
		all = append(all, dial(t, d.address, id, nil))
		all[len(all)-1].listen(t, "rooms/#", true)
	}
	reader := dial(t, d.address, "reader", nil)
	reader.listen(t, "rooms/#", false)
	var want [2][]string
	for i := range each {
		for who, p := range all {
			want[who] = append(want[who], fmt.Sprint(who, " ", i))
			p.send(t, fmt.Sprintf("rooms/%d/by/%d", i%3, who), want[who][i], paho.PublishMethod_AsyncSend)
		}
	}
	require.Eventually(t, func() bool { return len(reader.heard("rooms")) == 2*each }, time.Minute, 10*time.Millisecond)
	for who, p := range all {
		require.Equal(t, want[who], reader.heard(fmt.Sprint("by/", who)))
		require.Eventually(t, func() bool { return len(p.heard("rooms")) == each }, time.Minute, 10*time.Millisecond)
		require.Empty(t, p.heard(fmt.Sprint("by/", who)), "No Local")
	}
}

func TestLoopbackKeepsWhatMQTTSays(t *testing.T) {
	besideOthers(t)
	d := try(t, "loopback.yaml")
	reader, writer := dial(t, d.address, "reader", nil), dial(t, d.address, "writer", nil)
	reader.listen(t, "a/b", false)
	expiry := uint32(3600)
	_, err := writer.Publish(t.Context(), &paho.Publish{Topic: "a/b", Payload: []byte("x"), Properties: &paho.PublishProperties{
		ContentType: "text/plain", ResponseTopic: "a/c", CorrelationData: []byte{0, 255}, MessageExpiry: &expiry,
		User: paho.UserProperties{{Key: "site", Value: "north"}, {Key: "site", Value: "south"}}}})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(reader.heard("a/b")) == 1 }, time.Minute, 10*time.Millisecond)
	got := reader.received[0]
	require.Zero(t, got.QoS, "that of the publisher, not the rule's")
	require.LessOrEqual(t, *got.Properties.MessageExpiry, expiry)
	require.Equal(t, []any{"text/plain", "a/c", []byte{0, 255}}, []any{got.Properties.ContentType, got.Properties.ResponseTopic, got.Properties.CorrelationData})
	require.Equal(t, paho.UserProperties{{Key: "site", Value: "north"}, {Key: "site", Value: "south"}}, got.Properties.User)
}
