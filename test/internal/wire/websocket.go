package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// The opcodes of WebSocket frames (RFC 6455, section 5.2).
const (
	OpContinuation = 0x0
	OpText         = 0x1
	OpBinary       = 0x2
	OpClose        = 0x8
	OpPing         = 0x9
)

// Final is the bit of a frame that ends a message.
const Final = 0x80

// Upgrade is the HTTP request that opens a WebSocket for MQTT. fields are more lines of it, each with its end.
func Upgrade(host, path string, fields ...string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n", path, host, strings.Join(fields, ""))
}

// SubprotocolMQTT is the field that a device needs in Upgrade.
const SubprotocolMQTT = "Sec-WebSocket-Protocol: mqtt\r\n"

// frameMask is the masking key of all frames here.
var frameMask = [4]byte{1, 2, 3, 4}

// Frame is a masked frame with its first byte, an opcode and its bits.
func Frame(first byte, payload []byte) []byte {
	var b []byte
	switch n := len(payload); {
	case n < 126:
		b = []byte{first, 0x80 | byte(n)}
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16([]byte{first, 0x80 | 126}, uint16(n))
	default:
		b = binary.BigEndian.AppendUint64([]byte{first, 0x80 | 127}, uint64(n))
	}
	b = append(b, frameMask[:]...)
	for i, x := range payload {
		b = append(b, x^frameMask[i%4])
	}
	return b
}

// A Socket is a WebSocket connection of a device. Each Write is a binary frame.
type Socket struct {
	net.Conn
	in   *bufio.Reader
	rest int // of the frame that is being read
}

// A CloseError is the status in a close frame of the server; 0: there was none.
type CloseError int

// Error gives the status.
func (e CloseError) Error() string { return fmt.Sprintf("WebSocket closed with status %d", int(e)) }

// A StatusError is an HTTP status in place of a WebSocket.
type StatusError int

// Error gives the status.
func (e StatusError) Error() string { return fmt.Sprintf("HTTP %d", int(e)) }

var errFrameTooLong = errors.New("a frame of the server is larger than any this test asks for")

// OpenSocket sends an upgrade request on conn and takes the answer; the error is a StatusError if it is no.
func OpenSocket(conn net.Conn, upgrade []byte) (*Socket, error) {
	if _, err := conn.Write(upgrade); err != nil {
		return nil, err
	}
	in := bufio.NewReader(conn)
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		return nil, StatusError(answer.StatusCode)
	}
	return &Socket{Conn: conn, in: in}, nil
}

// Write sends b as one binary frame.
func (s *Socket) Write(b []byte) (int, error) {
	if _, err := s.Conn.Write(Frame(Final|OpBinary, b)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Raw sends bytes as they are.
func (s *Socket) Raw(b []byte) error {
	_, err := s.Conn.Write(b)
	return err
}

// Read gives the content of data frames. The error is a CloseError after a close frame.
func (s *Socket) Read(b []byte) (int, error) {
	for s.rest == 0 {
		if err := s.header(); err != nil {
			return 0, err
		}
	}
	n, err := s.in.Read(b[:min(len(b), s.rest)])
	s.rest -= n
	return n, err
}

// header reads frames up to a data frame.
func (s *Socket) header() error {
	var head [2]byte
	if _, err := io.ReadFull(s.in, head[:]); err != nil {
		return err
	}
	n := int(head[1])
	switch n {
	case 126:
		var size [2]byte
		if _, err := io.ReadFull(s.in, size[:]); err != nil {
			return err
		}
		n = int(binary.BigEndian.Uint16(size[:]))
	case 127:
		return errFrameTooLong
	}
	if head[0]&0x0F < OpClose {
		s.rest = n
		return nil
	}
	return s.control(head[0]&0x0F, n)
}

// control reads a control frame.
func (s *Socket) control(opcode byte, n int) error {
	said := make([]byte, n)
	if _, err := io.ReadFull(s.in, said); err != nil {
		return err
	}
	if opcode != OpClose {
		return nil
	}
	if n < 2 {
		return CloseError(0)
	}
	return CloseError(binary.BigEndian.Uint16(said))
}
