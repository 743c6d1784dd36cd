package config

import (
	"net/netip"
	"time"

	"sluice/topicmap"
)

// Config is the whole file.
type Config struct {
	// Listeners are the addresses that devices connect to, at least one.
	Listeners []Listener `yaml:"listeners"`
	// Kafka is the cluster that stores the messages.
	Kafka Kafka `yaml:"kafka"`
	// Publish are the rules from MQTT to Kafka, at least one unless there are `commands`. They are tried in the
	// order of the file and the first one that matches a message takes it, so put special rules before general
	// ones.
	Publish []Rule `yaml:"publish"`
	// Commands are the rules from Kafka to MQTT. They are tried in the order of the file and the first one that
	// matches a record takes it, so put special rules before general ones. Without any, nothing is read from
	// Kafka.
	Commands []Command `yaml:"commands"`
	// Unmatched says what becomes of a message that no rule takes, or whose rule can't store it.
	Unmatched Unmatched `yaml:"unmatched"`
	// Sessions says where and how sessions are kept.
	Sessions Sessions `yaml:"sessions"`
	// Presence tells back ends which devices are connected.
	Presence Presence `yaml:"presence"`
	// Retained says where retained messages are kept, and how many.
	Retained Retained `yaml:"retained"`
	// Limits bounds what one device may ask for, and how long things may take.
	Limits Limits `yaml:"limits"`
	// Admin is the HTTP side for operators: /livez, /readyz and /metrics.
	Admin Admin `yaml:"admin"`
	// Log says what is written to standard error, and how.
	Log Log `yaml:"log"`
}

// A Listener takes MQTT 3.1.1 and MQTT 5 over TCP.
type Listener struct {
	// Address is host:port. `0.0.0.0:1883` listens on every IPv4 address, `:1883` on every address, port 0 on
	// a free port of the system's choice. Two listeners can't share one address.
	Address string `yaml:"address"`
	// ProxyProtocol is for a listener behind a load balancer that tells the address of each device in a PROXY
	// protocol header, version 1 or 2. Left out, no header is understood.
	ProxyProtocol *ProxyProtocol `yaml:"proxy_protocol"`
}

// ProxyProtocol says whom to believe. It makes the header a must: a connection without one is closed, and so is one
// from any other address, since whoever may send the header can claim to be anywhere. Devices that connect
// directly need a listener of their own.
type ProxyProtocol struct {
	// Trusted are the addresses of the load balancers, at least one, each an IP address or a network such as
	// `10.0.0.0/8`.
	Trusted []string `yaml:"trusted"`
}

// Networks gives the trusted addresses. What Parse would have refused is left out.
func (p *ProxyProtocol) Networks() []netip.Prefix {
	var networks []netip.Prefix
	for _, s := range p.Trusted {
		if n, err := parseNetwork(s); err == nil {
			networks = append(networks, n)
		}
	}
	return networks
}

// Kafka is the cluster that stores the messages.
type Kafka struct {
	// Brokers are some brokers of the cluster as host:port, at least one; the others are found through them.
	// Name two or three, so that one of them being away at start does not matter.
	Brokers []string `yaml:"brokers"`
	// Producer tunes how records are sent to Kafka. Whatever is set here, a record counts as stored when all
	// in-sync replicas have it.
	Producer Producer `yaml:"producer"`
	// CreateTopics creates Kafka topics that are missing. Leave it out where topics are made by somebody
	// else: then a missing topic that a rule names is an error at start, and a message whose template makes
	// the name of a missing topic is refused. The topics of `sessions` and `retained` are made in any case if they
	// are missing and Kafka allows it, because their settings matter; without this section with as many partitions
	// and copies as the cluster gives new topics.
	CreateTopics *CreateTopics `yaml:"create_topics"`
}

