package proxy

import (
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
)

// openDevices counts the devices at which a command is not settled. Outcomes may come before their number is
// known, so it counts down from far above any number.
type openDevices struct{ n atomic.Int64 }

const manyDevices = 1 << 40

// expect says at how many devices the command is; true if all have settled it already.
func (o *openDevices) expect(devices int) bool {
	return o.n.Add(int64(devices)+manyDevices) == manyDevices
}

// settled counts one outcome; true if it was the last.
func (o *openDevices) settled() bool { return o.n.Add(-1) == manyDevices }

// pending finds the commands that can still be cancelled. Only those with correlation data are entered, and
// none stays longer than it is open at a device, which its expiry and the bounds of the outboxes limit.
type pending struct {
	mu  sync.Mutex
	all map[string][]*command
}

// cancelKey joins what names a command to its sender: Kafka topic, key and correlation data.
func cancelKey(topic string, key, correlationData []byte) string {
	b := make([]byte, 0, len(topic)+len(key)+len(correlationData)+8)
	b = append(b, topic...)
	b = append(b, 0)
	b = strconv.AppendInt(b, int64(len(key)), 10)
	b = append(b, 0)
	b = append(b, key...)
	return string(append(b, correlationData...))
}

func (p *pending) add(c *command) {
	if c.CorrelationData == nil {
		return
	}
	k := cancelKey(c.topic, c.key, c.CorrelationData)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = make(map[string][]*command)
	}
	p.all[k] = append(p.all[k], c)
}

func (p *pending) remove(c *command) {
	if c.CorrelationData == nil {
		return
	}
	k := cancelKey(c.topic, c.key, c.CorrelationData)
	p.mu.Lock()
	defer p.mu.Unlock()
	rest := slices.DeleteFunc(p.all[k], func(x *command) bool { return x == c })
	if len(rest) == 0 {
		delete(p.all, k)
	} else {
		p.all[k] = rest
	}
}

// find gives the open commands of this name.
func (p *pending) find(topic string, key, correlationData []byte) []*command {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.all[cancelKey(topic, key, correlationData)])
}
