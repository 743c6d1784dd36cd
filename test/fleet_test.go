package test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/test/clients"
	"sluice/test/cluster"
	"sluice/test/internal/haproxy"
	"sluice/test/internal/ports"
	"sluice/test/load"
)

// A fleetBench is instances that share their state, the Kafka behind them, and what their rules lead to.
type fleetBench struct {
	t         *testing.T
	kafka     *cluster.Cluster
	instances []*instance
	proxied   []haproxy.Server // the same, as HAProxy reaches them
	telemetry string
	wills     string
	commands  string
	receipts  string
}

const telemetryPartitions = 6

// fleetOptions are what the tests of a fleet vary.
type fleetOptions struct {
	rule  string // of the telemetry rule, more lines of YAML with an indentation of four
	extra string // more sections
	qos   int    // of commands; 0: 2
}

// serveFleet starts three instances. devices/ID/telemetry/… goes to the topic telemetry and devices/ID/will to wills;
// commands come to devices/ID/commands, and their receipts to receipts.
func serveFleet(t *testing.T, o fleetOptions) *fleetBench {
	t.Helper()
	return serveFleetAt(t, cluster.Shared(t), o)
}

// serveFleetAt is serveFleet with a Kafka of the caller's.
func serveFleetAt(t *testing.T, kafka *cluster.Cluster, o fleetOptions) *fleetBench {
	t.Helper()
	topic := func(partitions int) string { // with as many copies as the cluster gives
		name := cluster.TopicName(t)
		require.NoError(t, kafka.CreateTopic(name, partitions, 0, nil))
		return name
	}
	b := &fleetBench{t: t, kafka: kafka, telemetry: topic(telemetryPartitions), wills: topic(3), commands: topic(6), receipts: topic(3)}
	if o.qos == 0 {
		o.qos = 2
	}
	rules := fmt.Sprintf("publish:\n%s%s  - match: devices/{device}/will\n    topic: %q\n    key: \"{device}\"\n",
		oneTopic(b.telemetry), o.rule, b.wills)
	rules += fmt.Sprintf("commands:\n  - topic: %q\n    publish: devices/{key}/commands\n    client: \"{key}\"\n    qos: %d\n    receipts: %q\n%s\n",
		b.commands, o.qos, b.receipts, o.extra)
	b.serve(3, rules)
	return b
}

// serve starts instances with one configuration, apart from their addresses.
func (b *fleetBench) serve(n int, rules string) {
	b.t.Helper()
	state := stateTopics(b.t)
	for range n {
		s, proxied := member(b.t, b.kafka.Brokers(), rules+state)
		b.instances = append(b.instances, s)
		b.proxied = append(b.proxied, haproxy.Server{Address: proxied, Admin: s.admin})
		s.start()
	}
	for _, s := range b.instances {
		s.awaitReady()
	}
}

// stateTopics names topics for the state of one fleet alone.
func stateTopics(t testing.TB) string {
	name := cluster.TopicName(t)
	return fmt.Sprintf("sessions: {topic: %q, ledger: %q}\nretained: {topic: %q}\n", "sluice-sessions-"+name, "sluice-ledger-"+name, "sluice-retained-"+name)
}

// sessionsOf gives the topic of the sessions in what stateTopics gave.
func sessionsOf(t testing.TB, state string) (topic string) {
	t.Helper()
	_, err := fmt.Sscanf(state, "sessions: {topic: %q", &topic)
	require.NoError(t, err)
	return topic
}

// member prepares an instance with a listener for devices, which is its address, and one for HAProxy.
func member(t testing.TB, brokers []string, rules string) (s *instance, proxied string) {
	t.Helper()
	taken, err := ports.Take(3)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ports.Release(taken)) })
	s = &instance{t: t, program: program, address: taken[0].Addr(), admin: taken[1].Addr(), log: new(lockedBuffer)}
	proxied = taken[2].Addr()
	config := fmt.Sprintf("listeners:\n  - address: %q\n  - address: %q\n    proxy_protocol: {trusted: [127.0.0.0/8]}\nadmin: {address: %q}\nlog: {format: json}\n",
		s.address, proxied, s.admin)
	config += fmt.Sprintf("kafka:\n  brokers: [%s]\n  create_topics: {partitions: 6, replication: %d}\n%s", strings.Join(brokers, ", "), min(3, len(brokers)), rules)
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	s.args = []string{"serve", "--config", file}
	t.Cleanup(s.cleanup)
	return s, proxied
}

