package test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/test/cluster"
	"sluice/test/oracle"
)

// A theatre is instances and a Kafka node that scripts are played in.
type theatre struct {
	*oracle.World
	t         *testing.T
	kafka     *cluster.Cluster
	instances []*instance

	disturbances int
}

func openTheatre(t *testing.T, instances int) *theatre {
	t.Helper()
	h := &theatre{t: t, kafka: cluster.Need(t, cluster.Config{Own: true})}
	suffix := runID()
	for _, topic := range oracle.KafkaTopics(suffix) {
		require.NoError(t, h.kafka.CreateTopic(topic, 6, 1, nil))
	}
	var addresses []string
	state := stateTopics(t)
	for range instances {
		s, _ := member(t, h.kafka.Brokers(), oracle.Config(suffix)+state)
		h.instances = append(h.instances, s)
		addresses = append(addresses, s.address)
		s.start()
	}
	for _, s := range h.instances {
		s.awaitReady()
		await(t, func() bool { return s.metric("sluice_session_owned_partitions") > 0 }, s.log.String) // receipts need an owner
	}
	var err error
	h.World, err = oracle.NewWorld(h.kafka.Direct(), addresses, suffix)
	require.NoError(t, err)
	t.Cleanup(h.Close)
	return h
}

// number gives a number of the environment.
func number(t testing.TB, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, name)
	return n
}

// playing is how many histories are played at a time.
const playing = 100

// A failed is a history that the model does not allow.
type failed struct {
	seed   int
	script oracle.Script
	found  []oracle.Violation
	h      *oracle.History
}

// play plays the scripts of n seeds and gives those that failed.
func (h *theatre) play(first, n int, draw func(seed int) oracle.Script) (all []failed) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	seeds := make(chan int)
	for range playing {
		wg.Go(func() { // ends with seeds
			for seed := range seeds {
				script := draw(seed)
				history, found := h.Play(h.t.Context(), script)
				if len(found) > 0 {
					mu.Lock()
					all = append(all, failed{seed, script, found, history})
					mu.Unlock()
				}
			}
		})
	}
	for seed := first; seed < first+n && h.t.Context().Err() == nil; seed++ {
		seeds <- seed
	}
	close(seeds)
	wg.Wait()
	return all
}

// TestHistories plays random scripts of two devices and a back end and holds what is seen to a model of a session. Long:
// make histories HISTORIES=20000. SLUICE_SEED=n begins with another seed; a seed alone repeats with SLUICE_HISTORIES=1.
func TestHistories(t *testing.T) {
	all := number(t, "SLUICE_HISTORIES", 100)
	for _, c := range []struct {
		name      string
		instances int
		share     int           // of the histories, in hundredths
		pace      time.Duration // of the disturbances, at least
		disturb   func(h *theatre, rng *rand.Rand)
	}{
		{"one instance", 1, 100, 0, nil},
		{"one instance and Kafka that are stopped for a while", 1, 10, time.Second, (*theatre).stop},
		{"two instances", 2, 100, 0, nil},
		{"three instances", 3, 50, 0, nil},
		{"two instances and Kafka that are stopped for a while", 2, 20, time.Second, (*theatre).stop},
		// It takes 12 s to be sure that an instance is dead, and longer if the one that has to say so dies, or is to start first.
		{"one instance that is killed", 1, 10, time.Minute, (*theatre).kill},
		{"two instances that are killed", 2, 20, 20 * time.Second, (*theatre).kill},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.disturb != nil {
				t.Parallel() // it waits for most of its time
			}
			n := max(1, all*c.share/100)
			h := openTheatre(t, c.instances)
			begin := time.Now()
			first := number(t, "SLUICE_SEED", int(begin.UnixNano()%1_000_000_000))
			quiet := func() {}
			if c.disturb != nil {
				quiet = h.disturb(rand.New(rand.NewPCG(uint64(first), 0)), c.pace, c.disturb)
			}
			bad := h.play(first, n, func(seed int) oracle.Script {
				return oracle.Draw(seed, oracle.Options{Instances: c.instances, Commands: seed%3 == 0, Timed: seed%20 == 0, Shares: seed%20 == 10})
			})
			quiet()
			t.Logf("%d histories from seed %d in %v, %d disturbances", n, first, time.Since(begin).Round(time.Second), h.disturbances)
			h.explain(bad)
		})
	}
}

