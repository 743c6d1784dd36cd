package mqtt

import "github.com/prometheus/client_golang/prometheus"

// denials count what devices may not, by the right that they lack.
type denials struct{ will, subscribe, receive prometheus.Counter }

func newDenials(v *prometheus.CounterVec) denials {
	right := func(name string) prometheus.Counter { return v.WithLabelValues(name) }
	return denials{will: right("will"), subscribe: right("subscribe"), receive: right("receive")}
}

// maySubscribe asks for the right to a topic filter, of a shared subscription that inside.
func (i *Identity) maySubscribe(filter string) bool {
	if i.Access == nil {
		return true
	}
	group, inner, _ := splitShare(filter)
	return i.Access.Subscribe(inner, group)
}

// mayWill asks for the rights to leave a will.
func (i *Identity) mayWill(m *Message) bool {
	a := i.Access
	return a == nil || a.Will(m.Topic) && (!m.Retain || a.Retain(m.Topic))
}

// mayReceive asks for the right to get a message with this topic.
func (c *Conn) mayReceive(topic []byte) bool {
	a := c.identity.Load().Access
	if a == nil || a.Receive(topic) {
		return true
	}
	c.srv.m.denied.receive.Inc()
	return false
}

// review takes the subscriptions away that who may not have any more.
func (o *outbox) review(who *Identity) {
	o.mu.Lock()
	o.withdraw(who)
	o.unlock(nil)
}

// withdraw is review with mu held. What it has changed is stored like any other change.
func (o *outbox) withdraw(who *Identity) {
	kept := 0
	for kept < len(o.subs) {
		if who.maySubscribe(o.subs[kept].filter) && o.srv.cfg.Shares.allows(o.subs[kept].filter) {
			kept++
			continue
		}
		o.remove(kept)
		o.change()
		o.srv.m.denied.subscribe.Inc()
	}
}

// forbid ends the next delivery of an earlier connection, which the device may not get any more. A device that may
// have it already, with QoS 2, holds its packet identifier: PUBREL frees that on both sides, as where the message can't
// be had any more. Without it the next message with the identifier would be taken for this one. mu is held.
func (o *outbox) forbid(done *[]settlement) {
	f := &o.flight[o.resent]
	*done = append(*done, settlement{delivery: f.delivery, fate: Dropped, reason: reasonNotAuthorized})
	if f.qos < 2 || !f.sent {
		o.land(o.resent)
		return
	}
	o.drop(&f.delivery)
	f.delivery = delivery{cmd: &Command{Owner: unowned{}}, qos: f.qos}
	o.srv.forceHold(&f.delivery)
	o.held += f.weight()
	f.received = true
	if o.durable { // or the message would be sent again after a crash, if the right is given back
		f.version = o.change()
	}
}
