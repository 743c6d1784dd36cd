package wire

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPacketsAreTheBytesOfTheSpecification(t *testing.T) {
	f := func(want, got []byte) {
		t.Helper()
		require.Equal(t, want, got, "% x", got)
	}
	f([]byte{0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, 1, 'a'}, Hello{Version: 4, ID: "a", KeepAlive: 60}.Packet())
	f([]byte{0x10, 27, 0, 4, 'M', 'Q', 'T', 'T', 5, 0xEC, 0, 0, 0, 0, 1, 'a', 0, 0, 1, 'w', 0, 1, 'p', 0, 1, 'u', 0, 1, 's'},
		Hello{Version: 5, ID: "a", Persist: true, Username: "u", Password: "s", Will: &Will{Topic: "w", Payload: "p", QoS: 1, Retain: true}}.Packet())
	f([]byte{0x3B, 7, 0, 1, 't', 0, 7, 0, 'x'}, Publish{Topic: "t", QoS: 1, ID: 7, Dup: true, Retain: true, Payload: "x"}.Packet(5))
	f([]byte{0x30, 4, 0, 1, 't', 'x'}, Publish{Topic: "t", Payload: "x"}.Packet(4))
	f([]byte{0x82, 9, 0, 1, 2, 0x0B, 7, 0, 1, '#', 1}, Subscribe(5, 1, Properties(0x0B, 7), Filter{"#", 1}))
	f([]byte{0xA2, 5, 0, 1, 0, 1, 'a'}, Unsubscribe(4, 1, "a"))
	f([]byte{0xFF, 0xFF, 0xFF, 0xFF, 0x0F}, Length(1<<32-1))
	f([]byte{0, 1, 'x'}, Body(Packet(PUBLISH, "x")))
}

func TestRepliesSayNameAndCode(t *testing.T) {
	f := func(want string, b ...byte) {
		t.Helper()
		r, err := Read(bufio.NewReader(bytes.NewReader(b)))
		require.NoError(t, err)
		require.Equal(t, want, r.String())
	}
	f("CONNACK 0x84", 0x20, 3, 0, 0x84, 0)
	f("PUBACK 0x00", 0x40, 2, 0, 7)
	f("PUBREC 0x97", 0x50, 4, 0, 7, 0x97, 0)
	f("PUBCOMP 0x92", 0x70, 3, 0, 7, 0x92)
	f("SUBACK 0x8F", 0x90, 4, 0, 7, 0, 0x8F)
	f("PINGRESP", 0xD0, 0)
	f("DISCONNECT 0x82", 0xE0, 2, 0x82, 0)
	f("DISCONNECT 0x00", 0xE0, 0)
	r := Reply{PUBREC, []byte{1, 2}}
	require.Equal(t, uint16(0x0102), r.ID())
	require.Equal(t, "a/b", Reply{PUBLISH, []byte{0, 3, 'a', '/', 'b', 'x'}}.Topic())
	require.Zero(t, Reply{PUBLISH, []byte{9}}.ID())
	_, err := Read(bufio.NewReader(bytes.NewReader([]byte{0x30, 0xFF, 0xFF, 0xFF, 0x7F})))
	require.ErrorIs(t, err, errTooLong)
}

func TestSocketReadsAndWritesFrames(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	heard := make(chan []byte, 1)
	go func() { // ends with theirs
		in := bufio.NewReader(theirs)
		for line := ""; line != "\r\n"; {
			line, _ = in.ReadString('\n')
		}
		_, _ = theirs.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"))
		b := make([]byte, 8)
		_, _ = io.ReadFull(in, b)
		heard <- b
		_, _ = theirs.Write([]byte{0x82, 1, 'a', 0x89, 1, 'p', 0x80, 2, 'b', 'c', 0x88, 2, 0x03, 0xEB})
	}()
	s, err := OpenSocket(ours, Upgrade("host", "/mqtt", SubprotocolMQTT))
	require.NoError(t, err)
	_, err = s.Write(Ping())
	require.NoError(t, err)
	require.Equal(t, Frame(Final|OpBinary, Ping()), <-heard)
	got, err := io.ReadAll(s)
	require.Equal(t, "abc", string(got))
	require.ErrorIs(t, err, CloseError(1003))
}
