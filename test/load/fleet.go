package load

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Fleet says how many devices publish what. Zero values: one device, QoS 0, window 20, 256 bytes, MQTT 5.
type Fleet struct {
	Addr    string
	Run     string // in every payload and client ID; tells runs on one Kafka topic apart
	Devices int
	QoS     byte
	Window  int    // unacknowledged messages a device
	Size    int    // payload bytes
	Version byte   // 4 or 5
	Topic   string // MQTT topic, %d is the device's number
	Rate    int    // messages a second of all devices together; 0: as fast as they are acknowledged
	// Reconnect makes a device connect again when its connection is lost, with its session, and send again what is
	// unacknowledged. Without it a lost connection is an error.
	Reconnect bool
	// Ping makes every device send PINGREQ five times a second and time the answers.
	Ping bool
	// Dialer is used to connect; nil: spread over loopback source addresses.
	Dialer func(ctx context.Context, device int) (net.Conn, error)
	// Username and Password are what every device says in CONNECT; "": nothing.
	Username, Password string
	// Drain is how long the devices wait for what is unacknowledged after the end of the time; 0: 30 s.
	Drain time.Duration

	mu      sync.Mutex
	devices []*device
}

// A Result is what the fleet saw.
type Result struct {
	Sent, Acked, Refused int
	Reconnects           int
	PerDevice            [][]uint64               // acknowledged sequence numbers, from 1, in the order of their acknowledgement
	Repeated             []map[uint64][]time.Time // of each device: messages that were sent more than once, and when
	Latency              []time.Duration
	WorstPing            time.Duration
	Errors               []error
	Elapsed              time.Duration
}

// Quantile gives the latency that the share q of acknowledgements did not exceed.
func (r *Result) Quantile(q float64) time.Duration {
	if len(r.Latency) == 0 {
		return 0
	}
	slices.Sort(r.Latency)
	return r.Latency[int(q*float64(len(r.Latency)-1))]
}

func (f *Fleet) defaults() {
	f.Devices = max(f.Devices, 1)
	if f.Window == 0 {
		f.Window = 20
	}
	f.Size = max(f.Size, 64)
	if f.Version == 0 {
		f.Version = 5
	}
	if f.Topic == "" {
		f.Topic = "devices/%d/telemetry/load"
	}
	if f.Drain == 0 {
		f.Drain = 30 * time.Second
	}
	if f.Dialer == nil {
		f.Dialer = f.dial
	}
}

// dial connects from one of several loopback addresses, each of which has ports of its own.
func (f *Fleet) dial(ctx context.Context, device int) (net.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	if strings.HasPrefix(f.Addr, "127.") {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+device%16))}
	}
	return d.DialContext(ctx, "tcp", f.Addr)
}

// ClientID gives the client ID of a device.
func (f *Fleet) ClientID(device int) string { return fmt.Sprintf("load-%s-%d", f.Run, device) }

// Acked counts what was acknowledged so far; for progress while Publish runs.
func (f *Fleet) Acked() (n int) {
	for _, acked := range f.AckedEach() {
		n += acked
	}
	return n
}

// AckedEach counts what was acknowledged to each device so far.
func (f *Fleet) AckedEach() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]int, len(f.devices))
	for i, d := range f.devices {
		all[i] = d.ackedCount()
	}
	return all
}

// Refused counts the messages that were refused so far.
func (f *Fleet) Refused() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.devices {
		n += d.refusedCount()
	}
	return n
}

// Publish lets all devices publish until ctx ends, waits for what is unacknowledged, and reports.
func (f *Fleet) Publish(ctx context.Context) *Result {
	f.defaults()
	start := time.Now()
	f.mu.Lock()
	f.devices = make([]*device, f.Devices)
	for i := range f.devices {
		f.devices[i] = newDevice(f, i)
	}
	f.mu.Unlock()
	var wg sync.WaitGroup
	for _, d := range f.devices {
		wg.Go(func() { d.run(ctx) })
	}
	wg.Wait()
	r := &Result{Elapsed: time.Since(start)}
	for _, d := range f.devices {
		d.report(r)
	}
	return r
}
