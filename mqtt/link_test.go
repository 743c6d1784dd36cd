package mqtt

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/require"

	"sluice/tls"
	"sluice/tls/tlstest"
)

// everyLayer are the ways to a server other than plain TCP.
var everyLayer = []layers{{tls: true}, {tls: true, version: "1.2"}, {ws: true}, {tls: true, ws: true}}

// overEveryLayer runs f with worlds behind each of them.
func overEveryLayer(t *testing.T, f func(t *testing.T)) { over(t, everyLayer, f) }

func over(t *testing.T, ways []layers, f func(t *testing.T)) {
	for _, l := range ways {
		t.Run(l.String(), func(t *testing.T) {
			underTest = l
			defer func() { underTest = layers{} }()
			f(t)
		})
	}
}

// TestDevicesAreServedAlikeOverEveryLayer runs what holds for devices over plain TCP again: acknowledgements, commands,
// pauses, devices that do not read, takeover, wills, the end of the server. Each layer alone is left to the
// other tests: both at once have what they have.
func TestDevicesAreServedAlikeOverEveryLayer(t *testing.T) {
	promises := []func(*testing.T){
		TestPubackNotBeforeAck, TestAcksLeaveInOrderOfReceipt, TestAcksFromManyGoroutinesLeaveInOrder, TestRefusalClosesA311ConnectionAfterTheAcksBefore,
		TestBurstAboveTheReceiveMaximumIsHeldBack, TestQoS2ExchangeAndReuseOfItsID, TestQoS2HandedOverOnceThroughReconnect,
		TestPingIsAnsweredWhileNothingIsAcknowledged, TestPacketsADeviceMayNotSend, TestDisconnectMayCarryAReason,
		TestCommandReachesEveryDeviceThatSubscribed, TestOrderIsKeptWhateverTheQoS, TestReconnectSendsAgainWhatWasNotCompleted, TestFloodOfAcks,
		TestReadingOf311PausesAtTheReceiveMaximum, TestReadingPausesUntilTheBudgetHasRoom, TestResumeInsideAdmitIsNotLost, TestPausedConnectionKeepsWhatItRead,
		TestPingreqIsAnsweredDuringAPause, TestFarewellDuringAPauseCounts, TestAPausedDeviceThatVanishesIsMissed, TestAPausedConnectionIsReadOnlySoFar,
		TestKeepAliveEndsASilentConnection, TestKeepAliveSparesAPausedConnection,
		TestShutdownSaysWhyAndRefusesTheNext, TestShutdownSendsWhatWasSettledWithoutFlush, TestShutdownWakesAPausedConnection, TestLastWordWaitsForTheWriter,
		TestDeviceThatStopsReadingHoldsUpNobodyAndIsBounded, TestCommandsForAStuckDeviceWaitWhereTheyCanBeCancelled, TestDeviceThatReadsSlowlyAndSteadilyIsNotClosed,
		TestLargeCommandsAmongMuchElse, TestStuckReaderIsClosedAtItsBound, TestStuckReaderIsReset, TestStuckReaderIsClosedAfterTheWriteTimeout, TestWriteTimeoutEndsWithTheWrite,
		TestTakeoverClosesTheOlderConnection, TestTakeoverSendsNothingAfterDisconnect, TestTakeoverOfAConnectionThatFloodsUs, TestTakeoverOfAPausedConnection,
		TestTakeoverOfAConnectionThatDoesNotRead, TestConnectionsRacingForOneClientID,
		TestWillIsPublishedWhenTheConnectionIsLost, TestCloseRightAfterTheLastPacketIsNoticed, TestDisconnectDiscardsTheWill, TestManyWillsAtOnce,
		TestHalfSentPacketsCostWhatCame, TestPanicOfTheHandlerCostsOnlyThatConnection, TestDeviceThatClosesInsideEverythingCostsNothing,
		TestQoS0WaitsForMemoryWhileMessagesAreStored, TestQoS0OfADeviceThatIsGoneWaitsForMemoryToo, TestQoS0OfADeviceThatIsGoneWaitsOnce,
		TestQoS0BehindMessagesOfADeviceThatIsGoneIsCounted, TestQoS0StopsWaitingWhenNothingIsStoredAnyMore,
		TestQoS0IsSettledByWhatBecameOfItsBytes, TestSubscriberGetsWhatIsRetainedAfterItsSuback, TestSharedCommandsGoToOneMemberEachInTurn,
	}
	over(t, []layers{{tls: true, ws: true}}, func(t *testing.T) {
		for _, f := range promises {
			t.Run(strings.TrimPrefix(runtime.FuncForPC(reflect.ValueOf(f).Pointer()).Name(), "sluice/mqtt."), f)
		}
	})
}

