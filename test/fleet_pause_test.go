package test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestAnInstanceThatWakesUpDeadGoesOn: an instance is stopped for longer than the others wait for it, and wakes up. They
// have declared it dead: its devices' wills are published once, though it had them itself when it woke up; no command is
// delivered twice; and it takes devices again under another name.
func TestAnInstanceThatWakesUpDeadGoesOn(t *testing.T) {
	besideOthers(t)
	b := serveFleet(t, fleetOptions{})
	devices := either(90, 3000)
	f := newWillful(devices, b.balance(devices), func(int) uint32 { return 0 })
	w := b.devices(f.CommandFleet)
	book := b.followWills()
	b.write(w, f.CommandFleet, 2)
	sleeper := b.instances[1]
	lost := int(sleeper.metric("sluice_mqtt_connections"))
	require.Positive(t, lost)

	begin := time.Now()
	require.NoError(t, sleeper.cmd.Process.Signal(syscall.SIGSTOP))
	b.write(w, f.CommandFleet, 3)
	await(t, func() bool { return book.count() >= lost }, func() string { return fmt.Sprintf("%d of %d wills", book.count(), lost) })
	t.Logf("all %d wills are published after %v", lost, time.Since(begin).Round(10*time.Millisecond))
	require.NoError(t, sleeper.cmd.Process.Signal(syscall.SIGCONT))
	f.comeBack(t, lost)
	await(t, func() bool { return sleeper.metric("sluice_session_verdicts_total", `who="own"`) == 1 }, func() string { return "it reads that it is dead" })
	sleeper.awaitReady()
	b.write(w, f.CommandFleet, 3)
	t.Logf("%s", delivered(t, f.CommandFleet, w.Written(nil)))

	var want []string
	for _, device := range f.dropped() {
		want = append(want, willName(f.ClientID(device), 1))
	}
	require.Len(t, want, lost, "no device of another instance noticed anything")
	book.exactly(t, want)
	require.Zero(t, f.NewSessions())
	b.healthy()
	d := connectRaw(t, sleeper.address, rawConnect{id: runID() + "after", expiry: 60})
	require.False(t, d.present)
}