// disturb does something again and again, until the function it gives is called.
func (h *theatre) disturb(rng *rand.Rand, pace time.Duration, how func(*theatre, *rand.Rand)) (quiet func()) {
	ctx, cancel := context.WithCancel(h.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { // ends with ctx
		for wait := between(rng, time.Second, 3*time.Second); ; wait = between(rng, pace, pace+5*time.Second) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait): // the pace of the disturbances
			}
			how(h, rng)
			h.disturbances++
		}
	})
	return func() { cancel(); wg.Wait() }
}

// stop stops an instance or Kafka for less than the time after which an instance is taken for dead.
func (h *theatre) stop(rng *rand.Rand) {
	h.Stalled()
	which, long := rng.IntN(len(h.instances)+1), time.Duration(200+rng.IntN(4000))*time.Millisecond
	if which == len(h.instances) {
		require.NoError(h.t, h.kafka.Pause(0))
		time.Sleep(long) // the disturbance
		require.NoError(h.t, h.kafka.Resume(0))
		return
	}
	require.NoError(h.t, h.instances[which].cmd.Process.Signal(syscall.SIGSTOP))
	time.Sleep(long) // the disturbance
	require.NoError(h.t, h.instances[which].cmd.Process.Signal(syscall.SIGCONT))
}

// kill kills an instance and starts it again.
func (h *theatre) kill(rng *rand.Rand) {
	s := h.instances[rng.IntN(len(h.instances))]
	h.Crashed()
	s.kill()
	h.Crashed() // histories that began before it was dead
	s.start()
	s.awaitReady()
}

// explain fails the test for each kind of violation, with the shortest script that shows it.
func (h *theatre) explain(bad []failed) {
	kinds := map[string][]failed{}
	for _, f := range bad {
		seen := map[string]bool{}
		for _, v := range f.found {
			if !seen[v.Clause] {
				seen[v.Clause] = true
				kinds[v.Clause] = append(kinds[v.Clause], f)
			}
		}
	}
	for _, clause := range slices.Sorted(maps.Keys(kinds)) {
		of := kinds[clause]
		slices.SortFunc(of, func(a, b failed) int { return len(a.script) - len(b.script) })
		f := of[0]
		ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
		script, history, found := oracle.Shrink(ctx, h.World, f.script, clause)
		cancel()
		if history == nil {
			script, history, found = f.script, f.h, f.found
		}
		var all strings.Builder
		for _, v := range found {
			fmt.Fprintln(&all, v)
		}
		for _, other := range of[1:] {
			fmt.Fprintln(&all, "seed", other.seed, other.found)
		}
		h.t.Errorf("%s: %d histories, seed %d\n%s\n%s\n%s", clause, len(of), f.seed, all.String(), script, history)
	}
}

// TestHistoriesThatFailedOnce plays the scripts in testdata/histories, or in the file SLUICE_SCRIPT, some times each.
func TestHistoriesThatFailedOnce(t *testing.T) {
	besideOthers(t)
	files, err := filepath.Glob("testdata/histories/*.script")
	require.NoError(t, err)
	if file := os.Getenv("SLUICE_SCRIPT"); file != "" {
		files = []string{file}
	}
	require.NotEmpty(t, files)
	for instances := 1; instances <= 2; instances++ {
		h := openTheatre(t, instances)
		for _, file := range files {
			t.Run(fmt.Sprintf("%s, %d instances", filepath.Base(file), instances), func(t *testing.T) {
				t.Parallel() // a script waits for most of its time
				text, err := os.ReadFile(file)
				require.NoError(t, err)
				script, err := oracle.ParseScript(string(text))
				require.NoError(t, err)
				times := either(10, 30)
				bad := h.play(0, times, func(int) oracle.Script { return script.At(instances) })
				if len(bad) > 0 {
					t.Fatalf("%d of %d: %v\n%s", len(bad), times, bad[0].found, bad[0].h)
				}
			})
		}
	}
}
