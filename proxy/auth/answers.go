package auth

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// An answer is a verdict and when it is to be forgotten.
type answer struct {
	verdict verdict
	until   time.Time
}

// answers are those of an HTTP service. Who makes up user names cannot push out what lets the others in: the two
// kinds have a cache each.
type answers struct {
	cfg   HTTP
	good  *lru.Cache[digest, answer]
	other *lru.Cache[digest, answer]
}

func newAnswers(cfg HTTP) (*answers, error) {
	good, err := lru.New[digest, answer](cfg.CacheSize)
	if err != nil {
		return nil, err
	}
	other, err := lru.New[digest, answer](cfg.CacheSize)
	return &answers{cfg, good, other}, err
}

// get gives what the service said of this login, if it is not too long ago.
func (c *answers) get(key digest) (verdict, bool) {
	for _, cache := range []*lru.Cache[digest, answer]{c.good, c.other} {
		if a, ok := cache.Get(key); ok && time.Now().Before(a.until) {
			return a.verdict, true
		}
	}
	return verdict{}, false
}

// add remembers what the service said, an acceptance no longer than it is good for.
func (c *answers) add(key digest, v verdict) {
	switch {
	case v.outcome == throttled: // the service was not asked
	case v.outcome != accepted:
		c.other.Add(key, answer{v, time.Now().Add(c.cfg.CacheRefused)})
	case c.cfg.Cache > 0:
		until := time.Now().Add(c.cfg.Cache)
		if ends := v.identity.Until; !ends.IsZero() && ends.Before(until) {
			until = ends
		}
		c.good.Add(key, answer{v, until})
	}
}
