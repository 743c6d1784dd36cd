//go:build race

package sim

// The race detector takes ten times as long, and has goroutines run in a random order.
const (
	raceEnabled        = true
	schedulesByDefault = 300
)
