package config

import (
	"fmt"
	"reflect"
	"strings"
)

// suggestion says what may have been meant by an unknown field of the struct t at path.
func (d *decoder) suggestion(path, unknown string, t reflect.Type) string {
	var names []string
	for i := range t.NumField() {
		names = append(names, tag(t.Field(i)))
	}
	if s := didYouMean(unknown, names); s != "" {
		return s
	}
	if home := d.homeOf(unknown, path); home != "" {
		return fmt.Sprintf(" (it belongs under %q)", home)
	}
	return fmt.Sprintf(" (known here: %s)", strings.Join(names, ", "))
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

// didYouMean gives the nearest of the words if it is near enough to be a slip of the finger.
func didYouMean(given string, words []string) string {
	best, distance := "", len(given)/3+1
	for _, w := range words {
		if n := editDistance(strings.ToLower(given), w, distance); n <= distance && (best == "" || n < distance) {
			best, distance = w, n
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
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
