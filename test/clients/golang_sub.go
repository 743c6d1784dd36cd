package clients

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"

	"github.com/eclipse/paho.golang/paho"
)

// subscribeGo runs paho.golang in the test's process.
func subscribeGo(ctx context.Context, j subscribeJob) (*Subscriber, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(j.Host, strconv.Itoa(j.Port)))
	if err != nil {
		return nil, err
	}
	s := newSubscriber("paho-go")
	faults := &faultLog{}
	client := paho.NewClient(paho.ClientConfig{
		Conn:               conn,
		OnClientError:      func(err error) { faults.add(fmt.Sprintf("client error: %v", err)) },
		OnServerDisconnect: func(d *paho.Disconnect) { faults.add(fmt.Sprintf("DISCONNECT 0x%02X", d.ReasonCode)) },
	})
	client.SetErrorLogger(faults)
	var answers sync.WaitGroup
	client.AddOnPublishReceived(func(p paho.PublishReceived) (bool, error) {
		m := receivedGo(p.Packet)
		s.change(func() {
			s.got = append(s.got, m)
			if j.Subscription.Answer && m.ResponseTopic != "" && !s.ended {
				answers.Go(func() { answerGo(ctx, client, m, faults) }) // ends with the PUBACK, for which this goroutine must read
			}
		})
		return true, nil
	})
	connect := connectGo(j.job)
	connect.CleanStart = !j.Subscription.Keep
	if j.Subscription.Keep {
		hour := uint32(3600)
		connect.Properties = &paho.ConnectProperties{SessionExpiryInterval: &hour}
	}
	if _, err := client.Connect(ctx, connect); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	s.stop = sync.OnceValue(func() error {
		s.change(func() { s.ended = true })
		answers.Wait()
		log := faults.end()
		err := client.Disconnect(&paho.Disconnect{})
		_ = conn.Close() // Disconnect has usually closed it
		<-client.Done()
		return strict(err, log)
	})
	subscribing, cancel := context.WithCancelCause(ctx)
	go func() { // ends with the client; the library would wait for a SUBACK that can't come
		<-client.Done()
		cancel(errEnded)
	}()
	suback, err := client.Subscribe(subscribing, subscribePacketGo(j.Subscription))
	if suback == nil {
		return nil, errors.Join(err, s.stop())
	}
	s.change(func() {
		for _, code := range suback.Reasons {
			s.granted = append(s.granted, int(code))
		}
	})
	return s, nil
}

func subscribePacketGo(sub Subscription) *paho.Subscribe {
	p := &paho.Subscribe{}
	for _, f := range sub.Filters {
		p.Subscriptions = append(p.Subscriptions, paho.SubscribeOptions{Topic: f, QoS: sub.QoS, NoLocal: sub.NoLocal,
			RetainAsPublished: sub.RetainAsPublished})
	}
	if sub.ID > 0 {
		p.Properties = &paho.SubscribeProperties{SubscriptionIdentifier: &sub.ID}
	}
	return p
}

func receivedGo(p *paho.Publish) Received {
	r := Received{QoS: p.QoS, Dup: p.Duplicate(), Message: Message{Topic: p.Topic, Payload: p.Payload, Retain: p.Retain}}
	if q := p.Properties; q != nil {
		r.ContentType, r.ResponseTopic, r.CorrelationData = q.ContentType, q.ResponseTopic, q.CorrelationData
		if q.MessageExpiry != nil {
			r.Expiry = *q.MessageExpiry
		}
		if q.SubscriptionIdentifier != nil {
			r.SubscriptionIDs = []int{*q.SubscriptionIdentifier}
		}
		for _, u := range q.User {
			r.UserProperties = append(r.UserProperties, [2]string{u.Key, u.Value})
		}
	}
	return r
}

func answerGo(ctx context.Context, client *paho.Client, m Received, faults *faultLog) {
	_, err := client.Publish(ctx, publishPacket(1, Message{Topic: m.ResponseTopic, Payload: m.Payload, CorrelationData: m.CorrelationData}))
	if err != nil {
		faults.add(fmt.Sprintf("answer: %v", err))
	}
}
