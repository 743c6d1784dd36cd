package config

import (
	"encoding/json"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"
)

func schema(t *testing.T) map[string]any {
	t.Helper()
	text, err := Schema()
	require.NoError(t, err)
	var s map[string]any
	require.NoError(t, json.Unmarshal(text, &s))
	return s
}

// TestTheSchemaAcceptsWhatParseAccepts: an editor must not mark what the program takes.
func TestTheSchemaAcceptsWhatParseAccepts(t *testing.T) {
	s := schema(t)
	accept := func(name, src string) {
		t.Helper()
		_, err := Parse(name, []byte(src), func(name string) (string, bool) {
			value, ok := map[string]string{"N": "1", "W": "info", "B": "true", "ALG": "RS256", "FROM": "username", "RIGHT": "will", "WS": "websocket", "OVER": "delay"}[name]
			if !ok {
				return anyName(name)
			}
			return value, true
		})
		require.NoError(t, err)
		require.Empty(t, violations(s, document(t, src), "$"), "%s", src)
	}
	for name, text := range exampleFiles(t) {
		accept(name, text)
	}
	accept("base", base)
	accept("env", base+"limits: {receive_maximum: '${N}', max_packet_size: '${N}KiB', connect_timeout: '${N}s'}\nlog: {level: '${W}'}\n")
	accept("numbers", base+"limits: {max_packet_size: 2048, keep_alive_max: 0, topic_alias_maximum: 0, connect_timeout: 1m1.5s}\n")
	accept("words", base+"unmatched: drop\nadmin: {address: ''}\n    \n")
	accept("key", base+"    key: ''\n    headers: {a: b}\n    max_topics: 1\n")
	accept("commands", base+"commands: [{topic: c, publish: '{key}', qos: 0, retain: true, expiry: 0, when: {key: k}}, {pattern: ^c$, publish: p, retain: '${B}'}]\n")
	accept("no commands", base+"commands: []\n")
	accept("commands alone", strings.Replace(rule, "publish:", "commands: [{topic: c, publish: p}]", 1))
	accept("one method", base+"auth: {file: users.yaml}\n")
	accept("methods", base+"auth: [{file: users.yaml}, {jwt: {key: k, leeway: 0, algorithms: ['${ALG}'], from: '${FROM}'}}, {http: {url: 'https://a', cache_size: '${N}'}}]\n")
	accept("acl", base+"acl: [{allow: [publish], filter: '#'}, {deny: ['${RIGHT}'], filter: a, username: u}]\n")
	accept("identities", cluster("  tls: {}\n  identities: {a: {tls: {}}, b-1: {sasl: {mechanism: PLAIN, username: u, password: '${P}'}}}\n"))
	accept("listener", listening("    protocol: '${WS}'\n    origins: ['*']\n"+serverTLS))
	accept("rates", base+"limits: {publish_bytes_per_second: 1MiB, connections: 0, over_rate: '${OVER}'}\n")
	accept("empty sections", base+"sessions: {}\nlimits: {}\nlog: {}\nadmin: {}\n")
}

// TestTheSchemaRefusesCommonFaults: else it would be no help.
func TestTheSchemaRefusesCommonFaults(t *testing.T) {
	s := schema(t)
	mark := func(src, want string) {
		t.Helper()
		_, err := Parse("f", []byte(src), noEnv)
		require.Error(t, err)
		found := violations(s, document(t, src), "$")
		require.NotEmpty(t, found, "%s", src)
		require.Contains(t, strings.Join(found, "\n"), want)
	}
	mark("{}", "$: required listeners")
	mark(base+"x: 1\n", "$.x")
	mark(base+"    topci: x\n", "$.publish[0].topci")
	mark(base+"    regex: ^a$\n", "$.publish[0]: oneOf")
	mark(strings.Replace(base, "match: a/{b}", "key: a", 1), "$.publish[0]: oneOf")
	mark(rule[:strings.Index(rule, "publish")], "$: anyOf")
	mark(strings.Replace(rule, "publish:", "commands: []", 1), "$: anyOf")
	mark(base+"commands: [{topic: a, pattern: ^b$, publish: p}]\n", "$.commands[0]: oneOf")
	mark(base+"commands: [{publish: p}]\n", "$.commands[0]: oneOf")
	mark(base+"commands: [{topic: a}]\n", "$.commands[0]: required publish")
	mark(base+"commands: [{topic: a, publish: p, qos: 3}]\n", "$.commands[0].qos: anyOf")
	mark(base+"commands: [{topic: a, publish: p, retain: 'yes'}]\n", "$.commands[0].retain: anyOf")
	mark(base+"commands: [{topic: a, publish: p, offline: kep}]\n", "$.commands[0].offline: anyOf")
	mark(base+"auth: {file: a, mtls: {}}\n", "$.auth: anyOf")
	mark(base+"auth: [{}]\n", "$.auth: anyOf")
	mark(base+"auth: []\n", "$.auth: anyOf")
	mark(base+"auth: {jwt: {key: k, jwks: j}}\n", "$.auth: anyOf")
	mark(base+"acl: [{filter: a}]\n", "$.acl[0]: oneOf")
	mark(base+"acl: [{allow: [read], filter: a}]\n", "$.acl[0].allow[0]: anyOf")
	mark(base+"acl: []\n", "$.acl: minItems")
	mark(cluster("  identities: {a: {client_ids: b}}\n"), "$.kafka.identities.a.client_ids")
	mark(cluster("  sasl: {mechanism: PLAN}\n"), "$.kafka.sasl.mechanism: anyOf")
	mark(listening("    protocol: ws\n"), "$.listeners[0].protocol: anyOf")
	mark(listening("    tls: {key: k}\n"), "$.listeners[0].tls: required certificate")
	mark(base+"log: {level: loud}\n", "$.log.level: anyOf")
	mark(base+"limits: {receive_maximum: 0}\n", "$.limits.receive_maximum: anyOf")
	mark(base+"limits: {receive_maximum: '5'}\n", "$.limits.receive_maximum: anyOf")
	mark(base+"limits: {connect_timeout: 5}\n", "$.limits.connect_timeout: anyOf")
	mark(base+"limits: {max_packet_size: 5Mib s}\n", "$.limits.max_packet_size: anyOf")
	mark(base+"unmatched: {dead_letters: x}\n", "$.unmatched: anyOf")
	mark(base+"refused: drop\n", "$.refused: anyOf")
	mark(strings.Replace(base, "[localhost:9092]", "[]", 1), "$.kafka.brokers: minItems")
	mark(strings.Replace(base, "[localhost:9092]", "x", 1), "$.kafka.brokers: type")
}

