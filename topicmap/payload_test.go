package topicmap

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// payloadValue reads payload.PATH.
func payloadValue(tb testing.TB, path, payload string) (string, bool) {
	tb.Helper()
	s, err := payloadSource(path)
	require.NoError(tb, err)
	prefix := []byte("before ")
	got, ok := s.appendTo(prefix, subject{msg: &Message{Payload: []byte(payload)}}, &scratch{})
	require.True(tb, bytes.HasPrefix(got, prefix), "what was there stays")
	return string(got[len(prefix):]), ok
}

func TestPayloadPathFindsItsValue(t *testing.T) {
	f := func(path, payload, want string) {
		t.Helper()
		got, ok := payloadValue(t, path, payload)
		require.True(t, ok)
		require.Equal(t, want, got)
	}
	f("a", `{"a":"x"}`, "x")
	f("a", ` { "b" : {"a":1} , "a" : "x" } `, "x")
	f("a.b.c", `{"a":{"b":{"c":"x"}}}`, "x")
	f("a.0.b", `{"a":[{"b":"x"},{"b":"y"}]}`, "x")
	f("a.1.b", `{"a":[{"b":"x"},{"b":"y"}]}`, "y")
	f("a.0.b", `{"a":{"0":{"b":"member"}}}`, "member")
	f("a.007", `{"a":{"007":"bond"}}`, "bond")
	f("1", `["x","y"]`, "y")
	f("1.0", "\n[[],[\"y\"]]", "y")
	f("a", `{"a":""}`, "")
	f("a", `{"a":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"}`, "\"\\/\b\f\n\r\té😀")
	f("é", `{"\u00e9":true}`, "true")
	f("a", `{"a":false}`, "false")
	f("a", `{"a":-0.50E+07}`, "-0.50E+07")
	f("a", `{"a":12345678901234567890123}`, "12345678901234567890123")
	f("a", `{"a":1,"a":2}`, "1")
	f("b", `{"a":"b","b":"x"}`, "x")
	f("b", `{"a":"}\"b\":1","b":"x"}`, "x")
	f("b", `{"a":["b",{"b":1}],"b":"x"}`, "x")
}

func TestPayloadPathWithoutValueIsMissing(t *testing.T) {
	f := func(path, payload string) {
		t.Helper()
		got, ok := payloadValue(t, path, payload)
		require.False(t, ok, got)
		require.Empty(t, got)
	}
	for _, container := range []string{`null`, `{}`, `[]`, `{"b":1}`, `[1]`} {
		f("a", `{"a":`+container+`}`)
		f("0", `[`+container+`]`)
	}
	f("a", `{"b":{"a":1}}`)
	f("a.b", `{"a":"{\"b\":1}"}`)
	f("a.0", `{"a":"[1]"}`)
	f("a", `"a"`)
	f("a", `1`)
	f("1", `["x"]`)
	f("01", `["x","y"]`)
	f("+0", `["x"]`)
	f("-1", `["x"]`)
	f("a", `["a"]`)
	f("0", `{"a":["x"]}`)
	f("99999999999999999999", `["x"]`)
	f("[0]", `["x"]`)
	for _, broken := range []string{"", " ", "{", "[", `{"a`, `{"a"`, `{"a":`, `{"a":"x`, `{"a":"\x"}`, `{"a":"\u12"}`,
		`{"a":01}`, `{"a":1x}`, `{"a":-}`, `{"a":1.}`, `{"a":1e}`, `{"a":1e+}`, `{"a":+1}`, `{"a":tru}`, `{'a':'x'}`, "\xef\xbb\xbf{}"} {
		f("a", broken)
	}
}

// TestIsJSONTellsWhyAValueIsMissing: a refusal names the reason that helps.
func TestIsJSONTellsWhyAValueIsMissing(t *testing.T) {
	for _, yes := range []string{`{}`, ` [1, "a", {"b": null}] `, `"x"`, `-1.5e3`, ` null `, `true`} {
		require.True(t, isJSON([]byte(yes)), yes)
	}
	for _, no := range []string{``, ` `, `hello`, `12 degrees`, `012`, `"x`, `{"a":1`, `{"a":1,}`, `[1,2`, `{a:1}`, `<x/>`, `nul`, "\x00", `{"a":[1}`} {
		require.False(t, isJSON([]byte(no)), no)
	}
	rapid.Check(t, func(t *rapid.T) {
		payload, err := json.Marshal(drawJSON(t, 3))
		require.NoError(t, err)
		require.True(t, isJSON(payload), "%s", payload)
	})
}

