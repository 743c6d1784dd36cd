package embedded

// Config of a cluster; the zero value is usable.
type Config struct {
	// Port on 127.0.0.1; 0: any free one. With more than one broker they take the ports that follow.
	Port int
	// Brokers is how many there are. Default 1.
	Brokers int
	// Topics are made at start; others when a client creates them.
	Topics []string
	// Partitions of a topic whose maker does not say. Default 3.
	Partitions int32
	// RetentionBytes is how much a partition keeps, about. Default 16 MiB.
	RetentionBytes int64
	// Settings are further broker configurations.
	Settings map[string]string
}

func (c Config) withDefaults() Config {
	if c.Brokers == 0 {
		c.Brokers = 1
	}
	if c.Partitions == 0 {
		c.Partitions = 3
	}
	if c.RetentionBytes == 0 {
		c.RetentionBytes = 16 << 20
	}
	return c
}
