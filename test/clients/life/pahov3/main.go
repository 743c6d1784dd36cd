// Command pahov3 is Eclipse Paho for Go, MQTT 3.1.1, as the matrix drives it: see package matrix for the lines it reads
// and writes.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

var out sync.Mutex

func say(words ...any) {
	out.Lock()
	defer out.Unlock()
	fmt.Println(words...)
}

func main() {
	in := bufio.NewReader(os.Stdin)
	var host, port, version, clientID, subscription string
	if _, err := fmt.Fscanln(in, &host, &port, &version, &clientID, &subscription); err != nil {
		say("fault", err)
		os.Exit(1)
	}
	o := mqtt.NewClientOptions().AddBroker("tcp://" + host + ":" + port).SetClientID(clientID).SetCleanSession(false).
		SetProtocolVersion(4).SetKeepAlive(20 * time.Second).SetMaxReconnectInterval(time.Second).SetOrderMatters(false)
	o.SetOnConnectHandler(func(c mqtt.Client) {
		say("connected ?")
		go subscribe(c, subscription) // ends with its SUBACK
	})
	o.SetConnectionLostHandler(func(_ mqtt.Client, err error) { say("lost", err) })
	o.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { say("message", string(m.Payload())) })
	c := mqtt.NewClient(o)
	if t := c.Connect(); t.Wait() && t.Error() != nil {
		say("fault", t.Error())
		os.Exit(1)
	}
	var topic string
	var qos byte
	var first, count int
	for {
		if _, err := fmt.Fscanln(in, &topic, &qos, &first, &count); err != nil {
			break // the end of the input
		}
		for n := first; n < first+count; n++ {
			t := c.Publish(topic, qos, false, strconv.Itoa(n))
			go func() { // ends with the acknowledgement
				<-t.Done()
				if t.Error() != nil {
					say("dropped", n, t.Error())
					return
				}
				say("acked", n)
			}()
		}
	}
	c.Disconnect(1000)
}

func subscribe(c mqtt.Client, filter string) {
	t := c.Subscribe(filter, 1, nil)
	<-t.Done()
	if t.Error() != nil {
		say("lost SUBSCRIBE", t.Error())
		return
	}
	say("granted", t.(*mqtt.SubscribeToken).Result()[filter])
}
