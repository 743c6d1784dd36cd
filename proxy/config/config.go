package config

import (
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
	// Refused says what an MQTT 3.1.1 device gets for a message that is refused, because its protocol has no negative
	// answer. MQTT 5 devices get a reason code whatever stands here.
	Refused Refused `yaml:"refused"`
	// Sessions says where and how sessions are kept.
	Sessions Sessions `yaml:"sessions"`
	// Presence tells back ends which devices are connected.
	Presence Presence `yaml:"presence"`
	// Retained says where retained messages are kept, and how many.
	Retained Retained `yaml:"retained"`
	// Auth says how devices prove who they are: one mapping with one method, or a list of them. With several, they are
	// asked in the order of the file, and the first that knows the user decides; nobody is let in whom none knows. Left
	// out, everybody is let in, as who it says it is.
	Auth []AuthMethod `yaml:"auth"`
	// ACL says what devices may do. The entries are tried in the order of the file, the first one that matches decides,
	// and what none allows is denied. Left out, everything is allowed. An entry is asked again for each message, so a
	// right that was withdrawn holds for sessions and queued messages of before too.
	ACL []ACLRule `yaml:"acl"`
	// Shares are the share names that devices may use in `$share/NAME/FILTER`; `*` in one stands for any characters. A
	// SUBSCRIBE with another one is refused with Not authorized. Left out, any name will do, within
	// `limits.shares_per_device`. Each name with each filter is a consumer group in Kafka.
	Shares []string `yaml:"shares"`
	// Limits bounds what one device may ask for, and how long things may take.
	Limits Limits `yaml:"limits"`
	// Admin is the HTTP side for operators: /livez, /readyz and /metrics.
	Admin Admin `yaml:"admin"`
	// Log says what is written to standard error, and how.
	Log Log `yaml:"log"`
}

// A Rule takes the MQTT messages it matches to a Kafka topic. `topic`, `key` and the values of `headers` are
// templates: `{name}` stands for what the rule captured, and these names are always there:
// `{mqtt.topic}`, `{mqtt.client_id}`, `{mqtt.username}`, `{mqtt.user.NAME}` (a user property), `{cert.cn}` (the common
// name of the device's certificate), `{payload.PATH}` (a path into a JSON payload, such as `{payload.machine.id}` or `{payload.0.id}`).
// `{{` and `}}` stand for braces. Write templates in quotes, because braces mean something in YAML.
//
// A record's value is the payload (an empty one is an empty value, not null) and its timestamp the time of receipt. It has the
// headers `mqtt.topic`, `mqtt.client_id`, `mqtt.qos` (0, 1 or 2), and if the message has it `mqtt.retain` (true), `mqtt.will` (true),
// `mqtt.payload_format` (0 or 1), `mqtt.content_type`, `mqtt.response_topic`, `mqtt.correlation_data`, `mqtt.expiry` (seconds), then the
// user properties that pass and the rule's own headers. A dead letter has `sluice.refused`, the reason, too, and the client ID as its key.
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
	// Identity is the name of one of `kafka.identities`, as which the records are written. Left out, it is that of
	// `kafka`. A rule with `exactly_once` can't have one, because its transactions hold records of other rules too.
	Identity string `yaml:"identity"`
	// Key is the record key, a template. Records with one key stay in order. Left out, it is
	// `{mqtt.client_id}`; `""` means no key, and such records are spread over all partitions. A message that
	// lacks a value its key needs is refused.
	Key *string `yaml:"key"`
	// Headers are record headers by their name, each value a template; they come after the headers the
	// proxy sets, in the order of the file. A header whose value is missing in a message is left out of its
	// record. Names that begin with `mqtt.` or `sluice.` are the proxy's
	// own. A user property of a device with one of these names is left out, whether the header is there or not.
	Headers []topicmap.Field `yaml:"headers"`
	// UserProperties are the user properties of devices that become record headers: `all`, `none`, or a list of names. A
	// device chooses their names and values, so name them where consumers believe headers, such as `__TypeId__` or
	// `ce_type`. Names that begin with `mqtt.` or `sluice.` never pass. Dead letters and retained messages keep all.
	UserProperties UserProperties `yaml:"user_properties"`
	// When narrows the rule: each name, written as in a template but without braces (`mqtt.user.NAME`,
	// `mqtt.username`, `payload.PATH`, a capture), must have exactly this value in the message. The next
	// rules are tried when one has not.
	When []topicmap.Field `yaml:"when"`
	// MaxTopics is how many different Kafka topics a template in `topic` may make while the process runs, so
	// that a faulty device can't fill the cluster with topics. Messages that would make one more are refused.
	// Names that Kafka has no topic of, and creates none for, don't count.
	MaxTopics int `yaml:"max_topics"`
	// ExactlyOnce stores a message with QoS 2 and its packet identifier in one Kafka transaction, so that it is in
	// Kafka once even if an instance is killed. A transaction takes some 30 ms, which messages of many devices share,
	// and only consumers that read committed records do not see what is not decided yet. Messages with QoS 0 and 1 to
	// the rule go in the same transactions, to keep the order. Without it a message with QoS 2 can be stored twice when
	// an instance is killed.
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
	// Kafka, two of them may have the same client ID at two instances, their wills are lost with an instance, and
	// receipts call them absent at another one too.
	Claim string `yaml:"claim"`
	// MaxExpiry caps the Session Expiry Interval that MQTT 5 devices ask for, and is the life of MQTT 3.1.1
	// sessions with clean session 0. Whole seconds; 0s ends every session with its connection.
	MaxExpiry time.Duration `yaml:"max_expiry"`
	// DeadAfter is the silence after which an instance is taken for dead: the wills of its devices are published, and if
	// it lives it disconnects them. Silence counts only while Kafka takes the heartbeats of who judges, so a part of
	// Kafka that fails begins the count anew. More spares instances that pause for long; less than 10s
	// leaves little for one that has to connect to another Kafka node.
	DeadAfter time.Duration `yaml:"dead_after"`
}

// The words of Sessions.Claim.
const (
	ClaimAlways = "always"
	ClaimStored = "stored"
)

// Presence tells back ends which devices are connected.
type Presence struct {
	// Topic is the Kafka topic that gets a record for each connection that begins or ends: key the client ID, value
	// JSON. It must be legal and not internal. Left out, there are no such records. The value has `client_id`, `event` (connected or
	// disconnected), `instance`, `address` (host:port), `protocol` (3.1, 3.1.1 or 5), `username`, `session_present` (with connected),
	// `reason` (with disconnected), `connected` and `disconnected` (times, RFC 3339) and `epoch`, a number: of two connections of one
	// client ID that with the higher one counts.
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
		Kafka: Kafka{ClientID: "sluice", Producer: Producer{
			Linger:           5 * time.Millisecond,
			Compression:      "lz4",
			MaxInFlightBytes: 64 * mib,
		}},
		Sessions: Sessions{Topic: "sluice-sessions", Ledger: "sluice-ledger", Claim: ClaimAlways, MaxExpiry: 24 * time.Hour, DeadAfter: 10 * time.Second},
		Retained: Retained{Topic: "sluice-retained", Messages: 1_000_000, Memory: 256 * mib},
		Limits:   defaultLimits(),
		Admin:    Admin{Address: "127.0.0.1:8080"},
		Log:      Log{Level: "info", Format: "console"},
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
		rules[i].Creates = c.Kafka.CreateTopics != nil
	}
	return topicmap.Compile(rules)
}
