package test

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/test/cluster"
	"sluice/test/internal/wire"
	"sluice/tls/tlstest"
)

// TestKafkasCAIsRenewedWithoutARestart: its file has the old one, then both, then the new one, always with certificates in
// between that can't be used, which are named in the log and take no other with them.
func TestKafkasCAIsRenewedWithoutARestart(t *testing.T) {
	besideOthers(t)
	var relay tlstest.Relay
	before, after := tlstest.NewCA(t, "before"), tlstest.NewCA(t, "after")
	showsBefore, showsAfter := before.ServerConfig(t, "127.0.0.1"), after.ServerConfig(t, "127.0.0.1")
	relay.Show(showsBefore)
	kafka := cluster.Need(t, cluster.Config{Listeners: []cluster.Listener{{Name: "RELAYED", Protocol: "PLAINTEXT",
		Advertise: func(_ int, addr string) string { return relay.To(t, addr) }}}})
	dir := t.TempDir()
	leaf, _ := before.Client(t, dir, "no-ca")
	odd := [][]byte{negativeSerial(t)}
	b, err := os.ReadFile(leaf)
	require.NoError(t, err)
	odd = append(odd, b, []byte("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n"))
	trust := filepath.Join(dir, "trust.pem")
	trusted := func(all ...*tlstest.CA) {
		t.Helper()
		file := []byte("\xEF\xBB\xBF") // a byte order mark
		for _, ca := range all {
			b, err := os.ReadFile(ca.File(t, dir))
			require.NoError(t, err)
			file = append(file, b...)
			file = append(file, bytes.Join(odd, nil)...)
		}
		require.NoError(t, os.WriteFile(trust+".new", file, 0o600))
		require.NoError(t, os.Rename(trust+".new", trust))
	}
	topic := newTopic(t, kafka, 1)
	s := prepare(t, kafka.At("RELAYED"), oneTopic(topic), fmt.Sprintf("  tls: {ca: %q}", trust))

	require.NoError(t, os.WriteFile(trust, bytes.Join(odd, nil), 0o600))
	s.start()
	<-s.exited
	require.Equal(t, 2, s.cmd.ProcessState.ExitCode(), "there is nothing to trust")
	names := []string{"negative serial number", "no-ca", "1 of its certificates"}
	for _, name := range append(names, trust) {
		require.Contains(t, s.log.String(), name)
	}

	trusted(before)
	s.start()
	s.awaitReady()
	for _, name := range names {
		require.Contains(t, warnings(s, "left out a certificate among the CAs"), name)
	}
	d := sayHello(t, s.address, wire.Hello{Version: 5, ID: "d"})
	stored := func() {
		t.Helper()
		require.Zero(t, d.publish(wire.Publish{Topic: "devices/d/telemetry/x", QoS: 1}))
	}
	stored()
	trusted(before, after)
	relay.Show(showsAfter)
	relay.Cut()
	stored()
	trusted(after)
	relay.Show(showsBefore)
	relay.Cut()
	d.id++
	d.send(wire.Publish{Topic: "devices/d/telemetry/x", QoS: 1, ID: d.id}.Packet(5))
	await(t, func() bool { return strings.Contains(s.log.String(), "unknown authority") }, func() string { return "the old one is still trusted" })
	relay.Show(showsAfter)
	require.Zero(t, d.next(wire.PUBACK).Code())
	require.Len(t, records(t, kafka.Direct(), topic, 3), 3)
}

// warnings gives the lines of the log that have a text.
func warnings(s *instance, text string) string {
	var b strings.Builder
	for line := range strings.Lines(s.log.String()) {
		if strings.Contains(line, text) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// negativeSerial is a CA's certificate with a serial number that Go, unlike others, doesn't take.
func negativeSerial(t *testing.T) []byte {
	der := bytes.Clone(tlstest.NewCA(t, "negative", tlstest.Serial(5)).Certificate.Raw)
	at := bytes.Index(der, []byte{2, 1, 5})
	require.Positive(t, at)
	der[at+2] = 0x85
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