// TestTheSchemaDescribesEveryField with the text of the manual and its default.
func TestTheSchemaDescribesEveryField(t *testing.T) {
	whole := schema(t)
	for _, f := range Fields() {
		s := whole
		for part := range strings.SplitSeq(f.Path, ".") {
			name, _, _ := strings.Cut(part, "[")
			s = s["properties"].(map[string]any)[name].(map[string]any)
			switch {
			case s["anyOf"] != nil && strings.HasSuffix(part, "[]"): // one entry may stand there without the list
				s = s["anyOf"].([]any)[0].(map[string]any)
			case strings.HasSuffix(part, "[]"):
				s = s["items"].(map[string]any)
			case strings.HasSuffix(part, "[NAME]"):
				s = s["additionalProperties"].(map[string]any)
			}
		}
		description, _ := s["description"].(string)
		require.True(t, strings.HasPrefix(description, f.Doc), f.Path)
		if f.Default != "" {
			require.Equal(t, strings.Trim(f.Default, `"`), inFull(s["default"]), f.Path)
		}
	}
}

// inFull is how the manual writes a value of the schema: 1000000, not 1e+06.
func inFull(v any) string {
	if n, ok := v.(float64); ok {
		return strconv.FormatFloat(n, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

func document(t *testing.T, src string) any {
	t.Helper()
	var v any
	require.NoError(t, yaml.Unmarshal([]byte(src), &v))
	return v
}

// violations is as much of a JSON Schema validator as the schema needs; an unknown keyword is a violation, so
// that none goes unchecked.
func violations(s map[string]any, v any, path string) (found []string) {
	bad := func(format string, args ...any) { found = append(found, path+": "+fmt.Sprintf(format, args...)) }
	for keyword, rule := range s {
		switch keyword {
		case "$schema", "title", "description", "default":
		case "type":
			if !hasType(v, rule.(string)) {
				bad("type %v", rule)
			}
		case "enum":
			if !slices.Contains(rule.([]any), v) {
				bad("enum")
			}
		case "const":
			if fmt.Sprintf("%v %v", rule, hasType(rule, "string")) != fmt.Sprintf("%v %v", v, hasType(v, "string")) {
				bad("const")
			}
		case "pattern":
			if text, ok := v.(string); ok && !regexp.MustCompile(rule.(string)).MatchString(text) {
				bad("pattern")
			}
		case "minimum", "maximum":
			if hasType(v, "integer") && compare(v, rule) == map[string]int{"minimum": -1, "maximum": 1}[keyword] {
				bad("%s", keyword)
			}
		case "minItems":
			if list, ok := v.([]any); ok && float64(len(list)) < rule.(float64) {
				bad("minItems")
			}
		case "anyOf", "oneOf":
			matching := 0
			for _, alternative := range rule.([]any) {
				if len(violations(alternative.(map[string]any), v, path)) == 0 {
					matching++
				}
			}
			if matching == 0 || keyword == "oneOf" && matching > 1 {
				bad("%s", keyword)
			}
		case "required":
			object, isObject := v.(map[string]any)
			for _, name := range rule.([]any) {
				if _, ok := object[name.(string)]; !ok && isObject {
					bad("required %v", name)
				}
			}
		case "items":
			list, _ := v.([]any)
			for i, entry := range list {
				found = append(found, violations(rule.(map[string]any), entry, fmt.Sprintf("%s[%d]", path, i))...)
			}
		case "properties", "additionalProperties":
			found = append(found, properties(s, keyword, v, path)...)
		default:
			bad("unknown keyword %s", keyword)
		}
	}
	return found
}

func properties(s map[string]any, keyword string, v any, path string) (found []string) {
	known, _ := s["properties"].(map[string]any)
	object, _ := v.(map[string]any)
	for name, value := range object {
		property, ok := known[name].(map[string]any)
		switch additional := s["additionalProperties"].(type) {
		case bool:
			if !ok && !additional && keyword == "additionalProperties" {
				found = append(found, path+"."+name+": additionalProperties")
			}
		case map[string]any:
			if !ok && keyword == "additionalProperties" {
				found = append(found, violations(additional, value, path+"."+name)...)
			}
		}
		if ok && keyword == "properties" {
			found = append(found, violations(property, value, path+"."+name)...)
		}
	}
	return found
}

func hasType(v any, kind string) bool {
	switch v.(type) {
	case string:
		return kind == "string"
	case bool:
		return kind == "boolean"
	case map[string]any:
		return kind == "object"
	case []any:
		return kind == "array"
	case int, int64, uint64:
		return kind == "integer"
	case float64:
		return kind == "number"
	}
	return false
}

func compare(a, b any) int {
	x, _ := new(big.Float).SetString(fmt.Sprint(a))
	y, _ := new(big.Float).SetString(fmt.Sprint(b))
	return x.Cmp(y)
}
