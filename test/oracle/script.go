package oracle

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"pgregory.net/rapid"
)

// A Step is one thing that a device or the back end does. A step that can't be done, a PUBLISH without a connection for
// example, does nothing, so that every part of a script is a script.
type Step struct {
	Do       string `json:"do"`
	Dev      int    `json:"dev,omitempty"`      // 0 or 1
	At       int    `json:"at,omitempty"`       // connect: the instance
	V        byte   `json:"v,omitempty"`        // connect: protocol level, 4 or 5
	Clean    bool   `json:"clean,omitempty"`    // connect
	Expiry   int    `json:"expiry,omitempty"`   // connect, disconnect: Session Expiry Interval; disconnect: -1 says none
	Will     int    `json:"will,omitempty"`     // connect: 1 and its QoS; 0: none
	Delay    uint32 `json:"delay,omitempty"`    // connect: Will Delay Interval
	Code     byte   `json:"code,omitempty"`     // disconnect
	Topic    int    `json:"topic,omitempty"`    // publish: which of topics; subscribe, unsubscribe: which of filters
	QoS      byte   `json:"qos,omitempty"`      // publish, subscribe, command, notice
	Empty    bool   `json:"empty,omitempty"`    // publish: ends a retained message
	Wait     bool   `json:"wait,omitempty"`     // publish, command, notice: until it is acknowledged
	NoLocal  bool   `json:"noLocal,omitempty"`  // subscribe
	Rap      bool   `json:"rap,omitempty"`      // subscribe: Retain As Published
	Handling byte   `json:"handling,omitempty"` // subscribe: Retain Handling
	N        int    `json:"n,omitempty"`        // fuse: packets; pause: milliseconds
}

// What steps do.
const (
	DoConnect     = "connect"    // over a connection that is open: takeover
	DoDisconnect  = "disconnect" // and wait for the server's end of the connection
	DoCut         = "cut"        // close without DISCONNECT
	DoFuse        = "fuse"       // close without DISCONNECT after N more packets of either side
	DoPublish     = "publish"
	DoAgain       = "again" // PUBLISH of the oldest message that is not acknowledged, with DUP
	DoSubscribe   = "subscribe"
	DoUnsubscribe = "unsubscribe"
	DoHold        = "hold"    // do not answer what is delivered
	DoRelease     = "release" // answer it
	DoCommand     = "command" // the back end: to this device, with a receipt
	DoNotice      = "notice"  // the back end: to whoever subscribed
	DoJob         = "job"     // the back end: to one member of the share
	DoShare       = "share"   // subscribe to the share
	DoPause       = "pause"
)

// A Script is steps, one after the other.
type Script []Step

// String gives the script as ParseScript reads it.
func (s Script) String() string {
	var b strings.Builder
	for _, step := range s {
		line, err := json.Marshal(step)
		if err != nil {
			panic(err) // a Step has only numbers, truth values and a name
		}
		fmt.Fprintf(&b, "%s\n", line)
	}
	return b.String()
}

// ParseScript reads what String wrote.
func ParseScript(text string) (s Script, err error) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		var step Step
		if err := json.Unmarshal([]byte(line), &step); err != nil {
			return nil, fmt.Errorf("%q is no step: %w", line, err)
		}
		s = append(s, step)
	}
	return s, nil
}

// At gives the script for so many instances.
func (s Script) At(instances int) Script {
	s = slices.Clone(s)
	for i := range s {
		s[i].At %= instances
	}
	return s
}

// Options say what scripts may have in them.
type Options struct {
	Instances int
	Timed     bool // short expiries and Will Delays, and the pauses that make them pass
	Commands  bool // most of what is done is about commands for one device
	Shares    bool // a shared subscription, once Kafka has made its group
}

// Draw makes the script of a seed; the same seed and options give the same script.
func Draw(seed int, o Options) Script { return scripts(o).Example(seed) }

