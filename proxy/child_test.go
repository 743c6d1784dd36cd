package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/fleet"
	"sluice/proxy/config"
)

// childEnv holds the configuration of an instance that is a process of its own, so that it can be killed.
const childEnv = "SLUICE_TEST_CHILD"

// A child is an instance in a process of its own.
type child struct {
	addr string
	kill func() // at once, and waits until it is dead
	cmd  *exec.Cmd
}

// die is kill.
func (c *child) die() { c.kill() }

// standStill stops it until it is killed. Until the signal has come to its threads it goes on, for long enough on a busy
// machine to let go of its devices in order.
func (c *child) standStill() {
	_ = c.cmd.Process.Signal(syscall.SIGSTOP)
	_, _ = syscall.Wait4(c.cmd.Process.Pid, nil, syscall.WUNTRACED, nil)
}

// child starts an instance in a process of its own.
func (s *site) child(partitions int, text string) *child {
	s.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+configText(s.cluster.Brokers()[0], partitions, text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // it ends when we do
	require.NoError(s.t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(s.t, err)
	require.NoError(s.t, cmd.Start())
	kill := sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = in.Close()
		_ = cmd.Wait()
	})
	s.t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(s.t, err)
	return &child{addr: strings.TrimSpace(line), kill: kill, cmd: cmd}
}

// beChild runs an instance until standard input ends.
func beChild(text string) int {
	cfg, err := config.Parse("child", []byte(text), noEnv)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	p, err := New(cfg, zerolog.Nop(), prometheus.NewRegistry())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, quit := context.WithCancel(context.Background())
	go func() { // ends with standard input
		defer quit()
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	go func() { // ends when it serves
		<-p.Serving()
		listeners, _ := p.Addresses()
		fmt.Println(listeners[0])
	}()
	if err := p.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// TestKilledInstanceIsBuriedByTheOthers: its wills are published once, its sessions go on elsewhere at once, those that
// expire are told of once, and back ends learn that the connections have ended.
func TestKilledInstanceIsBuriedByTheOthers(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := found(t, 4, withWills)
	all := []*instance{s.instance(), s.instance()}
	for _, in := range all {
		in.serve()
	}
	s.owned(all...)
	doomed := s.child(4, withWills) // takes its share of what they own
	with := func(id string, expiry uint32) connecting {
		return connecting{id: id, will: "wills/" + id, expiry: expiry}
	}
	with("fleeting", 0).to(t, doomed.addr, false)
	with("stays", 3600).to(t, doomed.addr, false)
	slow := with("slow", 3600)
	slow.willDelay = 3600
	slow.to(t, doomed.addr, false)
	over := with("over", 1).to(t, doomed.addr, false)
	over.subscribe("devices/over/x", 1)
	moves := with("moves", 3600).to(t, doomed.addr, false)
	moves.subscribe("devices/moves/x", 2)
	s.write(now("commands", "over", "x", "name", "x"))
	over.next()
	for i := range 3 {
		s.write(now("commands", "moves", fmt.Sprint(i), "name", "x", "id", fmt.Sprint(i), "mqtt.qos", fmt.Sprint(min(i+1, 2))))
	}
	sent := []delivered{moves.next(), moves.next(), moves.next()}
	doomed.kill()
	s.write(now("commands", "moves", "3", "name", "x", "id", "3"))

	moves = lasting("moves").to(t, all[0].addr, true)
	var ids []string
	for _, m := range []delivered{moves.next(), moves.next(), moves.next(), moves.next()} {
		ids = append(ids, m.payload)
		if m.qos == 2 {
			require.Contains(t, sent, m, "the packet identifier of the first time")
			moves.complete(m)
		} else {
			moves.ack(m, 0)
		}
	}
	require.ElementsMatch(t, []string{"0", "1", "2", "3"}, ids)
	s.published("wills/fleeting", "wills/moves", "wills/over", "wills/stays")
	s.became("moves moves delivered (0)", "moves moves delivered (1)", "moves moves delivered (2)", "moves moves delivered (3)", "over over offline session_ended")
	ended := map[string]int{}
	s.until("presence", func() bool {
		clear(ended)
		for _, p := range s.presences() {
			if p.Reason == reasonInstanceDied {
				ended[p.ClientID]++
			}
		}
		return len(ended) >= 5
	})
	require.Equal(t, map[string]int{"fleeting": 1, "stays": 1, "slow": 1, "over": 1, "moves": 1}, ended)
	slow.will = ""
	slow.to(t, all[1].addr, true).leave()
	for _, in := range all {
		in.stop()
	}
	s.published("wills/fleeting", "wills/moves", "wills/over", "wills/stays")
}

// TestInstanceThatWasDeclaredDeadGoesOnUnderANewName: its devices are disconnected, their wills were published, once,
// and they come back to it.
func TestInstanceThatWasDeclaredDeadGoesOnUnderANewName(t *testing.T) {
	t.Parallel() // most of it is waiting
	all := fleetOf(t, 2, withWills)
	d := connecting{id: "d1", will: "wills/d1", expiry: 3600}.to(t, all[0].addr, false)
	d.subscribe("devices/d1/x", 1)
	before := all[0].sessions.driver.Name()
	verdict, err := (&fleet.Instance{Dead: true, By: "a judge", At: time.Now().UnixMilli()}).Encode()
	require.NoError(t, err)
	all[0].write(now("sluice-sessions", string(fleet.VerdictKey(before)), string(verdict)))
	all[0].published("wills/d1")
	_, _, err = d.tryRead()
	for err == nil {
		_, _, err = d.tryRead()
	}
	require.ErrorIs(t, err, io.EOF)
	all[0].until("it has a new name", func() bool { return all[0].sessions.driver.Name() != before && all[0].Ready() == nil })
	all[0].write(now("commands", "d1", "x", "name", "x"))
	d = lasting("d1").to(t, all[0].addr, true)
	d.ack(d.next(), 0)
	all[0].became("d1 d1 delivered")
	d.leave()
	for _, in := range all {
		in.stop()
	}
	all[0].published("wills/d1")
}

// TestShareBeginsWhereItsMemberSubscribed though its only instance is killed, or stands still, before the consumer group has
// written down where that was: what was written meanwhile waits for the member's return.
func TestShareBeginsWhereItsMemberSubscribed(t *testing.T) {
	for name, ends := range map[string]func(*child){"killed": (*child).die, "stands still": (*child).standStill} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // some of it is waiting
			shareBegins(t, ends)
		})
	}
}

func shareBegins(t *testing.T, ends func(*child)) {
	s := found(t, 4, toAll)
	in := s.instance()
	in.serve()
	s.owned(in)
	doomed := s.child(4, toAll)
	d := lasting("d1").to(t, doomed.addr, false)
	d.subscribe("$share/g/fleet", 1)
	ends(doomed) // long before the group has come together
	var want []string
	for i := range 8 {
		want = append(want, fmt.Sprint(i))
		s.write(now("commands", fmt.Sprint(i), want[i]))
	}
	in.until("they are read", func() bool { return in.value("sluice_command_unmatched_records_total") >= 8 })
	d = lasting("d1").to(t, in.addr, true)
	var got []string
	for range want {
		m := d.next()
		d.ack(m, 0)
		got = append(got, m.payload)
	}
	require.ElementsMatch(t, want, got)
	d.leave()
	in.stop()
}