// Producer tunes how records are sent to Kafka. Whatever is set here, a record counts as stored when all
// in-sync replicas have it.
type Producer struct {
	// Linger is how long a record waits for others to share its batch. It adds to the time until a device
	// gets its PUBACK. 0s sends at once, which makes small batches and costs more CPU, here and in Kafka.
	Linger time.Duration `yaml:"linger"`
	// Compression of the batches. lz4 costs little and makes JSON a fraction of its size; choose none when
	// payloads are compressed already.
	Compression string `yaml:"compression"`
	// MaxInFlightBytes is the memory for messages that Kafka has not acknowledged yet, of all devices
	// together. When it is spent, no more is read from devices: those with QoS 1 and 2 wait, messages with
	// QoS 0 are dropped and counted. It must hold at least 4 packets of `limits.max_packet_size`.
	MaxInFlightBytes Bytes `yaml:"max_in_flight_bytes"`
}

// CreateTopics needs both numbers: neither can be guessed, and the number of partitions can't be lowered
// later.
type CreateTopics struct {
	// Partitions of a new topic. Records with one key are in one partition, so this bounds how many
	// consumers can share the work. Raising it later moves keys to other partitions.
	Partitions int32 `yaml:"partitions"`
	// Replication is how many brokers keep a copy of a new topic. It can't be more than the cluster has
	// brokers; with 1, the loss of one disk loses acknowledged messages.
	Replication int16 `yaml:"replication"`
}

// A Rule takes the MQTT messages it matches to a Kafka topic. `topic`, `key` and the values of `headers` are
// templates: `{name}` stands for what the rule captured, and these names are always there:
// `{mqtt.topic}`, `{mqtt.client_id}`, `{mqtt.username}`, `{mqtt.user.NAME}` (a user property),
// `{payload.PATH}` (a path into a JSON payload, such as `{payload.machine.id}` or `{payload.0.id}`).
// `{{` and `}}` stand for braces. Write templates in quotes, because braces mean something in YAML.
type Rule struct {
	// Match is an MQTT topic filter: `+` matches one level and `#`, at the end, all the others, none included.
	// `{name}` and `{name...}` do the same and keep what they matched under that name. As in MQTT, a filter
	// that begins with a wildcard does not match topics that begin with `$`. A rule has either this or
	// `regex`.
	Match string `yaml:"match"`
	// Regex is a regular expression (RE2) in place of `match`; its named groups `(?P<name>…)` are what it
	// captures. It must match whole topics, so begin it with `^` and end it with `$`. Write it in single
	// quotes. Filters are faster: the regular expressions are tried one after the other.
	Regex string `yaml:"regex"`
	// Topic is the Kafka topic, a template. The result must be 1 to 249 of the characters a-z, A-Z, 0-9,
	// dot, underscore and hyphen, and no internal name (`__*`, `sluice-*`). A message that makes another
	// name is refused; characters are never replaced, so two MQTT topics don't end in one Kafka topic
	// unnoticed.
	Topic string `yaml:"topic"`
	// Key is the record key, a template. Records with one key stay in order. Left out, it is
	// `{mqtt.client_id}`; `""` means no key, and such records are spread over all partitions. A message that
	// lacks a value its key needs is refused.
	Key *string `yaml:"key"`
	// Headers are record headers by their name, each value a template; they come after the headers the
	// proxy sets, in the order of the file. A header whose value is missing in a message is left out of its
	// record. Names that begin with `mqtt.` or `sluice.` are the proxy's
	// own.
	Headers []topicmap.Field `yaml:"headers"`
	// When narrows the rule: each name, written as in a template but without braces (`mqtt.user.NAME`,
	// `mqtt.username`, `payload.PATH`, a capture), must have exactly this value in the message. The next
	// rules are tried when one has not.
	When []topicmap.Field `yaml:"when"`
	// MaxTopics is how many different Kafka topics a template in `topic` may make while the process runs, so
	// that a faulty device can't fill the cluster with topics. Messages that would make one more are refused.
	MaxTopics int `yaml:"max_topics"`
	// ExactlyOnce stores a message with QoS 2 and its packet identifier in one Kafka transaction, so that it is in
	// Kafka once even if an instance is killed. A transaction takes some 30 ms, which messages of many devices share,
	// and only consumers that read committed records do not see what is not decided yet. Without it a message with
	// QoS 2 can be stored twice when an instance is killed.
	ExactlyOnce bool `yaml:"exactly_once"`
}