func scripts(o Options) *rapid.Generator[Script] {
	return rapid.Custom(func(t *rapid.T) Script {
		g := &drawing{t: t, o: o}
		for dev := range 2 {
			g.connect(dev)
			if g.odds(4, 5) {
				g.subscribe(dev)
			}
		}
		if o.Shares {
			g.add(Step{Do: DoShare, Dev: g.number(0, 1), QoS: byte(g.number(0, 2))})
			g.add(Step{Do: DoPause, N: shareStarts})
		}
		for range g.number(2, 26) {
			if o.Shares && g.odds(1, 3) {
				g.share()
			} else {
				g.step()
			}
		}
		return g.s
	})
}

type drawing struct {
	t *rapid.T
	o Options
	s Script
	// up is a guess: fuses and answers end connections too.
	up      [2]bool
	version [2]byte
}

func (g *drawing) number(low, high int) int { return rapid.IntRange(low, high).Draw(g.t, "number") }
func (g *drawing) odds(n, of int) bool      { return g.number(1, of) <= n }
func (g *drawing) add(s Step)               { g.s = append(g.s, s) }

func (g *drawing) step() {
	dev := g.number(0, 1)
	if !g.up[dev] && g.odds(1, 2) {
		g.connect(dev)
		return
	}
	kind := g.number(0, 99)
	if g.o.Commands && kind < 45 {
		switch {
		case kind < 25:
			g.add(Step{Do: DoCommand, Dev: dev, QoS: byte(g.number(0, 2)), Wait: g.odds(1, 2)})
		case kind < 38:
			g.connect(dev)
		case kind < 42:
			g.disconnect(dev)
		default:
			g.subscribe(dev)
		}
		return
	}
	switch {
	case kind < 32:
		g.publish(dev)
	case kind < 42:
		g.subscribe(dev)
	case kind < 45:
		g.add(Step{Do: DoUnsubscribe, Dev: dev, Topic: g.number(0, len(filters)-1)})
	case kind < 54:
		g.add(Step{Do: DoCommand, Dev: dev, QoS: byte(g.number(0, 2)), Wait: g.odds(2, 3)})
	case kind < 60:
		g.add(Step{Do: DoNotice, Dev: dev, QoS: byte(g.number(0, 2)), Wait: g.odds(2, 3)})
	case kind < 64:
		g.add(Step{Do: DoAgain, Dev: dev})
	case kind < 68:
		g.add(Step{Do: DoHold, Dev: dev})
	case kind < 71:
		g.add(Step{Do: DoRelease, Dev: dev})
	case kind < 78:
		g.add(Step{Do: DoFuse, Dev: dev, N: g.number(1, 6)})
	case kind < 83:
		g.add(Step{Do: DoCut, Dev: dev})
		g.up[dev] = false
	case kind < 89:
		g.disconnect(dev)
	case kind < 95:
		g.connect(dev) // most often a takeover
	case kind < 97:
		g.handout(dev)
	default:
		g.pause()
	}
}

func (g *drawing) connect(dev int) {
	s := Step{Do: DoConnect, Dev: dev, At: g.number(0, g.o.Instances-1), V: byte(g.number(4, 5))}
	if g.version[dev] != 0 && g.odds(2, 3) {
		s.V = g.version[dev]
	}
	s.Clean = g.odds(1, 5)
	if s.V == 5 {
		s.Expiry = rapid.SampledFrom(g.expiries()).Draw(g.t, "expiry")
	}
	if g.odds(1, 3) {
		s.Will = g.number(1, 3)
		if s.V == 5 && g.odds(1, 2) {
			s.Delay = 3600
			if g.o.Timed {
				s.Delay = uint32(g.number(1, 3))
			}
		}
	}
	g.add(s)
	g.up[dev], g.version[dev] = true, s.V
}

func (g *drawing) expiries() []int {
	if g.o.Timed {
		return []int{0, 1, 2, 3600}
	}
	return []int{0, 3600, 3600}
}