// TestLargePacketsGoBothWaysOverEveryLayer: a packet may span any number of records and frames.
func TestLargePacketsGoBothWaysOverEveryLayer(t *testing.T) {
	overEveryLayer(t, func(t *testing.T) {
		w := newWorld(t, nil)
		c := w.device(5, "dev")
		c.subscribe("down", 1)
		payload := strings.Repeat("0123456789", 20_000)
		c.publish(pub{topic: "up", payload: payload, qos: 1, id: 1})
		m := w.next()
		require.Equal(t, payload, string(m.Payload))
		w.ack(m)
		c.expect(puback(1))
		w.s.Send(&Command{Topic: []byte("down"), Payload: []byte(payload), QoS: 1, Owner: unowned{}})
		w.s.Flush()
		_, body := c.read()
		require.Equal(t, payload, string(body[len(body)-len(payload):]))
	})
}

// TestByteByByteOverEveryLayer: records and frames may be cut anywhere.
func TestByteByByteOverEveryLayer(t *testing.T) {
	overEveryLayer(t, func(t *testing.T) {
		w := newWorld(t, nil)
		nc, err := net.Dial("tcp", w.addr)
		require.NoError(t, err)
		t.Cleanup(func() { _ = nc.Close() })
		_ = nc.(*net.TCPConn).SetNoDelay(true)
		p := w.gate.pass(t, &slicer{Conn: nc})
		for _, b := range cat(hello{version: 5, id: "dev"}.packet(), pub{topic: "t", payload: "xyz", qos: 1, id: 1}.packet(5), pingreq) {
			_, err := p.Write([]byte{b})
			require.NoError(t, err)
		}
		m := w.next()
		require.Equal(t, "xyz", string(m.Payload))
		w.ack(m)
	})
}

// A slicer writes every byte by itself.
type slicer struct{ net.Conn }

func (s *slicer) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := s.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// TestConnectMayComeWithTheEndOfTheHandshakes: what was read beyond a handshake is the next layer's.
func TestConnectMayComeWithTheEndOfTheHandshakes(t *testing.T) {
	for _, l := range everyLayer {
		if l.version == "1.2" { // its client waits for the server's last word first
			continue
		}
		t.Run(l.String(), func(t *testing.T) {
			w := newWorldBehind(t, l, nil)
			nc, err := net.Dial("tcp", w.addr)
			require.NoError(t, err)
			t.Cleanup(func() { _ = nc.Close() })
			held := &holder{Conn: nc}
			inner := net.Conn(held)
			if l.tls {
				cfg := w.gate.config
				held.after = 1 // what follows the hello leaves with what follows the handshake
				inner, err = tlstest.Client(context.Background(), held, cfg)
				require.NoError(t, err)
			}
			whole := cat(hello{version: 5, id: "dev"}.packet(), pub{topic: "t", payload: "x", qos: 1, id: 1}.packet(5), pingreq)
			if l.ws {
				held.after = 0
				_, _ = inner.Write(append(upgradeRequest("/mqtt", "mqtt"), masked(0x82, whole)...))
			} else {
				_, _ = inner.Write(whole)
			}
			require.NoError(t, held.release())
			m := w.next()
			require.Equal(t, "x", string(m.Payload))
			w.ack(m)
		})
	}
}

// A holder keeps back what is written after the first so many writes.
type holder struct {
	net.Conn
	after  int
	writes int
	held   bytes.Buffer
}

func (h *holder) Write(b []byte) (int, error) {
	if h.writes++; h.writes <= h.after {
		return h.Conn.Write(b)
	}
	return h.held.Write(b)
}

func (h *holder) release() error {
	h.after = 1 << 30
	_, err := h.Conn.Write(h.held.Bytes())
	return err
}

// TestTheLayersSayFarewellAfterDisconnect: the close frame and close_notify come behind it, for every reason.
func TestTheLayersSayFarewellAfterDisconnect(t *testing.T) {
	overEveryLayer(t, func(t *testing.T) {
		w := newWorld(t, nil)
		c := w.device(5, "dev")
		w.device(5, "dev").ping()
		c.goodbye(SessionTakenOver)
		if p, ok := c.pipe.(*pipe); ok {
			require.Equal(t, ws.StatusPolicyViolation, p.status)
		}
		c = w.device(4, "other")
		c.send(packet(0xE0))
		_, err := c.in.ReadByte()
		require.ErrorIs(t, err, io.EOF, "the stream has an end, and is not cut")
	})
}