// devicesPerProxy is what one HAProxy takes within the file descriptors that machines commonly allow.
const devicesPerProxy = 8000

// balance starts as many HAProxies as so many devices need, and gives how devices reach them.
func (b *fleetBench) balance(devices int) func(ctx context.Context, device int) (net.Conn, error) {
	b.t.Helper()
	var proxies []*haproxy.Proxy
	for range 1 + devices/devicesPerProxy {
		p := haproxy.Start(b.t, clients.Required(), "../deploy/haproxy.cfg", b.proxied...)
		p.Await("UP", "UP", "UP")
		proxies = append(proxies, p)
	}
	return func(ctx context.Context, device int) (net.Conn, error) {
		return dialDevice(ctx, proxies[device%len(proxies)].Addr, device)
	}
}

// dialDevice connects from one of several loopback addresses, each of which has ports of its own.
func dialDevice(ctx context.Context, addr string, device int) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 4, byte(1+device%32))}}
	return d.DialContext(ctx, "tcp", addr)
}

// A switchboard leads all connects of a fleet to one address, which changes.
type switchboard struct {
	mu   sync.Mutex
	addr string
}

func (s *switchboard) lead(addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addr = addr
}

func (s *switchboard) dial(ctx context.Context, device int) (net.Conn, error) {
	s.mu.Lock()
	addr := s.addr
	s.mu.Unlock()
	return dialDevice(ctx, addr, device)
}

// devices starts a fleet of devices with stored sessions, and a writer of their commands.
func (b *fleetBench) devices(f *load.CommandFleet) *load.CommandWriter {
	b.t.Helper()
	f.Run, f.Reconnect = runID(), true
	ctx, cancel := context.WithTimeout(b.t.Context(), 5*patience)
	defer cancel()
	b.t.Cleanup(f.Stop)
	require.NoError(b.t, f.Start(ctx))
	return b.writer(f)
}

func (b *fleetBench) writer(f *load.CommandFleet) *load.CommandWriter {
	b.t.Helper()
	w, err := load.NewCommandWriter(f, b.kafka.Brokers(), b.commands)
	require.NoError(b.t, err)
	b.t.Cleanup(w.Close)
	return w
}

// write gives each device n commands and waits for Kafka.
func (b *fleetBench) write(w *load.CommandWriter, f *load.CommandFleet, n int) {
	b.t.Helper()
	for range n {
		for device := range f.Devices {
			w.Write(device)
		}
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), 5*patience)
	defer cancel()
	require.NoError(b.t, w.Flush(ctx))
}

// healthy requires that no instance that runs has recovered from a panic.
func (b *fleetBench) healthy() {
	b.t.Helper()
	for _, s := range b.instances {
		if s.running() {
			require.Zero(b.t, s.metric("sluice_mqtt_recovered_panics_total"))
		}
	}
}

// TestDevicesBehindHAProxyHaveTheirOwnAddresses: an instance's log tells where a device is, not where HAProxy is.
func TestDevicesBehindHAProxyHaveTheirOwnAddresses(t *testing.T) {
	besideOthers(t)
	b := serveFleet(t, fleetOptions{})
	dial := b.balance(9)
	f := &load.CommandFleet{Devices: 9, QoS: 2, Dialer: dial}
	w := b.devices(f)
	b.write(w, f, 3)
	delivered(t, f, w.Written(nil))
	f.Leave(0)
	await(t, func() bool {
		for _, s := range b.instances {
			if strings.Contains(s.log.String(), `"remote":"127.0.4.1:`) {
				return true
			}
		}
		return false
	}, func() string { return "a line of the log with the device's address" })
	for _, s := range b.instances {
		require.Positive(t, s.metric("sluice_mqtt_connections"), "leastconn spreads the devices")
	}
	b.healthy()
}