func (g *drawing) disconnect(dev int) {
	s := Step{Do: DoDisconnect, Dev: dev, Expiry: -1}
	if g.version[dev] == 5 {
		if g.odds(1, 3) {
			s.Code = 4
		}
		if g.odds(1, 2) {
			s.Expiry = rapid.SampledFrom(g.expiries()).Draw(g.t, "expiry")
		}
	}
	g.add(s)
	g.up[dev] = false
}

func (g *drawing) publish(dev int) {
	topic := g.number(0, len(topics)-1)
	g.add(Step{Do: DoPublish, Dev: dev, Topic: topic, QoS: byte(g.number(0, 2)), Wait: g.odds(1, 2),
		Empty: topics[topic].retain && g.odds(1, 5)})
}

func (g *drawing) subscribe(dev int) {
	s := Step{Do: DoSubscribe, Dev: dev, Topic: g.number(0, len(filters)-1), QoS: byte(g.number(0, 2))}
	if g.version[dev] == 5 {
		s.NoLocal, s.Rap, s.Handling = g.odds(1, 4), g.odds(1, 3), byte(g.number(0, 2))
	}
	g.add(s)
}

// handout is a SUBSCRIBE for retained messages whose connection breaks when it has its SUBACK, or some of them.
func (g *drawing) handout(dev int) {
	g.add(Step{Do: DoPublish, Dev: g.number(0, 1), Topic: len(topics) - 1, QoS: byte(g.number(1, 2)), Wait: true})
	g.add(Step{Do: DoFuse, Dev: dev, N: g.number(2, 4)})
	g.add(Step{Do: DoSubscribe, Dev: dev, Topic: slices.Index(filters, "keep/HISTORY/+"), QoS: byte(g.number(0, 2))})
	g.connect(dev)
}

func (g *drawing) share() {
	if g.odds(1, 4) {
		g.add(Step{Do: DoShare, Dev: g.number(0, 1), QoS: byte(g.number(0, 2))})
		return
	}
	g.add(Step{Do: DoJob, QoS: byte(g.number(0, 2)), Wait: g.odds(1, 2)})
}

// shareStarts is how many milliseconds a consumer group is given to begin.
const shareStarts = 8000

func (g *drawing) pause() {
	n := g.number(1, 60)
	if g.o.Timed {
		n = rapid.SampledFrom([]int{300, 1200, 6000}).Draw(g.t, "milliseconds")
	}
	g.add(Step{Do: DoPause, N: n})
}

// A topic is one that devices publish to; %s are the history and the device.
type topic struct {
	name   string
	kafka  string // which of the World's Kafka topics
	retain bool
}

var topics = []topic{
	{name: "up/%s/%s", kafka: Plain},
	{name: "once/%s/%s", kafka: Once},
	{name: "say/%s/%s/1", kafka: Loop},
	{name: "say/%s/%s/2", kafka: Loop},
	{name: "keep/%s/%s", kafka: Loop, retain: true},
}

// filters are what devices subscribe to; ME and OTHER are the devices.
var filters = []string{
	"say/HISTORY/#",
	"say/HISTORY/+/1",
	"say/HISTORY/OTHER/2",
	"+/HISTORY/ME/#",
	"keep/HISTORY/+",
	"cmd/HISTORY/ME",
	"cmd/HISTORY/+",
	"all/HISTORY/#",
}

// sharing is the shared subscription.
const sharing = "$share/g-HISTORY/job/HISTORY/#"

// The names of the Kafka topics of a World, to be followed by what makes them unique.
const (
	Plain    = "plain"    // a rule without exactly_once; wills too
	Once     = "once"     // a rule with exactly_once
	Loop     = "loop"     // what devices publish there, devices get
	Commands = "commands" // key: the client ID
	Notices  = "notices"  // no client
	Receipts = "receipts" // of Commands
)
