//go:build !race

package sim

const (
	raceEnabled        = false
	schedulesByDefault = 1500
)
