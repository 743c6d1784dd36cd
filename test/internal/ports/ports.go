// Package ports gives a test TCP ports on loopback that stay its own while
// nothing listens on them.
package ports

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"sluice/test/internal/cache"
)

// The ports lie below the ranges from which systems give ports to outgoing
// connections (from 32768 on Linux, 16000 on gVisor): a client that dials a
// killed server again and again would sooner or later be given the server's
// own port and be connected to itself, and a port that was free when it was
// taken would be some client's when the server listens.
const (
	from = 10100
	to   = 16000
)

// Port is a port that no other test on this machine takes until its Release.
type Port struct {
	Number int
	lock   *os.File
}

// Take takes n free ports. The lock files matter because a killed server's
// port is free for as long as the server is down, and test binaries of several
// packages run at once.
func Take(n int) ([]*Port, error) {
	dir, err := cache.Dir("ports")
	if err != nil {
		return nil, err
	}
	var taken []*Port
	for try := 0; len(taken) < n && try < 1000; try++ {
		if p, err := take(dir, from+rand.IntN(to-from)); err == nil {
			taken = append(taken, p)
		}
	}
	if len(taken) < n {
		return nil, errors.Join(fmt.Errorf("cannot find %d free ports between %d and %d", n, from, to), Release(taken))
	}
	return taken, nil
}

func take(dir string, number int) (*Port, error) {
	lock, err := cache.TryLock(filepath.Join(dir, strconv.Itoa(number)))
	if err != nil {
		return nil, err
	}
	p := &Port{Number: number, lock: lock}
	l, err := net.Listen("tcp", p.Addr())
	if err != nil {
		return nil, errors.Join(err, p.Release())
	}
	return p, l.Close()
}

// Addr is the port on loopback, as host:port.
func (p *Port) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Number)) }

// Release lets others have the port.
func (p *Port) Release() error { return p.lock.Close() }

// Release releases all of ps.
func Release(ps []*Port) error {
	var errs []error
	for _, p := range ps {
		errs = append(errs, p.Release())
	}
	return errors.Join(errs...)
}
