package clients

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/eclipse/paho.golang/paho"
)

// Go returns Eclipse Paho for Go (paho.golang), which speaks MQTT 5 only. It
// runs in the test's own process and sends each message after the one before
// has been acknowledged.
func Go(testing.TB) Runner {
	return Runner{Name: "paho-go", Versions: []byte{V5}, run: runGo, subscribe: subscribeGo}
}

func runGo(ctx context.Context, j job) (Output, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(j.Host, strconv.Itoa(j.Port)))
	if err != nil {
		return Output{}, err
	}
	var faults faultLog
	client := paho.NewClient(paho.ClientConfig{
		Conn:               conn,
		OnClientError:      func(err error) { faults.add(fmt.Sprintf("client error: %v", err)) },
		OnServerDisconnect: func(d *paho.Disconnect) { faults.add(fmt.Sprintf("DISCONNECT 0x%02X", d.ReasonCode)) },
	})
	client.SetErrorLogger(&faults)
	if _, err := client.Connect(ctx, connectGo(j)); err != nil {
		return Output{}, errors.Join(err, conn.Close())
	}
	out, err := publishGo(ctx, client, j)
	out.Log = faults.end()
	if err == nil {
		err = client.Disconnect(&paho.Disconnect{})
	}
	_ = conn.Close() // Disconnect has usually closed it
	<-client.Done()
	return out, strict(err, out.Log)
}

func connectGo(j job) *paho.Connect {
	c := &paho.Connect{ClientID: j.ClientID, CleanStart: true, KeepAlive: 60}
	if j.Username != "" {
		c.UsernameFlag, c.Username = true, j.Username
		c.PasswordFlag, c.Password = true, []byte(j.Password)
	}
	return c
}

func publishGo(ctx context.Context, client *paho.Client, j job) (out Output, err error) {
	for i, m := range j.Messages {
		resp, err := client.Publish(ctx, publishPacket(j.QoS, m))
		if resp != nil {
			out.Acks = append(out.Acks, Ack{Index: i, Reason: resp.ReasonCode})
		}
		if err != nil {
			return out, fmt.Errorf("message %d: %w", i, err)
		}
	}
	return out, nil
}

func publishPacket(qos byte, m Message) *paho.Publish {
	p := &paho.Publish{Topic: m.Topic, Payload: m.Payload, QoS: qos, Retain: m.Retain,
		Properties: &paho.PublishProperties{
			ContentType: m.ContentType, ResponseTopic: m.ResponseTopic, CorrelationData: m.CorrelationData,
		}}
	for _, u := range m.UserProperties {
		p.Properties.User.Add(u[0], u[1])
	}
	if m.Expiry > 0 {
		p.Properties.MessageExpiry = &m.Expiry
	}
	return p
}

// faultLog collects what the library complains of, from any goroutine, until
// its end: after a DISCONNECT the library may call the close it was asked for
// an error.
type faultLog struct {
	mu    sync.Mutex
	ended bool
	lines []string
}

func (f *faultLog) add(s string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ended {
		f.lines = append(f.lines, s)
	}
}

// Println and Printf make it the library's error logger.
func (f *faultLog) Println(v ...any)               { f.add(fmt.Sprintln(v...)) }
func (f *faultLog) Printf(format string, v ...any) { f.add(fmt.Sprintf(format, v...)) }

// end returns what was collected and collects no more.
func (f *faultLog) end() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	return strings.Join(f.lines, "\n")
}
