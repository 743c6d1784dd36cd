package clients

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCompleteFindsWhatIsMissingDoubleOrRefused(t *testing.T) {
	f := func(n int, want string, acks ...Ack) {
		t.Helper()
		err := complete(Output{Acks: acks}, n)
		if want == "" {
			require.NoError(t, err)
			return
		}
		require.EqualError(t, err, want)
	}
	f(0, "")
	f(2, "", Ack{Index: 1}, Ack{Index: 0, Reason: 0x10})
	f(2, "1 of 2 messages were acknowledged", Ack{Index: 1})
	f(2, "message 1 was acknowledged twice", Ack{Index: 1}, Ack{Index: 1})
	f(2, "acknowledgement of message 2 of 2", Ack{Index: 2})
	f(2, "acknowledgement of message -1 of 2", Ack{Index: -1})
	f(1, "message 0 was refused with reason 0x87", Ack{Reason: 0x87})
}

func TestMosquittoLogTellsAcknowledgementsFromTheRest(t *testing.T) {
	const log = "Client c sending CONNECT\n" +
		"Client c sending PUBLISH (d0, q2, r0, m1, 'x', ... (1 bytes))\n" +
		"Client c received PUBREC (Mid: 1)\n" +
		"Client c received PUBCOMP (Mid: 1, RC:0)\n" +
		"Client c received PUBACK (Mid: 2, RC:135)\n" +
		"Warning: something\n"
	f := func(qos byte, want ...Ack) {
		t.Helper()
		acks, rest := mosquittoLog(log, qos)
		require.Equal(t, want, acks)
		require.Equal(t, "Warning: something\n", rest)
	}
	f(0)
	f(1, Ack{Index: 1, Reason: 135})
	f(2, Ack{Index: 0})
}

func TestMosquittoBatchesOnlyLinesOfOneTopic(t *testing.T) {
	line := func(topic string) Message { return Message{Topic: topic, Payload: []byte("p")} }
	f := func(want int, ms ...Message) {
		t.Helper()
		require.Equal(t, want, batch(ms))
	}
	f(1, line("a"))
	f(2, line("a"), line("a"), line("b"))
	f(1, line("a"), Message{Topic: "a"})
	f(1, Message{Topic: "a"}, line("a"))
	f(1, line("a"), Message{Topic: "a", Payload: []byte("x\ny")})
	f(1, line("a"), Message{Topic: "a", Payload: []byte("p"), Retain: true})
	f(1, line("a"), Message{Topic: "a", Payload: []byte("p"), ContentType: "text/plain"})
}

func TestAJobThatCannotBeDoneIsRefusedBeforeItStarts(t *testing.T) {
	r := Runner{Name: "r", Versions: []byte{V311}}
	f := func(want, addr string, version byte, ms ...Message) {
		t.Helper()
		_, err := r.job(addr, version, 1, ms)
		require.ErrorContains(t, err, want)
	}
	f("missing port", "localhost", V311)
	f("invalid syntax", "localhost:mqtt", V311)
	f("does not speak MQTT level 5", "localhost:1", V5)
	f("properties need MQTT 5", "localhost:1", V311, Message{Expiry: 1})
}
