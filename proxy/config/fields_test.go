package config

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEveryFieldIsInTheManual(t *testing.T) {
	fields := Fields()
	require.Greater(t, len(fields), 30)
	for _, f := range fields {
		require.Greater(t, len(f.Doc), 30, "%s has no doc comment that says enough", f.Path)
		require.NotEmpty(t, f.Type, f.Path)
		name := f.Path[strings.LastIndexByte(f.Path, '.')+1:]
		require.True(t, strings.HasPrefix(f.Doc, "`"+name+"` "), "%s: %s", f.Path, f.Doc)
	}
}

// TestEveryNumberHasARange: a number without one is accepted at values that nobody has thought about.
func TestEveryNumberHasARange(t *testing.T) {
	for _, f := range Fields() {
		if slices.Contains([]string{"number", "size", "duration"}, f.Type) {
			require.NotEmpty(t, f.Allowed, f.Path)
		}
	}
}

// TestEveryFactIsOfAField: a fact under a misspelt path would check nothing.
func TestEveryFactIsOfAField(t *testing.T) {
	known := []string{"unmatched.dead_letter", "refused.dead_letter"} // not fields of a struct, because these have two forms
	for _, f := range Fields() {
		known = append(known, withoutIndices(f.Path))
	}
	for path := range facts {
		require.Contains(t, known, path)
	}
}

func TestFactsAreFoundWithoutIndices(t *testing.T) {
	require.True(t, factOf("publish[12].topic").required)
	require.True(t, factOf("kafka").required)
	require.Zero(t, factOf("publish[12].headers.a[b"))
	require.Zero(t, factOf("nothing"))
}

func TestWhatTheManualSaysOfAField(t *testing.T) {
	byPath := make(map[string]Field)
	for _, f := range Fields() {
		byPath[f.Path] = f
	}
	field := func(path, kind, value, allowed string, required bool) {
		t.Helper()
		f := byPath[path]
		require.Equal(t, []any{kind, value, allowed, required}, []any{f.Type, f.Default, f.Allowed, f.Required})
	}
	field("listeners", "list of mappings", "", "", true)
	field("kafka.brokers", "list of texts", "", "", true)
	field("kafka.create_topics.partitions", "number", "", "1 to 100000", true)
	field("publish[].max_topics", "number", "1000", "1 to 1000000", false)
	field("publish[].key", "text", `"{mqtt.client_id}"`, "", false)
	field("publish", "list of mappings", "", "", false)
	field("commands", "list of mappings", "", "", false)
	field("commands[].publish", "text", "", "", true)
	field("commands[].qos", "number", "1", "0 to 2", false)
	field("commands[].retain", "true or false", "false", "", false)
	field("commands[].expiry", "duration", "0s", "0s to 1193046h28m15s", false)
	field("commands[].when", "mapping of texts", "", "", false)
	field("commands[].offline", "text", "keep", "keep or drop", false)
	field("limits.commands_in_flight", "number", "64", "1 to 65535", false)
	field("limits.commands_queued", "number", "1000", "1 to 1000000", false)
	field("limits.commands_memory", "size", "64MiB", "4KiB to 1TiB", false)
	field("limits.subscriptions", "number", "100", "1 to 100000", false)
	field("limits.subscriptions_memory", "size", "256MiB", "4KiB to 1TiB", false)
	field("limits.max_packet_size", "size", "256KiB", "1KiB to 268435455", false)
	field("limits.keep_alive_max", "duration", "1h", "0s to 18h12m15s", false)
	field("limits.topic_alias_maximum", "number", "0", "0 to 65535", false)
	field("listeners[].protocol", "text", "mqtt", "mqtt or websocket", false)
	field("listeners[].origins", "list of texts", "", "", false)
	field("listeners[].tls", "mapping", "", "", false)
	field("listeners[].tls.certificate", "text", "", "", true)
	field("listeners[].tls.min_version", "text", "1.2", "1.2 or 1.3", false)
	field("kafka.client_id", "text", "sluice", "", false)
	field("kafka.sasl.password", "text", "", "", false)
	field("kafka.identities", "mapping of names to mappings", "", "", false)
	field("kafka.identities[NAME].sasl.mechanism", "text", "", "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER", true)
	field("auth", "list of mappings", "", "", false)
	field("auth[].jwt.leeway", "duration", "30s", "0s to 10m", false)
	field("auth[].http.max_concurrent", "number", "64", "1 to 10000", false)
	field("acl[].allow", "list of texts", "", "publish, subscribe, will or retain", false)
	field("limits.connects_per_second", "number", "2000", "0 to 1000000", false)
	field("limits.publish_bytes_per_second", "size", "0", "0 to 1TiB", false)
	field("admin.address", "text", "127.0.0.1:8080", "", false)
	field("unmatched", "word or mapping", "reject", "", false)
	field("log.level", "text", "info", "trace, debug, info, warn or error", false)
}

// TestDefaultsPassTheirOwnChecks: every default, written into a file, is accepted and changes nothing.
func TestDefaultsPassTheirOwnChecks(t *testing.T) {
	want := parse(t, base)
	for _, f := range Fields() {
		section, name, _ := strings.Cut(f.Path, ".")
		if f.Default == "" || strings.HasSuffix(section, "[]") {
			continue
		}
		line := section + ": {" + name + ": '" + f.Default + "'}\n"
		switch {
		case f.Type == "number":
			line = strings.ReplaceAll(line, "'", "")
		case name == "":
			line = section + ": " + f.Default + "\n"
		}
		if inner, ok := strings.CutPrefix(f.Path, "kafka."); ok {
			line = "  " + inner + ": '" + f.Default + "'\n"
			if outer, inner, ok := strings.Cut(inner, "."); ok {
				line = "  " + outer + ": {" + inner + ": '" + f.Default + "'}\n"
			}
			require.Equal(t, want, parse(t, strings.Replace(base, "publish:", line+"publish:", 1)), f.Path)
			continue
		}
		require.Equal(t, want, parse(t, base+line), f.Path)
	}
}
