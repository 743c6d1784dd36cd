package config

import "time"

// Limits bounds what one device may ask for, what all may together, and how long things may take.
type Limits struct {
	// MaxPacketSize is the largest MQTT packet that is read. MQTT 5 devices are told; a device that sends
	// more is disconnected. Kafka has a limit of its own per topic (max.message.bytes, 1 MiB if nobody
	// changed it): what passes here and is too large there is refused.
	MaxPacketSize Bytes `yaml:"max_packet_size"`
	// ReceiveMaximum is how many messages with QoS 1 and 2 one connection may have unacknowledged. MQTT 5
	// devices are told; one that sends more all the same, and an MQTT 3.1.1 connection, is not read while it has that
	// many. Low values bound what a device can send by this number per round trip to Kafka. Of QoS 2, 4096 packet
	// identifiers of a session may wait for PUBREL, or this number if it is larger; beyond it the connection is closed,
	// in MQTT 5 with Receive Maximum exceeded.
	ReceiveMaximum int `yaml:"receive_maximum"`
	// KeepAliveMax is the longest keep-alive an MQTT 5 device gets; one that asks for more, or for none, is
	// told this one instead. Whole seconds; 0s sets no limit, and a device that asked for none is never
	// missed.
	KeepAliveMax time.Duration `yaml:"keep_alive_max"`
	// ConnectTimeout is how long a new connection may take until its CONNECT packet is complete.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
	// TopicAliasMaximum is how many topic aliases one MQTT 5 connection may set, of 4 KiB on average. A connection that
	// makes more of them, or one above 1 KiB in all when those of all connections take too much, is closed with Quota
	// exceeded. 0: none, since a client may send a message again on a new connection with an alias that
	// it had set on the old one, and is closed each time: Paho for Java v5 does so when its instance has died.
	TopicAliasMaximum int `yaml:"topic_alias_maximum"`
	// ShutdownTimeout is how long a stopping process waits for Kafka to acknowledge what it has received.
	// What is open after that is not acknowledged to its devices, which send it again elsewhere. Give the
	// service manager a few seconds more.
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout"`
	// CommandsInFlight is how many commands with QoS 1 and 2 one device may have been sent and not have
	// completed. The Receive Maximum of an MQTT 5 device may make it less.
	CommandsInFlight int `yaml:"commands_in_flight"`
	// CommandsQueued is how many commands may wait for one device, connected or away, beyond those in flight. What is
	// more stays in Kafka until there is room if the device's session is stored, and else is dropped and counted.
	CommandsQueued int `yaml:"commands_queued"`
	// CommandsMemory is the memory for commands that wait or are in flight, of all devices together; one device may
	// take an eighth of it. A command for several devices counts once, and for each of them about 100 bytes, or 2 KiB
	// if its rule writes receipts. What is more stays in Kafka until there is room if the device's session is stored,
	// and else is dropped and counted.
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
	// SharesPerDevice is how many of them one client ID may be subscribed to at an instance, those included that it has
	// left within `sessions.max_expiry`, because their consumer groups are still there. A SUBSCRIBE for more is refused
	// with Quota exceeded. Keep it well below `shared_subscriptions`, or one device can take them all.
	SharesPerDevice int `yaml:"shares_per_device"`
	// Connections is how many connections there may be. One more is closed without an answer. 0: as many as the
	// process may have open files.
	Connections int `yaml:"connections"`
	// ConnectionsPerAddress is how many connections one address may have: an IPv4 address, or a /64 network of IPv6. One
	// more is closed without an answer. Mind devices that share an address. 0: no limit.
	ConnectionsPerAddress int `yaml:"connections_per_address"`
	// ConnectsPerSecond is how many new connections are taken in a second. What comes faster, as when a whole fleet
	// returns, waits for its turn, each address in turn with the others; those that are connected go on undisturbed. 0:
	// no limit.
	ConnectsPerSecond int `yaml:"connects_per_second"`
	// PublishesPerSecond is how many messages one device may publish in a second, on average. 0: no limit.
	PublishesPerSecond int `yaml:"publishes_per_second"`
	// PublishBytesPerSecond is how many bytes the messages of one device may have in a second, on average. 0: no limit.
	PublishBytesPerSecond Bytes `yaml:"publish_bytes_per_second"`
	// OverRate is what becomes of a device that publishes faster. delay: it is read more slowly; one that pours for a
	// minute without ever waiting for an answer is disconnected all the same. disconnect: its connection is closed, in
	// MQTT 5 with Quota exceeded.
	OverRate string `yaml:"over_rate"`
	// TopicLevels is how many levels a topic or a topic filter may have. What has more is refused.
	TopicLevels int `yaml:"topic_levels"`
	// UserProperties is how many user properties one MQTT 5 packet may have. A device that sends more is disconnected
	// with Quota exceeded.
	UserProperties int `yaml:"user_properties"`
	// Sessions is how many sessions may be stored, those of all instances together. A device that asks for one more is
	// refused with Quota exceeded. 0: no limit.
	Sessions int `yaml:"sessions"`
	// SessionsMemory is how much the stored sessions may take in each instance, which all have all of them: topic filters,
	// wills with their payload, and a few hundred bytes each. Beyond it a device that asks for a new session, and a
	// SUBSCRIBE to one more topic filter in a stored session, are refused with Quota exceeded.
	SessionsMemory Bytes `yaml:"sessions_memory"`
	// FailedLogins is how many wrong logins one address may try in a minute: an IPv4 address, or a /64 network of IPv6.
	// Beyond it, passwords from there that were not right from there before are refused without being looked at. All
	// devices behind one NAT have one address, and so have all behind a load balancer that doesn't send the PROXY protocol
	// (`proxy_protocol`): some with a wrong password then keep out others that come for the first time, so let it grow
	// with their number. 0: no limit.
	FailedLogins int `yaml:"failed_logins"`
}

// The words of Limits.OverRate.
const (
	OverRateDelay      = "delay"
	OverRateDisconnect = "disconnect"
)

// defaultLimits gives the values of what a file leaves out of its limits.
func defaultLimits() Limits {
	return Limits{
		MaxPacketSize:       256 * kib,
		ReceiveMaximum:      256,
		KeepAliveMax:        time.Hour,
		ConnectTimeout:      10 * time.Second,
		ShutdownTimeout:     30 * time.Second,
		CommandsInFlight:    64,
		CommandsQueued:      1000,
		CommandsMemory:      64 * mib,
		Subscriptions:       100,
		SubscriptionsMemory: 256 * mib,
		SharedSubscriptions: 100,
		SharesPerDevice:     10,
		ConnectsPerSecond:   2000,
		OverRate:            OverRateDelay,
		TopicLevels:         128,
		UserProperties:      64,
		Sessions:            1_000_000,
		SessionsMemory:      gib,
		FailedLogins:        60,
	}
}