// TestQoS0OfADeviceThatTookItsLeaveOfTheLayersWaitsForMemoryToo: a close frame and close_notify end the stream as the end of the
// socket does, whether they came before the pause or in it, and the will is behind all messages.
func TestQoS0OfADeviceThatTookItsLeaveOfTheLayersWaitsForMemoryToo(t *testing.T) {
	overEveryLayer(t, func(t *testing.T) {
		for _, inPause := range []bool{false, true} {
			for _, saysDisconnect := range []bool{false, true} {
				w := newWorld(t, nil)
				c := w.connect(hello{version: 5, id: "dev", will: &lastWill{topic: "w"}})
				var last []byte
				if saysDisconnect {
					last = packet(0xE0)
				}
				if inPause {
					w.fiveWait(c)
					if last != nil {
						c.send(last)
					}
				} else {
					w.setFull(true)
					for i := range 5 {
						last = cat(pub{topic: "t", payload: fmt.Sprint(4 - i)}.packet(5), last)
					}
					c.send(last)
				}
				c.takesLeave()
				until(t, "paused", func() bool { return count(w.s.m.paused) == 1 })
				w.wakeInVain()
				w.noMessage()
				require.Equal(t, 1, w.open())
				w.makeRoom()
				for i := range 5 {
					require.Equal(t, fmt.Sprint(i), string(w.next().Payload))
				}
				if !saysDisconnect {
					require.True(t, w.next().Will)
				}
				w.ended()
				w.noMessage()
				require.Zero(t, count(w.s.m.dropped))
			}
		}
	})
}

// takesLeave ends what the device sends, in each layer and at last of the socket.
func (c *client) takesLeave() {
	c.t.Helper()
	inner := c.pipe
	if p, ok := inner.(*pipe); ok {
		_, err := p.Conn.Write(masked(0x80|byte(ws.OpClose), ws.NewCloseFrameBody(ws.StatusNormalClosure, "")))
		require.NoError(c.t, err)
		inner = p.Conn
	}
	if inner != net.Conn(c.nc) {
		require.NoError(c.t, inner.(interface{ CloseWrite() error }).CloseWrite()) // close_notify
	}
	require.NoError(c.t, c.nc.CloseWrite())
}

// TestAConnectionIsNotServedBeforeItsHandshakes: what is no handshake ends without an answer that MQTT would give.
func TestAConnectionIsNotServedBeforeItsHandshakes(t *testing.T) {
	for _, l := range everyLayer {
		t.Run(l.String(), func(t *testing.T) {
			w := newWorldBehind(t, l, nil)
			nc, err := net.Dial("tcp", w.addr)
			require.NoError(t, err)
			defer nc.Close()
			_, err = nc.Write(hello{version: 5, id: "dev"}.packet())
			require.NoError(t, err)
			_ = nc.SetReadDeadline(time.Now().Add(tooLong))
			got, _ := io.ReadAll(nc)
			require.NotEqual(t, byte(0x20), append(got, 0)[0], "no CONNACK")
			reason := "no WebSocket handshake"
			if l.tls {
				reason = "no TLS handshake"
			}
			w.ends(1, reason)
			require.Zero(t, len(w.got))
		})
	}
}

// TestHandshakesShareTheTimeLimitOfConnect: who is silent in the middle of one does not stay.
func TestHandshakesShareTheTimeLimitOfConnect(t *testing.T) {
	for _, l := range everyLayer {
		for _, said := range []string{"", "\x16\x03\x01", "GET /mqtt HTTP/1.1\r\n"} {
			if l.tls && strings.HasPrefix(said, "G") || !l.tls && strings.HasPrefix(said, "\x16") {
				continue
			}
			t.Run(fmt.Sprintf("%v after %q", l, said), func(t *testing.T) {
				w := newWorldBehind(t, l, func(cfg *Config) { cfg.ConnectTimeout = 50 * time.Millisecond })
				nc, err := net.Dial("tcp", w.addr)
				require.NoError(t, err)
				defer nc.Close()
				_, _ = nc.Write([]byte(said))
				w.ends(1, "connect timeout")
			})
		}
	}
}

// TestShutdownEndsAHandshake: a device that says nothing does not hold up the end.
func TestShutdownEndsAHandshake(t *testing.T) {
	for _, l := range everyLayer {
		t.Run(l.String(), func(t *testing.T) {
			w := newWorldBehind(t, l, func(cfg *Config) { cfg.ConnectTimeout = time.Hour })
			nc, err := net.Dial("tcp", w.addr)
			require.NoError(t, err)
			defer nc.Close()
			until(t, "it is accepted", func() bool { return w.open() == 1 })
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			w.s.Shutdown(ctx)
		})
	}
}

