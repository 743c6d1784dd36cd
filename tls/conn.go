package tls

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
)

const (
	recordHeader = 5
	// longestRecord is the most that may follow a header: TLS 1.2 lets 16 KiB grow by 2 KiB.
	longestRecord = 16<<10 + 2<<10
	// mostIdle is the most bytes of records without data, one after the other. crypto/tls bounds the number of those that it
	// handles, but not the pieces of a message that never gets whole, of which it would collect 256 KiB. A change of keys, the
	// only message there should be, takes 5 bytes; with its record padded to the full, as some do, twice is enough.
	mostIdle = 2 * (recordHeader + longestRecord)
	// mostOwed is the most bytes of answers that may wait to be sent. A change of keys asks for one of 30 bytes; who reads none
	// of them would have us collect them for as long as it sends data in between.
	mostOwed = 4 << 10
	// certificateBytes is about what a certificate takes that the device sends, and plainChain as many as most send.
	certificateBytes = 3 << 10
	plainChain       = 2
)

// A Conn is the record layer of a connection that was accepted: a state machine over bytes without a goroutine and
// without a socket. One goroutine at a time may call Open, and one at a time Seal or Goodbye, next to it.
type Conn struct {
	tls      *tls.Conn
	wire     wire
	part     []byte // what came of a record that is not whole; after the handshake, maybe several records
	idle     int    // bytes of records since the last that had data
	shaken   int    // bytes of the handshake that crypto/tls keeps
	err      error  // what Open ended with
	identity *Identity
	resumed  bool
}

func accept(ctx context.Context, nc net.Conn, early []byte, room func(int) bool, config *tls.Config, kind string) (*Conn, error) {
	c := &Conn{}
	c.wire.shake = newShake(nc, early, room)
	c.tls = tls.Server(&c.wire, config)
	err := c.tls.HandshakeContext(ctx)
	var late net.Error
	if err != nil && ctx.Err() == nil && !c.wire.shake.any && !(errors.As(err, &late) && late.Timeout()) {
		err = fmt.Errorf("%w: %w", ErrNothing, err)
	}
	if err != nil {
		return nil, err // the buffer isn't given back: when ctx ended, nobody knows who still uses it
	}
	state := c.tls.ConnectionState()
	c.shaken = c.wire.shake.largest + certificateBytes*max(0, len(state.PeerCertificates)-plainChain)
	if state.Version < tls.VersionTLS13 {
		c.shaken += c.wire.shake.hello // what exports keys, which nobody asks for, holds the hello
	}
	c.part = c.wire.shake.end()
	c.wire.shake = nil
	c.resumed = state.DidResume
	if len(state.PeerCertificates) > 0 {
		c.identity, err = identify(state.PeerCertificates[0], kind)
	}
	return c, err
}

// Identity is who the client certificate says the device is; nil: it showed none.
func (c *Conn) Identity() *Identity { return c.identity }

// Open takes bytes as they came from the socket, of any number and cut anywhere, and appends what all whole records
// contain to plain. Bytes of a record that is not whole are kept; cipher is the caller's again. After Accept call it
// once with no bytes: the device may have sent data along with the end of its handshake.
// The error is io.EOF after the device's close_notify, and final; plain has what came before. Open may leave something to be
// sent, an answer or an alert: ask Owes, also after an error.
func (c *Conn) Open(cipher, plain []byte) ([]byte, error) {
	if c.err != nil {
		return plain, c.err
	}
	held := len(c.part) > 0
	if held {
		c.part = append(c.part, cipher...)
		cipher = c.part
	}
	rest := cipher
	for n := ready(rest); n > 0; n = ready(rest) {
		if plain, c.err = c.record(rest[:n], plain); c.err != nil {
			c.part = nil
			return plain, c.err
		}
		rest = rest[n:]
	}
	if !held || len(rest) < len(cipher) { // else all of part stays as it is
		c.part = bytes.Clone(rest)
	}
	if len(rest) == 0 {
		c.part = nil // a clone of nothing is not nil, and holds on to memory
	}
	return plain, nil
}

// Held is how many bytes of records that are not whole, and of messages to TLS itself that may not be, the device has us keep.
// Only who calls Open may ask.
func (c *Conn) Held() int { return cap(c.part) + c.idle }

// Kept is how many bytes crypto/tls keeps for as long as there is a Conn, for the handshake and the largest record that the
// device has sent. Only who calls Open may ask.
func (c *Conn) Kept() int { return c.shaken + c.wire.record }

// Forget lets go of what came of a record that is not whole, when nobody calls Open any more.
func (c *Conn) Forget() { c.part, c.idle = nil, 0 }

// ready is how many bytes of b can be given to crypto/tls: a whole record, or all, to be refused, of what is none.
// Zero: wait for more. To give it less would make it reserve memory for all that a header announces.
func ready(b []byte) int {
	if len(b) < recordHeader {
		return 0
	}
	n := int(b[3])<<8 | int(b[4])
	if b[1] != 3 || b[2] != 3 || n > longestRecord {
		return len(b)
	}
	if n += recordHeader; n <= len(b) {
		return n
	}
	return 0
}

// record appends what one record contains.
func (c *Conn) record(b, plain []byte) ([]byte, error) {
	plain = slices.Grow(plain, len(b)) // so that one Read takes all of it
	buffer := c.wire.record
	c.wire.in = b
	n, err := c.tls.Read(plain[len(plain):cap(plain)])
	c.wire.in = nil
	if len(b) > buffer { // crypto/tls filled it, and read on behind that in a larger one
		c.wire.record += buffer
	}
	plain = plain[:len(plain)+n]
	if n > 0 {
		c.idle = 0
	} else if c.idle += len(b); c.idle > mostIdle || c.wire.owed() > mostOwed {
		return plain, ErrStalled
	}
	if errors.Is(err, errDry) {
		err = nil
	}
	return plain, err
}

// Seal appends what must be sent for plain to out, after what Open left to be sent. The records must be sent in the order in
// which Seal made them.
func (c *Conn) Seal(plain, out []byte) ([]byte, error) {
	c.wire.begin(out)
	var err error
	if len(plain) > 0 {
		_, err = c.tls.Write(plain)
	}
	return c.wire.end(), err
}

// Owes reports whether Open left something to be sent; Seal(nil, out) gives it. Any goroutine may ask.
func (c *Conn) Owes() bool { return c.wire.owes() }

// Goodbye appends close_notify, after which Seal fails.
func (c *Conn) Goodbye(out []byte) []byte {
	c.wire.begin(out)
	_ = c.tls.CloseWrite() // what it can't seal any more, nobody waits for
	return c.wire.end()
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
