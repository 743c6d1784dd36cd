// Command paho is Eclipse Paho for Go, MQTT 5, as the matrix drives it: see package matrix for the lines it reads and
// writes.
package main

import (
	"bufio"
	"context"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
)

var out sync.Mutex

func say(words ...any) {
	out.Lock()
	defer out.Unlock()
	fmt.Println(words...)
}

func main() {
	if err := run(context.Background()); err != nil {
		say("fault", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	in := bufio.NewReader(os.Stdin)
	var host, port, version, clientID, subscription string
	if _, err := fmt.Fscanln(in, &host, &port, &version, &clientID, &subscription); err != nil {
		return err
	}
	server := &url.URL{Scheme: "mqtt", Host: host + ":" + port}
	cm, err := autopaho.NewConnection(ctx, autopaho.ClientConfig{
		ServerUrls: []*url.URL{server}, KeepAlive: 20, SessionExpiryInterval: 3600,
		ReconnectBackoff: func(int) time.Duration { return 500 * time.Millisecond },
		OnConnectionUp: func(cm *autopaho.ConnectionManager, ack *paho.Connack) {
			say("connected", map[bool]int{true: 1}[ack.SessionPresent])
			go subscribe(ctx, cm, subscription) // ends with its SUBACK
		},
		ClientConfig: paho.ClientConfig{
			ClientID: clientID,
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
				say("message", string(p.Packet.Payload))
				return true, nil
			}},
			OnClientError:      func(err error) { say("lost", err) },
			OnServerDisconnect: func(d *paho.Disconnect) { say("lost DISCONNECT", d.ReasonCode) },
		},
	})
	if err != nil {
		return err
	}
	var topic string
	var qos byte
	var first, count int
	for {
		if _, err := fmt.Fscanln(in, &topic, &qos, &first, &count); err != nil {
			break // the end of the input
		}
		for n := first; n < first+count; n++ {
			go publish(ctx, cm, &paho.Publish{Topic: topic, QoS: qos, Payload: []byte(strconv.Itoa(n))}, n) // ends with its acknowledgement
		}
	}
	return cm.Disconnect(ctx)
}

func subscribe(ctx context.Context, cm *autopaho.ConnectionManager, filter string) {
	ack, err := cm.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: 1}}})
	if err != nil {
		say("lost SUBSCRIBE", err)
		return
	}
	say("granted", ack.Reasons[0])
}

// publish waits for the connection where there is none, and tries again what was lost with one: the session that
// would send it again is in memory, and gone when the server says that it has none.
func publish(ctx context.Context, cm *autopaho.ConnectionManager, p *paho.Publish, n int) {
	for {
		if err := cm.AwaitConnection(ctx); err != nil {
			say("fault", err)
			return
		}
		ack, err := cm.Publish(ctx, p)
		switch {
		case err == nil && (ack == nil || ack.ReasonCode < 0x80):
			say("acked", n)
			return
		case err == nil || ack != nil:
			say("fault refused", ack.ReasonCode)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}
