package mqtt

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// matchesByTheBook is section 4.7, level by level.
func matchesByTheBook(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") && (filter[0] == '+' || filter[0] == '#') {
		return false
	}
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	if f[len(f)-1] == "#" {
		f = f[:len(f)-1]
		t = t[:min(len(t), len(f))]
	}
	return slices.EqualFunc(f, t, func(want, got string) bool { return want == "+" || want == got })
}

// indexModel is an index and what should be in it.
type indexModel struct {
	index index
	want  map[string]map[*session]subscription
}

func (m *indexModel) add(t require.TestingT, filter string, s *session, sub subscription) {
	_, was := m.want[filter][s]
	if m.want == nil {
		m.want = map[string]map[*session]subscription{}
	}
	if m.want[filter] == nil {
		m.want[filter] = map[*session]subscription{}
	}
	m.want[filter][s] = sub
	require.Equal(t, was, m.index.add(strings.Clone(filter), s, sub), "add %q", filter)
}

func (m *indexModel) remove(t require.TestingT, filter string, s *session) {
	_, was := m.want[filter][s]
	delete(m.want[filter], s)
	if len(m.want[filter]) == 0 {
		delete(m.want, filter)
	}
	require.Equal(t, was, m.index.remove(filter, s), "remove %q", filter)
}

func (m *indexModel) match(t require.TestingT, topic string) {
	var want []subscriber
	for filter, subs := range m.want {
		if matchesByTheBook(filter, topic) {
			for s, sub := range subs {
				want = append(want, subscriber{s, sub})
			}
		}
	}
	require.ElementsMatch(t, want, m.index.match([]byte(topic), nil), "match %q", topic)
}

// check looks at the number of subscriptions and at what the tree is made of: that bounds what match costs.
func (m *indexModel) check(t require.TestingT) {
	n := 0
	for _, subs := range m.want {
		n += len(subs)
	}
	require.Equal(t, n, m.index.len())
	root := m.index.root.Load()
	require.LessOrEqual(t, countNodes(t, root), 2*len(m.want), "nodes of %d filters", len(m.want))
	if n == 0 {
		require.Nil(t, root, "nothing is left")
	}
}

// clear removes all and looks whether anything is left.
func (m *indexModel) clear(t require.TestingT) {
	for filter, subs := range m.want {
		for s := range subs {
			m.remove(t, filter, s)
		}
	}
	m.check(t)
}

func countNodes(t require.TestingT, b *branch) (n int) {
	if b == nil {
		return 0
	}
	below := append(b.names.appendTo(nil), b.any, b.rest)
	for _, child := range below {
		if child == nil {
			continue
		}
		n += 1 + countNodes(t, child.below)
		if child.subs == nil {
			require.NotNil(t, child.below, "a node stands for a filter")
			require.Nil(t, child.below.only(), "or is where filters part")
		}
	}
	require.NotZero(t, n, "a branch leads somewhere")
	return n
}

