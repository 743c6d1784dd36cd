package bench

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	barEvery = 200 * time.Millisecond
	barCells = 20
)

// A Bar shows how far something is, on a terminal that it writes one line of over and over.
type Bar struct {
	w     io.Writer
	width func() int // of the terminal
	stop  chan struct{}
	ended chan struct{}
}

// A State is what a Bar shows: how much of the whole is done, from 0 to 1, and a text beside it.
type State struct {
	Done float64
	Text string
}

// Show begins to show states under a title; Close ends it and leaves an empty line. With w nil nothing is shown. state
// is called on a goroutine of the Bar.
func Show(w io.Writer, width func() int, title string, state func() State) *Bar {
	b := &Bar{w: w, width: width, stop: make(chan struct{}), ended: make(chan struct{})}
	if w == nil {
		close(b.ended)
		return b
	}
	go b.run(title, state) // ends with Close
	return b
}

func (b *Bar) run(title string, state func() State) {
	defer close(b.ended)
	tick := time.NewTicker(barEvery)
	defer tick.Stop()
	for {
		fmt.Fprintf(b.w, "\r%s\x1b[K", barLine(title, state(), b.width()-1))
		select {
		case <-b.stop:
			fmt.Fprint(b.w, "\r\x1b[K")
			return
		case <-tick.C:
		}
	}
}

// Close takes the bar away.
func (b *Bar) Close() {
	close(b.stop)
	<-b.ended
}

// barLine draws the line, cut to a width.
func barLine(title string, s State, width int) string {
	done := min(max(s.Done, 0), 1)
	full := int(done * barCells)
	line := fmt.Sprintf("%-11s [%s%s] %3.0f%%  %s", title, strings.Repeat("#", full), strings.Repeat("-", barCells-full), done*100, s.Text)
	for utf8.RuneCountInString(line) > max(width, 20) {
		_, size := utf8.DecodeLastRuneInString(line)
		line = line[:len(line)-size]
	}
	return line
}
