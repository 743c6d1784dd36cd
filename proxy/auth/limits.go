package auth

import (
	"context"
	"errors"
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// maxOrigins is how many addresses, and how many pairs of address and user, are remembered to have failed.
// Beyond it the one that failed longest ago is forgotten: whoever has 65 536 addresses to make that happen has
// as many first tries anyway. Full, the two tables take about 20 MB.
const maxOrigins = 65_536

// A bucket is a count of failures that leaks.
type bucket struct {
	level float64
	at    time.Duration // since the limits were made
}

// userAt is a user name tried from an address.
type userAt struct {
	from netip.Addr
	user string
}

// A table has buckets by the hash of what they are for.
type table struct {
	perMinute float64 // 0: no limit
	buckets   *simplelru.LRU[uint64, bucket]
}

// limits remember who failed to log in, in constant memory.
type limits struct {
	seed    maphash.Seed
	begin   time.Time
	mu      sync.Mutex // guards the tables
	origins table
	users   table
}

// newLimits lets a user fail half as often as an address: one device that has a wrong password and tries it
// for ever must not make its address suspect for all others.
func newLimits(perMinute int) (*limits, error) {
	origins, originsErr := simplelru.NewLRU[uint64, bucket](maxOrigins, nil)
	users, usersErr := simplelru.NewLRU[uint64, bucket](maxOrigins, nil)
	return &limits{
		seed: maphash.MakeSeed(), begin: time.Now(),
		origins: table{float64(perMinute), origins}, users: table{float64((perMinute + 1) / 2), users},
	}, errors.Join(originsErr, usersErr)
}

func (l *limits) suspect(from netip.Addr) bool { return l.full(&l.origins, l.origin(from)) }

func (l *limits) barred(from netip.Addr, user string) bool {
	return l.full(&l.users, l.userAt(from, user))
}

func (l *limits) origin(from netip.Addr) uint64 { return maphash.Comparable(l.seed, from) }

func (l *limits) userAt(from netip.Addr, user string) uint64 {
	return maphash.Comparable(l.seed, userAt{from, user})
}

// level gives how full a bucket is by now: it loses in a minute what may fail in a minute.
func (l *limits) level(t *table, key uint64) float64 {
	b, _ := t.buckets.Peek(key)
	return max(0, b.level-(time.Since(l.begin)-b.at).Minutes()*t.perMinute)
}

// full says whether no further failure fits.
func (l *limits) full(t *table, key uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return t.perMinute > 0 && l.level(t, key) > t.perMinute-1
}

// failed counts a refused login. One that was only put off counts for its user alone, and not even there if
// that was why: neither would ever cool otherwise, since good devices come back.
func (l *limits) failed(a *attempt, o outcome) {
	if o == refused {
		l.fill(&l.origins, l.origin(a.from))
	}
	if o == refused || !l.barred(a.from, a.Username) {
		l.fill(&l.users, l.userAt(a.from, a.Username))
	}
}

// fill counts a failure. A full bucket stays as full as it is, so that it cools in the same time however much
// was tried.
func (l *limits) fill(t *table, key uint64) {
	if t.perMinute == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t.buckets.Add(key, bucket{min(l.level(t, key)+1, t.perMinute), time.Since(l.begin)})
}

// How long a refused device waits for its answer, and how many wait at a time. Beyond that number the answer
// is given at once: what waits costs a connection, and those are worth more.
const (
	meanDelay  = time.Second
	maxDelayed = 4096
)

// delays hold back the answers to failed logins.
type delays chan struct{}

// wait blocks for about a second, or until ctx ends.
func (d delays) wait(ctx context.Context) {
	select {
	case d <- struct{}{}:
	default:
		return
	}
	defer func() { <-d }()
	timer := time.NewTimer(meanDelay*3/4 + rand.N(meanDelay/2))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