// Sessions are kept in Kafka, where every instance of the fleet finds them: subscriptions, how far a device has got
// with its commands, its will, and which instance has its connection.
type Sessions struct {
	// Topic is the compacted Kafka topic of the sessions. Instances that share their devices have the same one, and
	// the others do not.
	Topic string `yaml:"topic"`
	// Ledger is the compacted Kafka topic, written in transactions, of what must happen once: wills that were
	// published, and packet identifiers of QoS 2 messages that rules with `exactly_once` took.
	Ledger string `yaml:"ledger"`
	// Claim says which connections are made known to the other instances before CONNACK. always: all, so that a
	// client ID has one connection in the fleet, and a will is published even if its instance is killed. stored: only
	// those that have or ask for a session that outlives its connection; other devices connect without waiting for
	// Kafka, two of them may have the same client ID at two instances, and their wills are lost with an instance.
	Claim string `yaml:"claim"`
	// MaxExpiry caps the Session Expiry Interval that MQTT 5 devices ask for, and is the life of MQTT 3.1.1
	// sessions with clean session 0. Whole seconds; 0s ends every session with its connection.
	MaxExpiry time.Duration `yaml:"max_expiry"`
}

// The words of Sessions.Claim.
const (
	ClaimAlways = "always"
	ClaimStored = "stored"
)

// Presence tells back ends which devices are connected.
type Presence struct {
	// Topic is the Kafka topic that gets a record for each connection that begins or ends: key the client ID, value
	// JSON. It must be legal and not internal. Left out, there are no such records.
	Topic string `yaml:"topic"`
}

// Retained says where retained messages are kept, and how many.
type Retained struct {
	// Topic is the compacted Kafka topic of the retained messages: key the MQTT topic, value the payload. Instances
	// that share their devices have the same one. Every instance keeps all of it in memory.
	Topic string `yaml:"topic"`
	// Messages is how many MQTT topics may have a retained message. A message for one more is refused with Quota
	// exceeded.
	Messages int `yaml:"messages"`
	// Memory is how much they may take in each instance: topic, payload and properties, and about 60 bytes for each
	// message. What is more is refused with Quota exceeded. Instances see each other's messages with a short delay and
	// never forget one that was accepted, so leave some room.
	Memory Bytes `yaml:"memory"`
}

// Limits bounds what one device may ask for, and how long things may take.
type Limits struct {
	// MaxPacketSize is the largest MQTT packet that is read. MQTT 5 devices are told; a device that sends
	// more is disconnected. Kafka has a limit of its own per topic (max.message.bytes, 1 MiB if nobody
	// changed it): what passes here and is too large there is refused.
	MaxPacketSize Bytes `yaml:"max_packet_size"`
	// ReceiveMaximum is how many messages with QoS 1 and 2 one connection may have unacknowledged. MQTT 5
	// devices are told; an MQTT 3.1.1 connection is not read while it has that many. Low values bound what a
	// device can send by this number per round trip to Kafka.
	ReceiveMaximum int `yaml:"receive_maximum"`
	// KeepAliveMax is the longest keep-alive an MQTT 5 device gets; one that asks for more, or for none, is
	// told this one instead. Whole seconds; 0s sets no limit, and a device that asked for none is never
	// missed.
	KeepAliveMax time.Duration `yaml:"keep_alive_max"`
	// ConnectTimeout is how long a new connection may take until its CONNECT packet is complete.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
	// TopicAliasMaximum is how many topic aliases one MQTT 5 connection may set; each can hold memory of the
	// length of a topic. 0: none.
	TopicAliasMaximum int `yaml:"topic_alias_maximum"`
	// ShutdownTimeout is how long a stopping process waits for Kafka to acknowledge what it has received.
	// What is open after that is not acknowledged to its devices, which send it again elsewhere. Give the
	// service manager a few seconds more.
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout"`
	// CommandsInFlight is how many commands with QoS 1 and 2 one device may have been sent and not have
	// completed. The Receive Maximum of an MQTT 5 device may make it less.
	CommandsInFlight int `yaml:"commands_in_flight"`
	// CommandsQueued is how many commands may wait for one device, connected or away, beyond those in flight. What is
	// more is dropped and counted.
	CommandsQueued int `yaml:"commands_queued"`
	// CommandsMemory is the memory for commands that wait or are in flight, of all devices together; one device may
	// take an eighth of it. A command for several devices counts once, and for each of them about 100 bytes, or 2 KiB
	// if its rule writes receipts. What is more is dropped and counted.
	CommandsMemory Bytes `yaml:"commands_memory"`
	// Subscriptions is how many topic filters one device may be subscribed to. A SUBSCRIBE for more is refused
	// with Quota exceeded.
	Subscriptions int `yaml:"subscriptions"`
	// SubscriptionsMemory is the memory for the subscriptions of all devices together, those that are away and have a
	// session included: the length of each topic filter and about 400 bytes. A SUBSCRIBE for more is refused with
	// Quota exceeded.
	SubscriptionsMemory Bytes `yaml:"subscriptions_memory"`
	// SharedSubscriptions is how many different shared subscriptions (a ShareName with a topic filter) the devices of
	// this instance may have. Each is a Kafka consumer group, which reads the command topics once more. A SUBSCRIBE for
	// more is refused with Quota exceeded.
	SharedSubscriptions int `yaml:"shared_subscriptions"`
}

