package config

import (
	"errors"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// FuzzParse: whatever the file, Parse gives a configuration whose rules of both directions compile, or faults whose places are in
// the file. It never panics.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		base, rule, "", "a: [", "a: {b: {c}}", "? a\n: b\n", "a: &x 1\nb: *x\n<<: *x\n", "- - - a\n", "---\n---\n", "a: \"\\u00e4\\\n b\"\n", "a: |\n  b\n",
		base + "    key: '${A}$${{b}}'\n    headers: {a: \"{b}\"}\n    when: {mqtt.user.a: b}\n",
		commands + "    client: '{key}'\n    when: {header.a.b: c}\n    receipts: r\n  - pattern: ^c-(?P<x>.*)$\n    publish: '{x}'\n    retain: ${B}\n",
		alone + "    qos: 2\n    retain: true\n    expiry: 1s\n    offline: drop\n    content_type: '{{}}'\n",
		cluster("  identities: {a: {sasl: {mechanism: PLAIN, username: u, password: 'x''y'}}, 'b c': {}}\n"),
		base + "auth: {jwt: {secret: \"a\\\"b\n c\", algorithms: [HS256]}}\nacl: [{deny: [will], filter: 'a{mqtt.client_id}/{{/#'}]\n",
		base + "unmatched: {dead_letter: d}\nlimits: {max_packet_size: 1MiB, receive_maximum: ${N}}\nadmin: {address: ''}\n",
	} {
		f.Add([]byte(seed))
	}
	for _, name := range []string{"full", "secure"} {
		text, err := os.ReadFile("../../examples/" + name + ".yaml")
		require.NoError(f, err)
		f.Add(text)
	}
	env := environment(map[string]string{"A": "x{b}", "N": "7", "B": "true"})
	f.Fuzz(func(t *testing.T, src []byte) {
		// The parser's time grows with the square of a mapping's size, and nothing new is in large files.
		src = src[:min(len(src), 4<<10)]
		cfg, err := Parse("f", src, env)
		if err == nil {
			_, err := cfg.Rules()
			require.NoError(t, err)
			_, err = cfg.CommandRules()
			require.NoError(t, err)
			_, err = cfg.AccessList()
			require.NoError(t, err)
			require.True(t, len(cfg.Publish) > 0 || len(cfg.Commands) > 0)
			require.NotEmpty(t, cfg.Listeners)
			require.NotEmpty(t, cfg.Kafka.Brokers)
			return
		}
		checkPlaces(t, src, err)
	})
}

func checkPlaces(t *testing.T, src []byte, err error) {
	var faults Errors
	require.True(t, errors.As(err, &faults))
	require.NotEmpty(t, faults)
	lines := newSource("f", src).start
	for _, e := range faults {
		require.NotEmpty(t, e.Message)
		require.True(t, 1 <= e.Line && e.Line <= len(lines), "line %d of %d", e.Line, len(lines))
		require.True(t, 1 <= e.Column && e.Column <= utf8.RuneCountInString(e.Source)+1)
		require.Equal(t, 2, strings.Count(e.Error(), "\n"), "three lines: message, source, caret: %q", e.Error())
		require.NotContains(t, e.Message, "cannot read this as YAML", "the YAML parser panicked")
	}
}
