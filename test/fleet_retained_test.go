package test

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/eclipse/paho.golang/paho"
	"github.com/stretchr/testify/require"

	"sluice/test/clients"
)

// TestRetainHandlingAtEveryInstance: 0 hands retained messages out at every SUBSCRIBE, 1 only at the first of a
// subscription, whichever instance made it, 2 never.
func TestRetainHandlingAtEveryInstance(t *testing.T) {
	besideOthers(t)
	b := serveExample(t)
	i := &interop{fleetBench: b, t: t, version: clients.V5, runner: clients.Go(t), base: runID()}
	i.publish(1, true, "r/x", "kept")
	for n := range b.instances {
		await(t, func() bool { return len(i.handedOut(n)) == 1 }, func() string { return fmt.Sprintf("instance %d", n) })
	}
	for handling, want := range [][]int{{1, 1}, {1, 0}, {0, 0}} { // of the first and the second SUBSCRIBE
		for round, n := range want {
			require.Equal(t, n, i.handedOutTo(fmt.Sprintf("%s-%d", i.base, handling), b.instances[1+round].address, byte(handling)),
				"Retain Handling %d, SUBSCRIBE %d", handling, round+1)
		}
	}
	b.healthy()
}

// handedOutTo subscribes with a session that is kept, and counts the retained messages that come before a fence.
func (i *interop) handedOutTo(id, addr string, handling byte) (n int) {
	i.t.Helper()
	ctx, cancel := i.limit()
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	require.NoError(i.t, err)
	got := make(chan *paho.Publish, 16)
	c := paho.NewClient(paho.ClientConfig{Conn: conn, OnPublishReceived: []func(paho.PublishReceived) (bool, error){
		func(p paho.PublishReceived) (bool, error) {
			got <- p.Packet
			return true, nil
		}}})
	hour := uint32(3600)
	_, err = c.Connect(ctx, &paho.Connect{ClientID: id, KeepAlive: 60, Properties: &paho.ConnectProperties{SessionExpiryInterval: &hour}})
	require.NoError(i.t, err)
	_, err = c.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: i.base + "/r/#", QoS: 1, RetainHandling: handling}}})
	require.NoError(i.t, err)
	i.publish(1, false, "r/fence", "fence")
	for p := range received(ctx, got) {
		if !p.Retain {
			break
		}
		n++
	}
	require.NoError(i.t, ctx.Err(), "the fence must come")
	require.NoError(i.t, c.Disconnect(&paho.Disconnect{}))
	<-c.Done()
	return n
}

// received gives what comes until ctx ends.
func received(ctx context.Context, got <-chan *paho.Publish) func(func(*paho.Publish) bool) {
	return func(yield func(*paho.Publish) bool) {
		for {
			select {
			case p := <-got:
				if !yield(p) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}