// Admin is the HTTP side for operators: /livez, /readyz and /metrics.
type Admin struct {
	// Address is host:port. `""` turns it off. It has no authentication, so keep it where only operators and
	// the load balancer get.
	Address string `yaml:"address"`
}

// Log says what is written to standard error, and how.
type Log struct {
	// Level is the least severe kind of line that is written. debug and trace are for looking for faults and
	// slow down a busy process.
	Level string `yaml:"level"`
	// Format is console for people, or json for programs: one object a line.
	Format string `yaml:"format"`
}

// Default gives the values of what a file leaves out. They are safe in production.
func Default() Config {
	return Config{
		Kafka: Kafka{Producer: Producer{
			Linger:           5 * time.Millisecond,
			Compression:      "lz4",
			MaxInFlightBytes: 64 * mib,
		}},
		Sessions: Sessions{Topic: "sluice-sessions", Ledger: "sluice-ledger", Claim: ClaimAlways, MaxExpiry: 24 * time.Hour},
		Retained: Retained{Topic: "sluice-retained", Messages: 1_000_000, Memory: 256 * mib},
		Limits: Limits{
			MaxPacketSize:       256 * kib,
			ReceiveMaximum:      256,
			KeepAliveMax:        time.Hour,
			ConnectTimeout:      10 * time.Second,
			TopicAliasMaximum:   16,
			ShutdownTimeout:     30 * time.Second,
			CommandsInFlight:    64,
			CommandsQueued:      1000,
			CommandsMemory:      64 * mib,
			Subscriptions:       100,
			SubscriptionsMemory: 256 * mib,
			SharedSubscriptions: 100,
		},
		Admin: Admin{Address: "127.0.0.1:8080"},
		Log:   Log{Level: "info", Format: "console"},
	}
}

// defaultRule gives the values of what a publish rule leaves out.
func defaultRule() Rule { return Rule{MaxTopics: topicmap.DefaultMaxTopics} }

// rule is the part of the rule that package topicmap decides on.
func (r *Rule) rule() topicmap.Rule {
	return topicmap.Rule{Match: r.Match, Regex: r.Regex, Topic: r.Topic, Key: r.Key, Headers: r.Headers, When: r.When, MaxTopics: r.MaxTopics}
}

// Rules compiles the publish rules. It can't fail for a Config that Parse gave.
func (c *Config) Rules() (*topicmap.Map, error) {
	rules := make([]topicmap.Rule, len(c.Publish))
	for i, r := range c.Publish {
		rules[i] = r.rule()
	}
	return topicmap.Compile(rules)
}
