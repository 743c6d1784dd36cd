package mqtt

import (
	"slices"
	"sort"
	"strings"
)

// rowsFull is how many rows a chunk has at most.
const rowsFull = 256

// rows are retained messages in the order of their topics, so that a reader who stops anywhere can go on at a topic,
// whatever has changed. They are chunks of a few hundred, none of them empty: with a million rows a change moves some
// kilobytes, and a row costs little more than its place.
type rows struct {
	chunks [][]row
	n      int
}

// A spot is the place of a row, or the one after the last.
type spot struct{ chunk, row int }

// find gives the spot where topic is, or where it would be.
func (t *rows) find(topic string) (s spot, found bool) {
	s.chunk = sort.Search(len(t.chunks), func(i int) bool { return t.chunks[i][0].topic() > topic }) - 1
	if s.chunk < 0 {
		return spot{}, false
	}
	s.row, found = slices.BinarySearchFunc(t.chunks[s.chunk], topic, func(r row, topic string) int {
		return strings.Compare(r.topic(), topic)
	})
	return s, found
}

// seek gives the spot of the first row at or after topic.
func (t *rows) seek(topic string) spot {
	s, _ := t.find(topic)
	if s.chunk < len(t.chunks) && s.row == len(t.chunks[s.chunk]) {
		return spot{s.chunk + 1, 0}
	}
	return s
}

// at gives the row at a spot that seek or after gave; false at the end.
func (t *rows) at(s spot) (row, bool) {
	if s.chunk >= len(t.chunks) {
		return "", false
	}
	return t.chunks[s.chunk][s.row], true
}

// after gives the next spot.
func (t *rows) after(s spot) spot {
	if s.row++; s.row < len(t.chunks[s.chunk]) {
		return s
	}
	return spot{s.chunk + 1, 0}
}

func (t *rows) get(topic string) (row, bool) {
	s, found := t.find(topic)
	if !found {
		return "", false
	}
	return t.at(s)
}

// put enters r and gives the row that it replaced.
func (t *rows) put(r row) (old row) {
	if len(t.chunks) == 0 {
		t.chunks, t.n = [][]row{{r}}, 1
		return ""
	}
	s, found := t.find(r.topic())
	chunk := &t.chunks[s.chunk]
	if found {
		old, (*chunk)[s.row] = (*chunk)[s.row], r
		return old
	}
	t.n++
	*chunk = slices.Insert(*chunk, s.row, r)
	if len(*chunk) > rowsFull {
		t.split(s.chunk)
	}
	return ""
}

// split parts a chunk in the middle, or at its end if it is the last: topics often come in their order.
func (t *rows) split(i int) {
	chunk := t.chunks[i]
	middle := len(chunk) / 2
	if i == len(t.chunks)-1 {
		middle = rowsFull
	}
	t.chunks[i] = slices.Clone(chunk[:middle])
	t.chunks = slices.Insert(t.chunks, i+1, slices.Clone(chunk[middle:]))
}

// remove takes the row of a topic out and gives it, or "".
func (t *rows) remove(topic string) (old row) {
	s, found := t.find(topic)
	if !found {
		return ""
	}
	t.n--
	chunk := t.chunks[s.chunk]
	old = chunk[s.row]
	t.chunks[s.chunk] = slices.Delete(chunk, s.row, s.row+1)
	t.join(s.chunk)
	return old
}

// join gives up a chunk with few rows, in favour of the one after it if that has room.
func (t *rows) join(i int) {
	few, next := t.chunks[i], i+1
	switch {
	case len(few) > rowsFull/8:
		return
	case len(few) == 0:
		t.chunks = slices.Delete(t.chunks, i, next)
	case next < len(t.chunks) && len(t.chunks[next]) <= rowsFull/2:
		t.chunks[i] = slices.Concat(few, t.chunks[next])
		t.chunks = slices.Delete(t.chunks, next, next+1)
	}
}
