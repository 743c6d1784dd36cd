package tls

import (
	"net"
	"sync"
	"time"
)

// errDry is what a wire that has no more bytes answers. crypto/tls takes a temporary error for an interruption: it keeps what
// it has and may be asked again.
var errDry error = dry{}

type dry struct{}

// Error says what is missing.
func (dry) Error() string { return "no whole record" }

// Timeout makes it a net.Error.
func (dry) Timeout() bool { return true }

// Temporary says that it may be tried again, on which crypto/tls keeps what it has.
func (dry) Temporary() bool { return true }

// A wire stands where crypto/tls expects the socket. During the handshake it passes everything on to the real one; after
// it, it reads what Open was given and collects what Seal returns.
type wire struct {
	shake  *shake // nil after the handshake
	in     []byte // what is being opened
	record int    // the size of crypto/tls' buffer for a record, which never gets smaller

	mu      sync.Mutex // guards what follows; it is the innermost lock
	out     []byte     // what was written: into the caller's buffer during a Seal, else what is owed
	sealing bool
}

// Read gives what there is, or errDry.
func (w *wire) Read(p []byte) (int, error) {
	w.record = max(w.record, len(p)) // p is all of the buffer, or all behind the header
	if w.shake != nil {
		return w.shake.read(p, w.record)
	}
	if len(w.in) == 0 {
		return 0, errDry
	}
	n := copy(p, w.in)
	w.in = w.in[n:]
	return n, nil
}

// Write collects records. crypto/tls calls it in the order in which it sealed them, under a lock of its own, also when it
// answers from within Read.
func (w *wire) Write(p []byte) (int, error) {
	if w.shake != nil {
		w.shake.answer()
		return w.shake.nc.Write(p)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = append(w.out, p...)
	return len(p), nil
}

// begin lets what is written go to the end of out, behind what is owed.
func (w *wire) begin(out []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = append(out, w.out...)
	w.sealing = true
}

// end gives all that was written since begin.
func (w *wire) end() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.out
	w.out, w.sealing = nil, false
	return out
}

func (w *wire) owes() bool { return w.owed() > 0 }

// owed is how many bytes wait to be sent.
func (w *wire) owed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sealing {
		return 0
	}
	return len(w.out)
}

// Close ends a handshake whose context has ended.
func (w *wire) Close() error {
	if w.shake != nil {
		return w.shake.nc.Close()
	}
	return nil
}

// LocalAddr is that of the socket during the handshake; later nobody asks.
func (w *wire) LocalAddr() net.Addr {
	if w.shake != nil {
		return w.shake.nc.LocalAddr()
	}
	return nil
}

// RemoteAddr is that of the socket during the handshake; later nobody asks.
func (w *wire) RemoteAddr() net.Addr {
	if w.shake != nil {
		return w.shake.nc.RemoteAddr()
	}
	return nil
}

// SetDeadline does nothing: deadlines are those of the socket's owner.
func (w *wire) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (w *wire) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing; crypto/tls sets one before close_notify.
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

const (
	// shakeBuffer is as much as is read from the socket at once: a hello with its post-quantum share fits.
	shakeBuffer = 4 << 10
	// mostFlight is the most bytes that a device may send before it waits for us. Its hello has 2 KiB without a ticket, and four
	// certificates with RSA-4096 have 10. crypto/tls would take a hello of 64 KiB and certificates of 256.
	mostFlight = 16 << 10
	// plainFlight is the size up to which what is parsed of a flight isn't asked room for.
	plainFlight = 4 << 10
	// parsedFactor is how much more than its bytes a hello takes that has nothing but names of protocols, as long as the handshake lasts.
	parsedFactor = 12
)

var shakeBuffers = sync.Pool{New: func() any { return new([shakeBuffer]byte) }}

// shake reads the socket during the handshake. It gives crypto/tls one record at a time: whatever else it were given
// would make its buffer larger, which it keeps for as long as the connection lasts.
type shake struct {
	nc   net.Conn
	buf  *[shakeBuffer]byte
	in   []byte             // read and not yet given
	head [recordHeader]byte // the header of the record at hand
	have int                // bytes of head
	body int                // bytes of the record at hand that are still to be given
	any  bool               // something came

	room    func(int) bool // nil: for all
	flight  int            // bytes of records since we sent something, the one at hand included
	came    int            // of these, what has come
	largest int            // the most that ever was, for which crypto/tls' buffer of messages stays as large
	hello   int            // the first flight
}

func newShake(nc net.Conn, early []byte, room func(int) bool) *shake {
	return &shake{nc: nc, buf: shakeBuffers.Get().(*[shakeBuffer]byte), in: early, any: len(early) > 0, room: room}
}

// admit is asked before each read, with the size of crypto/tls' buffer for a record. Before that of a body crypto/tls has looked at the header, and what is no TLS is named as such.
func (s *shake) admit(record int) error {
	if s.flight > mostFlight {
		return ErrLongFlight
	}
	s.largest = max(s.largest, s.came+min(s.body, len(s.in))) // it is parsed before the next read
	if s.room != nil && !s.room(record+s.largest+parsedFactor*max(0, s.largest-plainFlight)) {
		return ErrNoRoom
	}
	return nil
}

// answer ends a flight.
func (s *shake) answer() {
	if s.hello == 0 {
		s.hello = s.flight
	}
	s.flight, s.came = 0, 0
}

func (s *shake) read(p []byte, record int) (int, error) {
	if err := s.admit(record); err != nil {
		return 0, err
	}
	if len(s.in) == 0 {
		n, err := s.nc.Read(s.buf[:])
		if n == 0 {
			return 0, err
		}
		s.in, s.any = s.buf[:n], true
		if err := s.admit(record); err != nil {
			return 0, err
		}
	}
	want := s.body
	if want == 0 {
		want = recordHeader - s.have
	}
	n := copy(p, s.in[:min(want, len(s.in))])
	s.given(s.in[:n])
	s.in = s.in[n:]
	return n, nil
}

// given keeps count of where in a record the handshake is.
func (s *shake) given(b []byte) {
	if s.body > 0 {
		s.body -= len(b)
		s.came += len(b)
		return
	}
	s.have += copy(s.head[s.have:], b)
	if s.have == recordHeader {
		s.body = int(s.head[3])<<8 | int(s.head[4])
		s.have = 0
		s.flight += s.body
	}
}

// end gives what was read beyond the handshake, and the buffer back.
func (s *shake) end() []byte {
	var rest []byte
	if len(s.in) > 0 {
		rest = append(rest, s.in...)
	}
	shakeBuffers.Put(s.buf)
	return rest
}