func TestIndexMatchesWhatSection47Says(t *testing.T) {
	f := func(filter, topic string, want bool) {
		t.Helper()
		require.Equal(t, want, matchesByTheBook(filter, topic), "the naive matcher: %q, %q", filter, topic)
		require.Equal(t, want, filterMatches(filter, topic), "without an index: %q, %q", filter, topic)
		// Alone the filter is one node; among its relatives it is cut at each level.
		var alone, among index
		s, other := &session{clientID: "s"}, &session{clientID: "other"}
		alone.add(filter, s, subscription{qos: 1})
		for i := range len(filter) {
			if filter[i] == '/' {
				among.add(filter[:i], other, subscription{})
				among.add(filter[:i+1]+"neighbour", other, subscription{})
			}
		}
		among.add(filter, s, subscription{qos: 1})
		for _, x := range []*index{&alone, &among} {
			got := slices.DeleteFunc(x.match([]byte(topic), nil), func(e subscriber) bool { return e.session == other })
			if want {
				require.Equal(t, []subscriber{{s, subscription{qos: 1}}}, got, "%q, %q", filter, topic)
			} else {
				require.Empty(t, got, "%q, %q", filter, topic)
			}
		}
	}
	// Section 4.7.1.2, #.
	f("sport/tennis/player1/#", "sport/tennis/player1", true)
	f("sport/tennis/player1/#", "sport/tennis/player1/ranking", true)
	f("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true)
	f("sport/tennis/player1/#", "sport/tennis/player2", false)
	f("sport/tennis/player1/#", "sport/tennis/player10", false)
	f("sport/#", "sport", true)
	f("sport/#", "sport/", true)
	f("sport/#", "sports", false)
	f("#", "sport", true)
	f("#", "/", true)
	f("#", "a/b/c/d", true)
	// Section 4.7.1.3, +.
	f("sport/tennis/+", "sport/tennis/player1", true)
	f("sport/tennis/+", "sport/tennis/player2", true)
	f("sport/tennis/+", "sport/tennis/player1/ranking", false)
	f("sport/+", "sport", false)
	f("sport/+", "sport/", true)
	f("+", "sport", true)
	f("+", "sport/tennis", false)
	f("+/tennis/#", "sport/tennis", true)
	f("+/tennis/#", "sport/tennis/player1/ranking", true)
	f("+/tennis/#", "sport/golf", false)
	f("sport/+/player1", "sport/tennis/player1", true)
	f("sport/+/player1", "sport//player1", true)
	f("sport/+/player1", "sport/tennis/player2", false)
	f("/finance", "/finance", true)
	f("+/+", "/finance", true)
	f("/+", "/finance", true)
	f("+", "/finance", false)
	f("+/#", "sport", true) // + with its parent level too
	f("+/+/#", "sport", false)
	f("+/+/#", "sport/tennis", true)
	// Section 4.7.2, $.
	f("#", "$SYS/monitor/Clients", false)
	f("+/monitor/Clients", "$SYS/monitor/Clients", false)
	f("+", "$SYS", false)
	f("+/#", "$SYS", false)
	f("$SYS/#", "$SYS/monitor/Clients", true)
	f("$SYS/#", "$SYS", true)
	f("$SYS/monitor/+", "$SYS/monitor/Clients", true)
	f("$SYS/monitor/+", "$SYS/monitor/", true)
	f("a/+", "a/$b", true) // $ means nothing further on
	f("a/#", "a/$b", true)
	// Section 4.7.3: case, spaces, leading and trailing slashes, levels without a character.
	f("ACCOUNTS", "Accounts", false)
	f("Accounts payable", "Accounts payable", true)
	f("finance", "/finance", false)
	f("/finance", "finance", false)
	f("finance/", "finance", false)
	f("finance", "finance/", false)
	f("/", "/", true)
	f("/", "//", false)
	f("//", "//", true)
	f("+/+", "/", true)
	f("+/+/+", "//", true)
	f("/#", "/", true)
	f("/#", "a", false)
	f("//#", "/", true)
	f("+/a", "/a", true)
	f("a//b", "a/b", false)
	f("a/\u00e9", "a/e\u0301", false) // bytes, not what they look like
}

func TestIndexGivesEachSubscription(t *testing.T) {
	var x index
	s, other := &session{clientID: "s"}, &session{clientID: "other"}
	x.add("a/+", s, subscription{id: 1})
	x.add("a/b", s, subscription{id: 2, qos: 2, noLocal: true})
	x.add("a/b", other, subscription{id: 3, retainAsPublished: true})
	have := []subscriber{{s, subscription{id: 9}}}
	got := x.match([]byte("a/b"), have)
	require.Equal(t, have[0], got[0], "match appends")
	require.ElementsMatch(t, []subscriber{
		{s, subscription{id: 1}},
		{s, subscription{id: 2, qos: 2, noLocal: true}},
		{other, subscription{id: 3, retainAsPublished: true}},
	}, got[1:])
	require.Empty(t, x.match(nil, nil))
}

func TestIndexReplacesSubscription(t *testing.T) {
	var x index
	s := &session{clientID: "s"}
	require.False(t, x.add("a/b", s, subscription{qos: 1}))
	require.True(t, x.add("a/b", s, subscription{qos: 2, id: 7}))
	require.Equal(t, 1, x.len())
	require.Equal(t, []subscriber{{s, subscription{qos: 2, id: 7}}}, x.match([]byte("a/b"), nil))
	require.False(t, x.add("a/b", &session{clientID: "s"}, subscription{}), "a session of the same name is another")
	require.False(t, x.remove("a/b", &session{clientID: "s"}))
	require.True(t, x.remove("a/b", s))
	require.False(t, x.remove("a/b", s))
	require.Equal(t, 1, x.len())
}

func TestIndexAgreesWithTheBook(t *testing.T) {
	level := rapid.SampledFrom([]string{"", "a", "b", "ab", "$", "é"})
	filters := rapid.Custom(func(rt *rapid.T) string {
		levels := rapid.SliceOfN(rapid.OneOf(level, rapid.Just("+")), 0, 5).Draw(rt, "levels")
		if rapid.Bool().Draw(rt, "rest") {
			levels = append(levels, "#")
		}
		return strings.Join(levels, "/")
	}).Filter(func(s string) bool { return s != "" })
	topics := rapid.Custom(func(rt *rapid.T) string {
		return strings.Join(rapid.SliceOfN(level, 1, 6).Draw(rt, "levels"), "/")
	}).Filter(func(s string) bool { return s != "" })
	sessions := make([]*session, 40) // more than setFew
	for i := range sessions {
		sessions[i] = &session{clientID: fmt.Sprint(i)}
	}
	who := rapid.SampledFrom(sessions[:3])

	rapid.Check(t, func(rt *rapid.T) {
		var m indexModel
		var all []string
		old := func(s string) string { // one that was added, so that removes find something
			if len(all) == 0 || rapid.Bool().Draw(rt, "new") {
				return s
			}
			return rapid.SampledFrom(all).Draw(rt, "old")
		}
		rt.Repeat(map[string]func(*rapid.T){
			"add": func(rt *rapid.T) {
				f := old(filters.Draw(rt, "filter"))
				all = append(all, f)
				m.add(rt, f, who.Draw(rt, "session"), subscription{id: rapid.IntRange(0, 9).Draw(rt, "id")})
			},
			"crowd": func(rt *rapid.T) {
				f := old(filters.Draw(rt, "filter"))
				for _, s := range sessions[:rapid.IntRange(1, len(sessions)).Draw(rt, "sessions")] {
					m.add(rt, f, s, subscription{})
				}
			},
			"remove": func(rt *rapid.T) {
				m.remove(rt, old(filters.Draw(rt, "filter")), who.Draw(rt, "session"))
			},
			"match": func(rt *rapid.T) { m.match(rt, topics.Draw(rt, "topic")) },
			"":      func(rt *rapid.T) { m.check(rt) },
		})
		m.clear(rt)
	})
}

func FuzzIndex(f *testing.F) {
	f.Add("+a/b\n+a/+\n+#\n?a/b\n-a/b\n?a/b")
	f.Add("+/\n++/+\n+sport/#\n?/\n?sport\n-sport/#\n-/\n?sport")
	f.Add("+a/b/c/d\n+a/b/x\n+a\n-a/b/x\n?a/b/c/d\n?a\n-a\n?a/b/c/d")
	f.Add("+$SYS/+\n+$SYS/#\n++/a\n+a/b/+/d/#\n?$SYS/a\n?$SYS\n?a/b//d")
	sessions := []*session{{clientID: "0"}, {clientID: "1"}, {clientID: "2"}}
	f.Fuzz(func(t *testing.T, script string) {
		var m indexModel
		for i, line := range strings.SplitN(script, "\n", 200) {
			if len(line) < 2 {
				continue
			}
			s, text := sessions[i%3], line[1:]
			valid := validFilter(text) && strings.Count(text, "/") < DefaultConfig().TopicLevels
			switch {
			case line[0] == '+' && valid:
				m.add(t, text, s, subscription{id: i})
			case line[0] == '-' && valid:
				m.remove(t, text, s)
			case line[0] == '?' && !strings.ContainsAny(text, "+#"):
				m.match(t, text)
			}
		}
		m.check(t)
		m.clear(t)
	})
}

func TestIndexOfManyLeavesNothing(t *testing.T) {
	var m indexModel
	shuffled := rand.New(rand.NewPCG(1, 2))
	for i := range 3000 {
		s := &session{clientID: fmt.Sprintf("dev%d", i)}
		m.add(t, fmt.Sprintf("devices/%s/commands/#", s.clientID), s, subscription{qos: 1})
		m.add(t, fmt.Sprintf("devices/%s/config", s.clientID), s, subscription{qos: 1})
		m.add(t, "fleet/+/all", s, subscription{})
	}
	m.check(t)
	for range 100 {
		m.match(t, fmt.Sprintf("devices/dev%d/commands/reboot", shuffled.IntN(3000)))
	}
	m.match(t, "fleet/north/all")
	for f, subs := range m.want {
		if strings.HasSuffix(f, "config") {
			for s := range subs {
				m.remove(t, f, s)
			}
		}
	}
	m.check(t) // what parted at a client ID is one node again
	require.Equal(t, 3000+2, countNodes(t, m.index.root.Load()))
	m.match(t, "devices/dev7/commands/reboot")
	m.clear(t)
}

// A filter of the greatest length, all its prefixes, and a topic with more levels than any filter.
func TestIndexOfManyLevels(t *testing.T) {
	var m indexModel
	s := &session{clientID: "s"}
	deep := strings.Repeat("/", DefaultConfig().TopicLevels-1)
	for i := range deep {
		m.add(t, deep[:i+1], s, subscription{})
		m.add(t, strings.Repeat("+/", i)+"#", s, subscription{})
	}
	m.match(t, deep)
	m.match(t, strings.Repeat("/", 65535))
	m.match(t, "/")
	m.check(t)
	m.clear(t)
}

func TestMatchAllocatesNothing(t *testing.T) {
	var x index
	for i := range 1000 {
		s := &session{clientID: fmt.Sprintf("dev%d", i)}
		x.add("devices/"+s.clientID+"/commands/#", s, subscription{})
		x.add("$SYS/"+s.clientID, s, subscription{})
		x.add("fleet/+/all", s, subscription{})
	}
	for topic, want := range map[string]int{"devices/dev7/commands/reboot": 1, "fleet/north/all": 1000, "devices/other": 0, "$SYS/dev8": 1} {
		room, name := make([]subscriber, 0, 1000), []byte(topic)
		require.Len(t, x.match(name, room), want)
		require.Zero(t, testing.AllocsPerRun(100, func() { x.match(name, room) }), topic)
	}
}

// docs/decisions/0006 has the figures. This is what must never be: a tenth of an idle connection for one
// subscription.
func TestSubscriptionTakesLittleMemory(t *testing.T) {
	const n = 20_000
	filters, sessions := ownFilters(n)
	x := new(index)
	per := heapGrowth(func() {
		for i, f := range filters {
			x.add(f, sessions[i], subscription{qos: 1})
		}
	}) / n
	require.Equal(t, n, x.len())
	require.Less(t, per, int64(500), "bytes for each subscription")
	runtime.KeepAlive(filters)
}

func TestIndexDoesNotKeepFiltersThatAreGone(t *testing.T) {
	const n, long = 1000, 4000
	x, stays, goes := new(index), &session{clientID: "stays"}, &session{clientID: "goes"}
	grown := heapGrowth(func() {
		for i := range n {
			name := fmt.Sprintf("k%d/", i)
			gone := name + strings.Repeat("x", long)
			x.add(gone, goes, subscription{})
			x.add(name+"y", stays, subscription{}) // parts the node of gone
			x.add(name+"z", stays, subscription{}) // and keeps it parted
			x.remove(gone, goes)
		}
	})
	require.Equal(t, 2*n, x.len())
	require.Less(t, grown, int64(n*long/4), "bytes after n filters of long bytes came and went")
}

// heapGrowth gives the bytes that f leaves on the heap.
func heapGrowth(f func()) int64 {
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	f()
	return heap() - before
}

// ownFilters are n devices, each with a filter of its own.
func ownFilters(n int) (filters []string, sessions []*session) {
	for i := range n {
		s := &session{clientID: clientID(i)}
		filters = append(filters, "devices/"+s.clientID+"/commands/#")
		sessions = append(sessions, s)
	}
	return filters, sessions
}

func TestMatchWaitsForNoWriter(t *testing.T) {
	var x index
	x.add("a", &session{}, subscription{})
	x.mu.Lock() // a writer that does not end
	defer x.mu.Unlock()
	var found atomic.Int64
	go func() { found.Store(int64(len(x.match([]byte("a"), nil)))) }() // ends at the latest when the writer does
	until(t, "a match during a change", func() bool { return found.Load() == 1 })
	require.Equal(t, 1, x.len())
}

func TestMatchSeesOneMoment(t *testing.T) {
	var x index
	mover, fixed := &session{clientID: "mover"}, &session{clientID: "fixed"}
	filters := []string{"a/+/c", "a/b/#", "#", "a/b/c"} // all match, in different places
	x.add("+/b/c", fixed, subscription{})
	x.add(filters[0], mover, subscription{})
	var done atomic.Bool
	var matchers sync.WaitGroup
	for range 4 {
		matchers.Go(func() { // ends when the mover has moved enough
			room := make([]subscriber, 0, 10)
			for !done.Load() {
				count := map[*session]int{}
				for _, e := range x.match([]byte("a/b/c"), room) {
					count[e.session]++
				}
				if count[fixed] != 1 || count[mover] < 1 || count[mover] > 2 {
					t.Errorf("fixed came %d times, mover %d times", count[fixed], count[mover])
					return
				}
			}
		})
	}
	for i := range 5000 { // always to the next filter before it leaves the last one
		x.add(filters[(i+1)%len(filters)], mover, subscription{})
		x.remove(filters[i%len(filters)], mover)
	}
	done.Store(true)
	matchers.Wait()
	require.Equal(t, 2, x.len())
}

func TestIndexForManyAtOnce(t *testing.T) {
	const devices, rounds = 8, 300
	var x index
	var all sync.WaitGroup
	for d := range devices {
		all.Go(func() {
			s := &session{clientID: fmt.Sprintf("dev%d", d)}
			own := []string{"devices/" + s.clientID + "/#", "devices/+/" + s.clientID, "all", "devices/" + s.clientID}
			var room []subscriber
			for i := range rounds {
				for j, f := range own {
					if x.add(f, s, subscription{id: i}) {
						t.Errorf("%s was there already", f)
					}
					room = x.match([]byte("devices/"+s.clientID), room[:0])
					if mine := countOf(room, s); mine != 1+j/3 {
						t.Errorf("%s found itself %d times after %q", s.clientID, mine, f)
					}
				}
				for _, f := range own {
					if !x.remove(f, s) {
						t.Errorf("%s was not there", f)
					}
				}
				if mine := countOf(x.match([]byte("all"), room[:0]), s); mine != 0 {
					t.Errorf("%s found itself %d times after it had left", s.clientID, mine)
				}
			}
		})
	}
	all.Wait()
	require.Zero(t, x.len())
	require.Nil(t, x.root.Load())
}

func countOf(found []subscriber, s *session) (n int) {
	for _, e := range found {
		if e.session == s {
			n++
		}
	}
	return n
}

// Two names with one hash never come; here they do.
func TestNamesOfTheSameHashAreTwo(t *testing.T) {
	var names *set[*node]
	for _, levels := range []string{"b/c", "ab/c", "a/c"} {
		names, _ = names.with(memberOf(maphash.String(indexSeed, "a"), &node{levels: levels}), 0)
	}
	b := &branch{names: names}
	require.Equal(t, "a/c", b.child("a").levels)
	b = b.with("a", nil)
	require.Nil(t, b.child("a"))
	require.Len(t, b.names.few, 2)
}

// badlyHashed is an element of a set; what hashes it has is the test's choice.
type badlyHashed struct{ name, value int }

func (b badlyHashed) same(other badlyHashed) bool { return b.name == other.name }

// Real hashes never meet in all their bits; here they do.
func TestSetHoldsWhatHasTheSameHash(t *testing.T) {
	hashes := rapid.SampledFrom([]uint64{0, 1, 1 << 60, 1<<60 | 1, ^uint64(0), 0xF, 0x1F})
	rapid.Check(t, func(rt *rapid.T) {
		hashOf := map[int]uint64{}
		want := map[int]badlyHashed{}
		var s *set[badlyHashed]
		for range rapid.IntRange(0, 150).Draw(rt, "steps") {
			b := badlyHashed{rapid.IntRange(0, 60).Draw(rt, "name"), rapid.Int().Draw(rt, "value")}
			if _, ok := hashOf[b.name]; !ok {
				hashOf[b.name] = hashes.Draw(rt, "hash")
			}
			m := memberOf(hashOf[b.name], b)
			_, known := want[b.name]
			require.Equal(rt, known, s.has(m))
			before, was := s, s.appendTo(nil)
			if known && rapid.Bool().Draw(rt, "remove") {
				s = s.without(m, 0)
				delete(want, b.name)
			} else {
				var replaced bool
				s, replaced = s.with(m, 0)
				want[b.name] = b
				require.Equal(rt, known, replaced)
			}
			require.Equal(rt, was, before.appendTo(nil), "a set is never changed")
			var all []badlyHashed
			for _, b := range want {
				all = append(all, b)
			}
			require.ElementsMatch(rt, all, s.appendTo(nil))
		}
		for name, b := range want {
			s = s.without(memberOf(hashOf[name], b), 0)
		}
		require.Nil(rt, s)
	})
}
