package kafka

import (
	"cmp"
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/IBM/sarama"

	"sluice/tls"
)

// A dialer makes the connections of one client and can cut them all. sarama's calls take no context; cutting
// is how they are ended, and how we know that nothing more is written.
type dialer struct {
	timeout time.Duration
	tls     *tls.Config // nil: none

	mu     sync.Mutex
	conns  map[net.Conn]string            // and the addresses that they were made to
	cancel map[*context.CancelFunc]string // of attempts under way
	closed bool
}

func newDialer(timeout time.Duration) *dialer {
	return &dialer{timeout: timeout, conns: map[net.Conn]string{}, cancel: map[*context.CancelFunc]string{}}
}

// Dial connects; sarama calls it.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d.timeout)
	defer cancel()
	if !d.begin(&cancel, address) {
		return nil, net.ErrClosed
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if conn, err = d.end(&cancel, conn, err); err != nil || d.tls == nil {
		return conn, err
	}
	return tls.Secure(ctx, d.tls, conn, address) // here, since sarama would trust what its configuration once had
}

func (d *dialer) begin(cancel *context.CancelFunc, address string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.cancel[cancel] = address
	return true
}

// end remembers conn. It is not wrapped in a type of ours, because sarama looks for a *net.TCPConn, so nobody tells us
// when it is closed: those that are get forgotten here.
func (d *dialer) end(cancel *context.CancelFunc, conn net.Conn, err error) (net.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	address, wanted := d.cancel[cancel]
	delete(d.cancel, cancel)
	for c := range d.conns {
		if isClosed(c) {
			delete(d.conns, c)
		}
	}
	if err != nil {
		return nil, err
	}
	if !wanted {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	d.conns[conn] = address
	return conn, nil
}

func isClosed(c net.Conn) bool {
	s, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := s.SyscallConn()
	return err != nil || raw.Control(func(uintptr) {}) != nil
}

// errStandsStill: a broker has taken the connection, and says nothing.
var errStandsStill = errors.New("the broker does not answer")

// open opens a broker's connection, which d makes, unless that takes for long. sarama asks for the versions that the broker
// knows, waits for them as for any answer, asks again, and without an answer takes the connection for a good one all the
// same: a broker that stands still costs three times the longest answer. sarama.ErrAlreadyConnected is no error.
func (d *dialer) open(b *sarama.Broker, conf *sarama.Config) error {
	stop := func() bool { return true }
	switch err := b.Open(conf); {
	case err == nil:
		stop = time.AfterFunc(conf.Net.DialTimeout+slowAnswer, func() { d.cutTo(b.Addr()) }).Stop
	case !errors.Is(err, sarama.ErrAlreadyConnected): // else Connected may wait for somebody's answer, which has its own time
		return err
	}
	ok, err := b.Connected()
	switch {
	case !stop():
		return errStandsStill
	case !ok:
		return cmp.Or(err, sarama.ErrNotConnected) // closed meanwhile
	}
	return nil
}

// cut closes all connections and ends the attempts to make one.
func (d *dialer) cut() { d.cutIf(func(string) bool { return true }) }

// cutTo is cut for one address.
func (d *dialer) cutTo(address string) { d.cutIf(func(a string) bool { return a == address }) }

func (d *dialer) cutIf(is func(address string) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c, address := range d.conns {
		if is(address) {
			_ = c.Close()
			delete(d.conns, c)
		}
	}
	for cancel, address := range d.cancel {
		if is(address) {
			(*cancel)()
			delete(d.cancel, cancel)
		}
	}
}

// close cuts, and lets no connection be made again.
func (d *dialer) close() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.cut()
}
