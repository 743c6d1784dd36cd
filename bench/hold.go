package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"sluice/bench/wire"
)

// A Hold is a load of devices that connect and stay.
type Hold struct {
	Target
	Run         string
	Connections int
	Duration    time.Duration // after the last has connected
	Wait        time.Duration // for the last PINGRESP
}

// A HoldResult is what a Hold saw.
type HoldResult struct {
	Kind        string      `json:"kind"` // hold
	Run         string      `json:"run"`
	Seconds     float64     `json:"seconds"` // that they were held
	Connections Connections `json:"connections"`
	Alive       int         `json:"alive"`       // at the end: they answered a last PINGREQ
	CPU         float64     `json:"cpu_seconds"` // of this process while they were held
}

// A HoldRun is a Hold that goes on.
type HoldRun struct {
	h Hold
	f *fleet
}

// idle is a device that does nothing.
type idle struct{}

func (idle) connected(*conn) {}
func (idle) packet(_ *conn, first byte, _ []byte) error {
	return fmt.Errorf("the server sent a packet that begins with 0x%02X", first)
}
func (idle) burst(*conn) {}
func (idle) done() bool  { return true }

// New gives a run, which connects and starts nothing.
func (h Hold) New() *HoldRun {
	return &HoldRun{h, newFleet(h.Target, h.Run, h.Connections, 64, func(*member) device { return idle{} })}
}

// Connect connects the devices. The error says that none could.
func (r *HoldRun) Connect(ctx context.Context) error { return r.f.connectSome(ctx) }

// Connected is how many attempts to connect have ended.
func (r *HoldRun) Connected() int { return int(r.f.begun.Load()) }

// Counts gives how many are connected now, and how often a connection was lost.
func (r *HoldRun) Counts() (online, lost int) { return int(r.f.online.Load()), int(r.f.lost.Load()) }

// Hold waits until its time is over or ctx ends, asks every device's connection whether it lives, and disconnects. It is
// called once, after Connect.
func (r *HoldRun) Hold(ctx context.Context) *HoldResult {
	begin, cpu := time.Now(), cpuTime()
	ctx, cancel := context.WithTimeout(ctx, r.h.Duration)
	defer cancel()
	<-ctx.Done()
	out := &HoldResult{Kind: "hold", Run: r.h.Run, Seconds: seconds(time.Since(begin)), CPU: seconds(cpuTime() - cpu)}
	out.Alive = r.f.alive(r.h.Wait)
	r.f.stop(r.h.Wait)
	out.Connections = r.f.connections()
	return out
}

// alive sends a PINGREQ on every connection and gives how many are answered in time.
func (f *fleet) alive(wait time.Duration) int {
	for _, m := range f.members {
		m.mu.Lock()
		if c := m.conn.Load(); c != nil && c.pinged == 0 {
			c.pinged = f.now()
			c.out = append(c.out, wire.PingReq...)
			c.write(c.pinged)
		}
		m.mu.Unlock()
	}
	for end := time.Now().Add(wait); ; {
		answered, open := 0, 0
		for _, m := range f.members {
			m.mu.Lock()
			switch c := m.conn.Load(); {
			case c == nil:
			case c.pinged == 0:
				answered++
			default:
				open++
			}
			m.mu.Unlock()
		}
		if open == 0 || time.Now().After(end) {
			return answered
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Err says what must not be; nil: all is well.
func (h *HoldResult) Err() error {
	errs := []error{h.Connections.fault()}
	if h.Connections.Lost > 0 {
		errs = append(errs, fmt.Errorf("%d connections were lost: %s", h.Connections.Lost, h.Connections.why()))
	}
	if mute := h.Connections.Made - h.Alive; mute > 0 && h.Connections.Lost == 0 {
		errs = append(errs, fmt.Errorf("%d connections did not answer a PINGREQ at the end", mute))
	}
	return errors.Join(errs...)
}

// WriteTable writes what a reader wants to know.
func (h *HoldResult) WriteTable(w io.Writer) error {
	t := &table{}
	t.row("hold", "%.1f s", h.Seconds)
	t.row("run", "%s", h.Run)
	t.connections(h.Connections)
	t.row("alive at the end", "%s", Thousands(h.Alive))
	t.times([]string{"CONNECT", "PINGREQ"}, []*Times{h.Connections.Times, h.Connections.Pings})
	return t.flush(w)
}
