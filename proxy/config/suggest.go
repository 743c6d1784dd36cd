package config

import (
	"fmt"
	"reflect"
	"strings"
)

// unknown reports a field that the struct t at path does not have, and gives the one that was probably meant.
func (d *decoder) unknown(path, given string, t reflect.Type) (meant string) {
	var names []string
	for i := range t.NumField() {
		names = append(names, tag(t.Field(i)))
	}
	meant = nearest(given, names)
	hint := "known here: " + strings.Join(names, ", ")
	if home := d.homeOf(given, path); meant != "" {
		hint = fmt.Sprintf("did you mean %q?", meant)
	} else if home != "" {
		hint = fmt.Sprintf("it belongs under %q", home)
	}
	d.fail("", d.places[join(path, given)].key, "unknown field %q (%s)", given, hint)
	return meant
}

// homeOf finds the section in which a field of this name is known, if there is exactly one besides path.
func (d *decoder) homeOf(field, path string) string {
	if d.known == nil {
		d.known = Fields()
	}
	home := ""
	for _, f := range d.known {
		section, ok := strings.CutSuffix(f.Path, "."+field)
		if !ok || section == path {
			continue
		}
		if home != "" {
			return ""
		}
		home = strings.ReplaceAll(section, "[]", "")
	}
	return home
}

// didYouMean asks for the nearest of the words, if one is near.
func didYouMean(given string, words []string) string {
	best := nearest(given, words)
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// nearest gives the word that differs from given by no more than a slip of the finger, or "".
func nearest(given string, words []string) (best string) {
	distance := len(given)/3 + 1
	for _, w := range words {
		if n := editDistance(strings.ToLower(given), w, distance); n < distance || n == distance && best == "" {
			best, distance = w, n
		}
	}
	return best
}

// editDistance counts insertions, deletions, replacements and swaps of neighbours that make b of a. It gives
// up above limit, so that a name of a megabyte costs nothing.
func editDistance(a, b string, limit int) int {
	if len(a) > len(b)+limit || len(b) > len(a)+limit {
		return limit + 1
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			rows[i][j] = step(rows, a, b, i, j)
		}
	}
	return rows[len(a)][len(b)]
}

// step is one cell of the table of editDistance.
func step(rows [][]int, a, b string, i, j int) int {
	cost := 1
	if a[i-1] == b[j-1] {
		cost = 0
	}
	n := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
	if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
		n = min(n, rows[i-2][j-2]+1)
	}
	return n
}

// oneOf lists words as a sentence does.
func oneOf(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
