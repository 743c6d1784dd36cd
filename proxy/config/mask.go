package config

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// Faults show the line they are in, and a secret may stand there. It can't be left to the decoder to say where: a file
// that is no YAML, or a field with a slip in its name, shows its line too. So the text itself is searched for names that
// look like those of secrets, and what follows them is shown as stars, rather too much of it than too little.

// secretNames are the fields that hold secrets.
var secretNames = secretsOf(reflect.TypeFor[Config](), nil)

// secretsOf adds the secret fields of t, and of what is below it, to names.
func secretsOf(t reflect.Type, names []string) []string {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return secretsOf(t.Elem(), names)
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Type == secretType && !slices.Contains(names, tag(f)) {
				names = append(names, tag(f))
			}
			names = secretsOf(f.Type, names)
		}
	}
	return names
}

// field is the name of a field with its colon; a name that is quoted has its quotes left out.
var field = regexp.MustCompile(`([A-Za-z_][A-Za-z0-9_-]*)["']?[ \t]*:`)

// userinfo is what stands before the host in a URL.
var userinfo = regexp.MustCompile(`://[^/@\s"']*@`)

// secretLike are names of fields that there are elsewhere.
var secretLike = regexp.MustCompile(`(?i)pass|pwd|secret`)

// mask gives the lines of text as they may be shown: with as many stars as there are characters in a secret, so that
// carets stay where they belong.
func mask(text string) []string {
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		lines[i] = userinfo.ReplaceAllStringFunc(lines[i], func(s string) string { return "://" + stars(s[3:len(s)-1]) + "@" })
		line, column, value := maskQuoted(lines[i])
		if lines[i] = line; value < 0 {
			continue
		}
		below := valueBelow{column: column}
		below.read(line[value:])
		lines[i] = line[:value] + stars(line[value:])
		for i+1 < len(lines) && below.has(lines[i+1]) {
			i++
			below.read(lines[i])
			lines[i] = stars(lines[i])
		}
	}
	return lines
}

// quoted is a text in quotation marks that ends in its line.
var quoted = regexp.MustCompile(`^[ \t]*("([^"\\]|\\.)*"|'([^']|'')*')`)

// maskQuoted hides the secrets of a line that are whole texts in quotation marks. It gives the place of the first
// one that is not: where its name and its value begin, or -1.
func maskQuoted(line string) (masked string, column, value int) {
	for from := 0; ; {
		column, value = secretIn(line, from)
		if value < 0 {
			return line, -1, -1
		}
		length := len(quoted.FindString(line[value:]))
		if length == 0 {
			return line, column, value
		}
		hidden := stars(line[value : value+length])
		line = line[:value] + hidden + line[value+length:]
		from = value + len(hidden)
	}
}

// secretIn finds the first field of a line that is a secret, or would be without a slip: where its name and its value
// begin, or -1.
func secretIn(line string, from int) (column, value int) {
	for _, m := range field.FindAllStringSubmatchIndex(line[from:], -1) {
		name := line[from+m[2] : from+m[3]]
		if secretLike.MatchString(name) || nearest(name, secretNames) != "" {
			return from + m[2], from + m[1]
		}
	}
	return -1, -1
}

// valueBelow tells which lines belong to the value of a field, too many of them rather than too few.
type valueBelow struct {
	column int  // of the field
	begun  bool // something was read
	quote  byte // that closes the value; 0: none
}

// read takes one more line of the value.
func (v *valueBelow) read(line string) {
	line = strings.Trim(line, " \t")
	if line == "" || strings.HasPrefix(line, "#") {
		return
	}
	if !v.begun && (line[0] == '"' || line[0] == '\'') {
		v.quote, line = line[0], line[1:]
	}
	v.begun = true
	if v.quote != 0 && strings.IndexByte(line, v.quote) >= 0 {
		v.quote = 0
	}
}

// has tells whether the next line may belong to the value: it is indented deeper, or nothing came yet, or a quotation
// mark is still open.
func (v *valueBelow) has(line string) bool {
	trimmed := strings.TrimLeft(line, " \t")
	return !v.begun || v.quote != 0 || trimmed == "" || len(line)-len(trimmed) > v.column
}

// stars hides every character but blanks.
func stars(s string) string {
	return strings.Map(func(r rune) rune {
		if r == ' ' || r == '\t' {
			return r
		}
		return '*'
	}, s)
}