// TestTheCertificateIsTheAuthenticatorsToSee: what a device showed, and nothing where none was asked for.
func TestTheCertificateIsTheAuthenticatorsToSee(t *testing.T) {
	w := newWorldBehind(t, layers{tls: true, auth: tls.ClientAuthRequest}, nil)
	c := w.device(5, "bare")
	c.publish(pub{topic: "t", qos: 1, id: 1})
	m := w.next()
	require.Nil(t, m.conn.Certificate())
	w.ack(m)

	cert, key := w.gate.ca.Client(t, t.TempDir(), "sensor-7")
	w.gate.config = w.gate.ca.ClientConfig(t, "127.0.0.1", cert, key)
	c = w.device(5, "known")
	c.publish(pub{topic: "t", qos: 1, id: 1})
	m = w.next()
	require.Equal(t, "sensor-7", m.conn.Certificate().CommonName)
	w.ack(m)
}

// TestTheProxyHeaderComesBeforeTheLayers: and none is believed of a peer that is not trusted.
func TestTheProxyHeaderComesBeforeTheLayers(t *testing.T) {
	for _, l := range everyLayer {
		for _, version := range []byte{1, 2} {
			for _, cut := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v, version %d, cut %v", l, version, cut), func(t *testing.T) {
					w := newWorldBehind(t, l, nil)
					w.listenAt(w.endpointBehind("127.0.0.0/8"))
					nc, err := net.Dial("tcp", w.addr)
					require.NoError(t, err)
					defer nc.Close()
					header := proxyHeaderOf(t, version, "203.0.113.7:4711")
					if cut {
						_, err = (&slicer{nc}).Write(header)
					} else {
						nc = &prefixer{Conn: nc, prefix: header} // in one piece with what follows
					}
					require.NoError(t, err)
					p := w.gate.pass(t, nc)
					_, err = p.Write(cat(hello{version: 5, id: "dev"}.packet(), pub{topic: "t", qos: 1, id: 1}.packet(5)))
					require.NoError(t, err)
					m := w.next()
					require.Equal(t, "203.0.113.7:4711", m.conn.RemoteAddr().String())
					w.ack(m)
				})
			}
		}
		t.Run("a stranger to "+l.String(), func(t *testing.T) {
			w := newWorldBehind(t, l, nil)
			w.listenAt(w.endpointBehind("10.0.0.0/8"))
			nc, err := net.Dial("tcp", w.addr)
			require.NoError(t, err)
			defer nc.Close()
			w.ends(1, "not a trusted proxy")
		})
	}
}

// endpointBehind is the world's endpoint behind load balancers.
func (w *world) endpointBehind(trusted string) Endpoint {
	e := w.endpoint
	e.Proxies = []netip.Prefix{netip.MustParsePrefix(trusted)}
	return e
}

// A prefixer sends something with the first bytes that are written.
type prefixer struct {
	net.Conn
	prefix []byte
}

func (p *prefixer) Write(b []byte) (int, error) {
	prefix := p.prefix
	p.prefix = nil
	n, err := p.Conn.Write(append(prefix, b...))
	return n - len(prefix), err
}

// TestABadRecordEndsTheConnection: and what came before it was handled.
func TestABadRecordEndsTheConnection(t *testing.T) {
	w := newWorldBehind(t, layers{tls: true}, nil)
	c := w.device(5, "dev")
	c.publish(pub{topic: "t", payload: "before"})
	_, err := c.nc.Write(append([]byte{0x17, 3, 3, 0, 40}, make([]byte, 40)...))
	require.NoError(t, err)
	require.Equal(t, "before", string(w.next().Payload))
	w.ends(1, "bad TLS record")
}

// TestHandshakesAreCounted by layer and result.
func TestHandshakesAreCounted(t *testing.T) {
	w := newWorldBehind(t, layers{tls: true, ws: true}, nil)
	w.device(5, "dev").ping()
	require.Equal(t, 1, count(w.s.m.link.handshakes.WithLabelValues("tls", "ok")))
	require.Equal(t, 1, count(w.s.m.link.handshakes.WithLabelValues("websocket", "ok")))
	nc, err := net.Dial("tcp", w.addr)
	require.NoError(t, err)
	_ = nc.Close()
	until(t, "the failure", func() bool { return count(w.s.m.link.handshakes.WithLabelValues("tls", "failed")) == 1 })
}
