package cluster

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Config says what cluster a test wants. The zero value is one node with
// Kafka's defaults, sized for a test, and no topics made by accident.
type Config struct {
	// Nodes is the number of nodes, each broker and controller; 0 means 1.
	// Topics and Kafka's own topics get min(3, Nodes) replicas, and with three
	// nodes or more two of them must be in sync (min.insync.replicas).
	Nodes int
	// Properties are added to every node's server.properties and win over the
	// harness's own. The listener names are CLIENT, DIRECT, INTERNAL and
	// CONTROLLER; security set for CLIENT leaves the harness's DIRECT alone.
	Properties map[string]string
	// Listeners are more of them, for example secured ones.
	Listeners []Listener
	// JVM are options of the nodes' Java. They, and what they name, are this machine's, so a container will not do.
	JVM []string
	// Env is the environment of a node's Java beside the harness's own; as JVM.
	Env func(node int) []string
	// Peers returns the address by which the other nodes reach a listener of a node, its INTERNAL and its CONTROLLER, as
	// Advertise does for clients. It needs nodes that are processes, as JVM does.
	Peers func(node int, addr string) string
	// AutoCreate lets a client's metadata request create a topic.
	AutoCreate bool
	// Advertise returns the address that node's clients are told to connect
	// to, given the one it listens on; for example that of a netem.Proxy made
	// there and then. It is called once per node, before the node starts. Nil
	// advertises the listener itself. The harness does not go through it.
	Advertise func(node int, addr string) string
	// Dir keeps the nodes' data and logs, over a second Start too. Empty means
	// a temporary directory that Close removes. Not used with containers.
	Dir string
	// Load says that much is measured or asked of the nodes: their Java costs more at the start and less later.
	Load bool
	// Own says that the test kills, restarts or pauses nodes, so that somebody
	// else's cluster (KAFKA_BROKERS) will not do. Properties, Listeners,
	// JVM, Env, Peers, AutoCreate, Advertise and Dir imply it.
	Own bool
}

// nodes is the number of nodes with the default applied.
func (c Config) nodes() int { return max(c.Nodes, 1) }

// own says whether only a cluster started by the harness can serve c.
func (c Config) own() bool {
	return c.Own || c.AutoCreate || c.Advertise != nil || c.Dir != "" || len(c.Properties) > 0 || len(c.Listeners) > 0 || c.process()
}

// process says whether only nodes that are processes of this machine can serve c.
func (c Config) process() bool { return len(c.JVM) > 0 || c.Env != nil || c.Peers != nil }

// endpoints are one node's ports and the host names others reach them by.
type endpoints struct {
	id         int    // node.id, from 1
	bind       string // address to listen on
	peer       string // host by which the other nodes reach this one
	client     int
	direct     int
	internal   int
	controller int
	more       map[string]int    // ports of Config.Listeners, by name
	advertised string            // host:port told to clients
	told       map[string]string // what clients of Config.Listeners are told, by name
	peers      [2]string         // host:port by which other nodes reach INTERNAL and CONTROLLER
}

// clientAddr is where the node's CLIENT listener is reached from the test.
func (e endpoints) clientAddr() string { return loopback(e.client) }

// directAddr is where the node's DIRECT listener is reached from the test.
func (e endpoints) directAddr() string { return loopback(e.direct) }

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// advertise fills in what clients are told.
func (e *endpoints) advertise(c Config) {
	e.advertised = e.clientAddr()
	if c.Advertise != nil {
		e.advertised = c.Advertise(e.id-1, e.clientAddr())
	}
	e.told = map[string]string{}
	for _, l := range c.Listeners {
		e.told[l.Name] = loopback(e.more[l.Name])
		if l.Advertise != nil {
			e.told[l.Name] = l.Advertise(e.id-1, e.told[l.Name])
		}
	}
}

// meet fills in what the other nodes are told. bind and peer are known.
func (e *endpoints) meet(c Config) {
	for i, port := range []int{e.internal, e.controller} {
		e.peers[i] = fmt.Sprintf("%s:%d", e.peer, port)
		if c.Peers != nil {
			e.peers[i] = c.Peers(e.id-1, e.peers[i])
		}
	}
}

// properties is server.properties of node e among all.
func (c Config) properties(e endpoints, all []endpoints, dataDir string) map[string]string {
	p := c.sizing()
	p["process.roles"] = "broker,controller"
	p["node.id"] = strconv.Itoa(e.id)
	p["log.dirs"] = dataDir
	p["listeners"] = e.listeners()
	p["advertised.listeners"] = fmt.Sprintf("CLIENT://%s,DIRECT://%s,INTERNAL://%s",
		e.advertised, e.directAddr(), e.peers[0])
	p["listener.security.protocol.map"] = "CLIENT:PLAINTEXT,DIRECT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT"
	p["inter.broker.listener.name"] = "INTERNAL"
	p["controller.listener.names"] = "CONTROLLER"
	p["controller.quorum.voters"] = voters(all)
	for _, l := range c.Listeners {
		l.add(p, e)
	}
	maps.Copy(p, c.Properties)
	return p
}

func (e endpoints) listeners() string {
	return fmt.Sprintf("CLIENT://%[1]s:%[2]d,DIRECT://%[1]s:%[3]d,INTERNAL://%[1]s:%[4]d,CONTROLLER://%[1]s:%[5]d",
		e.bind, e.client, e.direct, e.internal, e.controller)
}

func voters(all []endpoints) string {
	v := make([]string, len(all))
	for i, e := range all {
		v[i] = fmt.Sprintf("%d@%s", e.id, e.peers[1])
	}
	return strings.Join(v, ",")
}

// sizing makes Kafka small and quick enough for a test: its defaults give the
// log cleaner alone 128 MiB and a new consumer group a pause of 3 s.
func (c Config) sizing() map[string]string {
	replicas := strconv.Itoa(min(3, c.nodes()))
	insync := "1"
	if c.nodes() >= 3 {
		insync = "2"
	}
	sizes := map[string]string{
		"auto.create.topics.enable":                        strconv.FormatBool(c.AutoCreate),
		"default.replication.factor":                       replicas,
		"min.insync.replicas":                              insync,
		"offsets.topic.replication.factor":                 replicas,
		"offsets.topic.num.partitions":                     "5",
		"transaction.state.log.replication.factor":         replicas,
		"transaction.state.log.min.isr":                    insync,
		"transaction.state.log.num.partitions":             "5",
		"share.coordinator.state.topic.replication.factor": replicas,
		"share.coordinator.state.topic.min.isr":            insync,
		"share.coordinator.state.topic.num.partitions":     "5",
		"group.initial.rebalance.delay.ms":                 "0",
		"log.cleaner.dedupe.buffer.size":                   "4194304",
	}
	if c.nodes() == 1 {
		// A killed broker is taken back only when its earlier life has timed out. A node alone is stalled together with
		// its controller, so it can have less than the others, whose time-outs are Kafka's own: faults are tried with
		// what users have.
		sizes["broker.session.timeout.ms"], sizes["broker.heartbeat.interval.ms"] = "3000", "500"
	}
	return sizes
}

// propertiesFile writes p in the order of its names.
func propertiesFile(p map[string]string) []byte {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(p)) {
		fmt.Fprintf(&b, "%s=%s\n", name, escape.Replace(p[name]))
	}
	return []byte(b.String())
}

// escape keeps a value whole in Java's property syntax: JAAS lines end in a
// backslash or hold line breaks often enough.
var escape = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