// drawJSON draws a value with at most depth containers one in another.
func drawJSON(t *rapid.T, depth int) any {
	kind := rapid.IntRange(0, 6).Draw(t, "kind")
	if depth == 0 {
		kind %= 5
	}
	switch kind {
	case 0:
		return nil
	case 1:
		return rapid.Bool().Draw(t, "bool")
	case 2:
		return json.Number(strconv.FormatFloat(rapid.Float64Range(-1e30, 1e30).Draw(t, "number"), 'g', -1, 64))
	case 3, 4:
		return drawText(t)
	case 5:
		return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) any { return drawJSON(t, depth-1) }), 0, 4).Draw(t, "array")
	}
	return rapid.MapOfN(jsonNames, rapid.Custom(func(t *rapid.T) any { return drawJSON(t, depth-1) }), 0, 4).Draw(t, "object")
}

// jsonNames are few, so that paths hit often, and nasty.
var jsonNames = rapid.SampledFrom([]string{"a", "b", "0", "1", "01", "é", `q"uote`, `back\slash`, "]", "}", "{", "[0]", ":", "new\nline"})

func drawText(t *rapid.T) string {
	if rapid.Bool().Draw(t, "nasty") {
		return jsonNames.Draw(t, "text")
	}
	return rapid.String().Draw(t, "text")
}

// lookUp is the reference: encoding/json, and one map or slice at a time.
func lookUp(value any, steps []string) (string, bool) {
	for _, step := range steps {
		switch v := value.(type) {
		case map[string]any:
			value = v[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(v) || strconv.Itoa(i) != step {
				return "", false
			}
			value = v[i]
		default:
			return "", false
		}
	}
	switch v := value.(type) {
	case string:
		return v, true
	case bool, json.Number:
		return fmt.Sprint(v), true
	}
	return "", false
}

// TestPayloadPathAgreesWithEncodingJSON on every JSON text, compact, indented and with escapes.
func TestPayloadPathAgreesWithEncodingJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := drawJSON(t, 3)
		payload, err := json.Marshal(value)
		require.NoError(t, err)
		if rapid.Bool().Draw(t, "indent") {
			payload, err = json.MarshalIndent(value, "", " ")
			require.NoError(t, err)
		}
		steps := rapid.SliceOfN(jsonNames, 1, 4).Draw(t, "path")
		s, err := payloadSource(strings.Join(steps, "."))
		require.NoError(t, err)
		got, ok := s.path.appendValue(nil, payload)
		want, wantOK := lookUp(value, steps)
		require.Equal(t, wantOK, ok, "%s in %s", steps, payload)
		require.Equal(t, want, string(got), "%s in %s", steps, payload)
	})
}

// FuzzPayloadPath: no payload makes it panic, and where the payload is JSON in which no object has a name twice, it
// agrees with encoding/json.
func FuzzPayloadPath(f *testing.F) {
	f.Add("a.0.b", []byte(`{"a":[{"b":"x\u00e9"}]}`))
	f.Add("a", []byte(`{"some":0}some":[{"some":[{"some":"some"}]}]}some"}]}],"some":"some"}`))
	f.Add("type", []byte(`{}"":`))
	f.Add("0", []byte(`[`))
	f.Add("a.b", []byte(`{"a":{"b":-1e5}}`))
	f.Fuzz(func(t *testing.T, path string, payload []byte) {
		s, err := payloadSource(path)
		if err != nil {
			return
		}
		got, ok := s.path.appendValue(nil, payload)
		if json.Valid(payload) && !isJSON(payload) {
			t.Fatalf("JSON taken for something else: %q", payload)
		}
		value, unique := decodeJSON(payload)
		if !unique || !utf8.Valid(payload) || bytes.Contains(bytes.ToLower(payload), []byte(`\ud`)) {
			return // encoding/json keeps the last of two names, and replaces what is not Unicode
		}
		want, wantOK := lookUp(value, strings.Split(path, "."))
		if ok != wantOK || string(got) != want {
			t.Fatalf("%q in %q: got %q %v, want %q %v", path, payload, got, ok, want, wantOK)
		}
	})
}

// decodeJSON decodes a payload; false when it is no JSON or has a name twice in one object.
func decodeJSON(payload []byte) (value any, unique bool) {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	if !json.Valid(payload) || d.Decode(&value) != nil {
		return nil, false
	}
	return value, membersWritten(payload) == membersKept(value)
}

// membersWritten counts the colons between strings and values.
func membersWritten(payload []byte) int {
	n, inString := 0, false
	for i := 0; i < len(payload); i++ {
		switch payload[i] {
		case '\\':
			i++
		case '"':
			inString = !inString
		case ':':
			if !inString {
				n++
			}
		}
	}
	return n
}

// membersKept counts the members of all objects in value.
func membersKept(value any) int {
	n := 0
	switch v := value.(type) {
	case map[string]any:
		n = len(v)
		for _, member := range v {
			n += membersKept(member)
		}
	case []any:
		for _, element := range v {
			n += membersKept(element)
		}
	}
	return n
}
