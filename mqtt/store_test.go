package mqtt

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A vault is a Store in memory, for one server after another. What its keepers are asked to save is saved when the
// test says so, or at once while it is prompt. It fails the test if it is not used as Store promises.
type vault struct {
	t       testing.TB
	lagging chan struct{}                               // signalled when one is
	opening func(ctx context.Context, o *Opening) error // what Open does first; set before the first connection
	full    atomic.Bool                                 // no session may grow
	past    []Place                                     // of new sessions; set before the first connection
	before  []Place                                     // the same

	mu      sync.Mutex
	d       *dispatcher // of the server that runs
	prompt  bool
	stored  map[string]deposit
	keepers []*safe // in the order of Open
	inside  map[string]bool
	expires time.Time          // of the commands that a server gets from here
	next    map[int32]int64    // offset after the last command that was sent, by stream
	records map[Place]*Command // as they were sent; a server gets copies
}

// A deposit is what is stored of a session.
type deposit struct {
	snapshot Snapshot
	received []uint16
}

// A safe is the Keeper of one connection.
type safe struct {
	v      *vault
	o      *Opening
	saving sync.Mutex // held while a snapshot is taken and stored, so that none overwrites a later one

	// Guarded by vault.mu.
	dead       bool // its process is no more
	asked      int
	progressed int
	lagging    int
	slow       bool // Released says true and leaves done to the test
	released   []func()
	left       []*Leaving
}

// A keptWorld is a server with a vault.
type keptWorld struct {
	*dispatcher
	v *vault
}

func newVault(t testing.TB) *vault {
	v := &vault{
		t: t, lagging: make(chan struct{}, 1), stored: map[string]deposit{}, inside: map[string]bool{},
		next: map[int32]int64{}, records: map[Place]*Command{},
	}
	t.Cleanup(v.reckon)
	return v
}

// keeping starts a server with a vault.
func keeping(t testing.TB, change func(*Config)) *keptWorld {
	t.Helper()
	return newVault(t).start(change)
}

// start starts a server with this vault.
func (v *vault) start(change func(*Config)) *keptWorld {
	v.t.Helper()
	d := commands(v.t, func(c *Config) {
		c.Store = v
		if change != nil {
			change(c)
		}
	})
	v.mu.Lock()
	defer v.mu.Unlock()
	v.d = d
	return &keptWorld{d, v}
}

// crash ends what the keepers of the server do, as if its process were no more, and starts another.
func (w *keptWorld) crash(change func(*Config)) *keptWorld {
	w.v.mu.Lock()
	for _, k := range w.v.keepers {
		k.dead = true
	}
	clear(w.v.inside)
	w.v.mu.Unlock()
	return w.v.start(change)
}

// reckon holds that each successful Open was followed by one Left. Servers are shut down before it.
func (v *vault) reckon() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.t.Failed() {
		return
	}
	require.Empty(v.t, v.inside, "client IDs in use")
	for _, k := range v.keepers {
		require.Len(v.t, k.left, 1, "calls of Left for %s", k.o.ClientID)
	}
}

var errNotNow = errors.New("not now")

func (v *vault) Open(ctx context.Context, o *Opening) (*Opened, error) {
	v.enter(o.ClientID)
	if v.opening != nil {
		if err := v.opening(ctx, o); err != nil {
			v.leave(o.ClientID)
			return nil, err
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	k := &safe{v: v, o: o}
	v.keepers = append(v.keepers, k)
	opened := &Opened{Keeper: k}
	if d, ok := v.stored[o.ClientID]; ok && !o.Clean {
		opened.Present, opened.State = true, v.state(d)
		return opened, nil
	}
	v.stored[o.ClientID], opened.State.Past = deposit{}, v.past
	opened.State.Before = v.before
	return opened, nil
}

// enter holds that a client ID is opened once at a time, and not before it was left.
func (v *vault) enter(id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.inside[id] {
		v.t.Errorf("Open of %s, which has not left", id)
	}
	v.inside[id] = true
}

func (v *vault) leave(id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.inside, id)
}

// state gives a deposit as a server gets it. v.mu is held.
func (v *vault) state(d deposit) State {
	s := State{Subscriptions: d.snapshot.Subscriptions, Received: d.received, Behind: d.snapshot.Next, Done: d.snapshot.Done, Given: d.snapshot.Given}
	s.Past = append(slices.Clone(d.snapshot.Next), d.snapshot.Met...)
	for _, u := range d.snapshot.Flight {
		if u.Command = v.copyOf(u.Place); u.Command != nil {
			v.d.expect(u.Command)
		}
		s.Flight = append(s.Flight, u)
	}
	return s
}

// copyOf gives the command of a place, nil if there is none any more. v.mu is held.
func (v *vault) copyOf(p Place) *Command {
	r := v.records[p]
	if r == nil {
		return nil
	}
	return &Command{Topic: r.Topic, Payload: r.Payload, QoS: r.QoS, To: r.To, Connected: r.Connected, Retain: r.Retain, Expires: v.expires, Place: p, Owner: v.d}
}

// expect counts a command that a server got otherwise than by Send.
func (d *dispatcher) expect(c *Command) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counted[c]++
	d.promised++
}

