package topicmap

import (
	"bytes"
	"errors"
	"strings"

	"github.com/buger/jsonparser"
)

// jsonPath leads from the payload to a value, one step a level.
type jsonPath []jsonStep

// jsonStep is a name of an object or, when it is a number, an index of an array: which of them, the payload says.
type jsonStep struct {
	member  []string // for jsonparser.Get, made once: it takes a slice of keys
	element []string // nil when the step is no index
}

// errEmptyStep is a path with nothing before, after or between its dots.
var errEmptyStep = errors.New("a path in a JSON payload is names and indexes with single dots between them, as in payload.a.0.b")

// payloadSource makes the source of payload.PATH.
func payloadSource(path string) (*source, error) {
	var steps jsonPath
	for step := range strings.SplitSeq(path, ".") {
		if step == "" {
			return nil, errEmptyStep
		}
		steps = append(steps, newJSONStep(step))
	}
	return &source{kind: fromPayload, path: steps}, nil
}

func newJSONStep(text string) jsonStep {
	s := jsonStep{member: []string{text}}
	if arrayIndex(text) {
		s.element = []string{"[" + text + "]"}
	}
	return s
}

// arrayIndex tells whether text is an index as JSON Pointer writes it: digits without a leading zero.
func arrayIndex(text string) bool {
	if len(text) > 9 || len(text) > 1 && text[0] == '0' {
		return false
	}
	return strings.Trim(text, "0123456789") == ""
}

// appendValue appends the string (unescaped), number or boolean (as they are written) at the path.
//
// The payload is read only as far as the value asks: a fault of its JSON elsewhere is not seen. A name that
// stands twice in an object counts where it stands first.
func (p jsonPath) appendValue(dst, payload []byte) ([]byte, bool) {
	value, kind := payload, container(payload)
	for i := range p {
		var ok bool
		if value, kind, ok = p[i].get(value, kind); !ok {
			return dst, false
		}
	}
	switch {
	case kind == jsonparser.String:
		return appendUnescaped(dst, value)
	case kind == jsonparser.Boolean, kind == jsonparser.Number && jsonNumber(value):
		return append(dst, value...), true
	}
	return dst, false
}

// get takes one step down from value, which is of that kind.
func (s *jsonStep) get(value []byte, kind jsonparser.ValueType) ([]byte, jsonparser.ValueType, bool) {
	keys := s.member
	if kind == jsonparser.Array {
		keys = s.element
	}
	if keys == nil || kind != jsonparser.Array && kind != jsonparser.Object {
		return nil, jsonparser.NotExist, false
	}
	value, kind, _, err := jsonparser.Get(value, keys...)
	return value, kind, err == nil
}

// container tells what the payload as a whole is, by its first character.
func container(payload []byte) jsonparser.ValueType {
	trimmed := bytes.TrimLeft(payload, jsonSpace)
	switch {
	case len(trimmed) == 0:
		return jsonparser.NotExist
	case trimmed[0] == '{':
		return jsonparser.Object
	case trimmed[0] == '[':
		return jsonparser.Array
	}
	return jsonparser.NotExist
}

// isJSON tells JSON from other payloads, well enough to name the reason of a refusal: brackets, commas and the values
// at the top are checked, and what stands behind an object or array is not looked at.
func isJSON(payload []byte) bool {
	var err error
	switch container(payload) {
	case jsonparser.Object:
		_, err = jsonparser.GetObjectLen(payload)
	case jsonparser.Array:
		_, err = jsonparser.GetArrayLen(payload)
	default:
		return jsonScalar(payload)
	}
	return err == nil
}

// jsonScalar tells whether the payload is one string, number, boolean or null.
func jsonScalar(payload []byte) bool {
	value, kind, end, err := jsonparser.Get(payload)
	if err != nil || len(bytes.TrimLeft(payload[end:], jsonSpace)) > 0 {
		return false
	}
	return kind != jsonparser.Number || jsonNumber(value)
}

// jsonSpace are the characters JSON allows between its tokens.
const jsonSpace = " \t\r\n"

// appendUnescaped appends the text of a JSON string, for which the bytes behind dst serve as workspace: unescaping
// never makes it longer.
func appendUnescaped(dst, raw []byte) ([]byte, bool) {
	if bytes.IndexByte(raw, '\\') < 0 {
		return append(dst, raw...), true
	}
	n := len(dst)
	dst = append(dst, raw...)
	text, err := jsonparser.Unescape(raw, dst[n:])
	if err != nil {
		return dst[:n], false
	}
	return dst[:n+len(text)], true
}

// jsonNumber checks the whole of what jsonparser calls a number by its first character alone.
func jsonNumber(text []byte) bool {
	text = bytes.TrimPrefix(text, []byte("-"))
	whole := digits(text)
	if whole == 0 || whole > 1 && text[0] == '0' {
		return false
	}
	text = text[whole:]
	if len(text) > 0 && text[0] == '.' {
		fraction := digits(text[1:])
		if fraction == 0 {
			return false
		}
		text = text[1+fraction:]
	}
	return len(text) == 0 || jsonExponent(text)
}

// jsonExponent tells whether text is e or E, a sign or none, and digits.
func jsonExponent(text []byte) bool {
	if text[0] != 'e' && text[0] != 'E' {
		return false
	}
	text = text[1:]
	if len(text) > 0 && (text[0] == '+' || text[0] == '-') {
		text = text[1:]
	}
	return len(text) > 0 && digits(text) == len(text)
}

// digits counts the digits text begins with.
func digits(text []byte) int {
	for i, c := range text {
		if c < '0' || c > '9' {
			return i
		}
	}
	return len(text)
}