// keeper gives the last of a client ID.
func (v *vault) keeper(id string) *safe {
	v.t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, k := range slices.Backward(v.keepers) {
		if k.o.ClientID == id {
			return k
		}
	}
	v.t.Fatalf("no Open of %s", id)
	return nil
}

// setPrompt has every change saved at once from now on, those that wait too, or has them wait for the test.
func (v *vault) setPrompt(prompt bool) {
	v.mu.Lock()
	v.prompt = prompt
	all := slices.Clone(v.keepers)
	v.mu.Unlock()
	for _, k := range all {
		if prompt && k.waits() {
			k.save()
		}
	}
}

func (k *safe) waits() bool {
	k.v.mu.Lock()
	defer k.v.mu.Unlock()
	return !k.dead && len(k.left) == 0 && k.asked > 0
}

func (k *safe) Changed() {
	k.v.mu.Lock()
	k.asked++
	prompt := k.v.prompt
	k.v.mu.Unlock()
	if prompt {
		k.save()
	}
}

func (k *safe) Progressed() { k.count(&k.progressed) }
func (k *safe) Lagging() {
	k.count(&k.lagging)
	select {
	case k.v.lagging <- struct{}{}:
	default:
	}
}

func (k *safe) count(n *int) {
	k.v.mu.Lock()
	defer k.v.mu.Unlock()
	*n++
}

// told reads one of the counts.
func (k *safe) told(n *int) int {
	k.v.mu.Lock()
	defer k.v.mu.Unlock()
	return *n
}

func (k *safe) Released(_ uint16, done func()) bool {
	k.v.mu.Lock()
	defer k.v.mu.Unlock()
	if k.slow {
		k.released = append(k.released, done)
	}
	return k.slow
}

// Streams is called with a lock held that Snapshot takes.
func (k *safe) Streams() ([]int32, func(int32) (int64, bool)) {
	k.v.mu.Lock()
	defer k.v.mu.Unlock()
	return slices.Sorted(maps.Keys(k.v.next)), func(stream int32) (int64, bool) {
		k.v.mu.Lock()
		defer k.v.mu.Unlock()
		return k.v.next[stream], true
	}
}

func (k *safe) Left(l *Leaving) {
	k.v.mu.Lock()
	defer k.v.mu.Unlock()
	k.left = append(k.left, l)
	if k.dead {
		return
	}
	delete(k.v.inside, k.o.ClientID)
	if l.Expiry == 0 {
		delete(k.v.stored, k.o.ClientID)
		return
	}
	k.put(l.State)
}

// put stores a snapshot, unless the process that took it is no more. v.mu is held.
func (k *safe) put(s Snapshot) {
	if d := k.v.stored[k.o.ClientID]; !k.dead {
		d.snapshot = s
		k.v.stored[k.o.ClientID] = d
	}
}

func (k *safe) snapshot() Snapshot { return k.o.Session.Snapshot(k.Streams()) }

// bare gives subscriptions without where they begin.
func bare(subs []Subscription) []Subscription {
	subs = slices.Clone(subs)
	for i := range subs {
		subs[i].Origin = nil
	}
	return subs
}

// save stores the session as it is.
func (k *safe) save() {
	k.saving.Lock()
	s := k.snapshot()
	k.v.mu.Lock()
	if len(k.left) == 0 {
		k.put(s)
	}
	k.v.mu.Unlock()
	k.saving.Unlock()
	k.o.Session.Saved(s.Version)
}

// leaving waits for the end of the connection.
func (k *safe) leaving() *Leaving {
	k.v.t.Helper()
	until(k.v.t, "Left", func() bool {
		k.v.mu.Lock()
		defer k.v.mu.Unlock()
		return len(k.left) > 0
	})
	return k.left[0]
}

// placed sends a command to "t" that has a place.
func (w *keptWorld) placed(stream int32, offset int64, payload string, qos byte) *Command {
	w.t.Helper()
	return w.put(&Command{Topic: []byte("t"), Payload: []byte(payload), QoS: qos, Place: Place{stream, offset}})
}

// put appends a command to its stream and sends it.
func (w *keptWorld) put(c *Command) *Command {
	w.v.mu.Lock()
	w.v.records[c.Place] = c
	w.v.mu.Unlock()
	w.send(c)
	w.v.mu.Lock()
	defer w.v.mu.Unlock()
	w.v.next[c.Place.Stream] = c.Place.Offset + 1
	return c
}

// promptly connects with a stored session and subscribes to "t", both saved at once; nothing is, afterwards.
func (w *keptWorld) promptly(h hello, qos int) (*client, *safe) {
	w.t.Helper()
	w.v.setPrompt(true)
	c := w.connect(h)
	c.subscribe("t", qos)
	w.v.setPrompt(false)
	return c, w.v.keeper(h.id)
}

// Admits lets everybody have every client ID.
func (v *vault) Admits(string, string) bool { return true }

func (v *vault) Full() bool { return v.full.Load() }
