package auth

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"

	"github.com/rs/zerolog"

	"sluice/tls"
)

// maxFile is in bytes; a wrong path, such as that of a log, is not read to its end.
const maxFile = 64 << 20

// A watched file is loaded when its content changes.
type watched struct {
	what string // for messages, and the metric's label
	path string
	load func([]byte) error // keeps what it has if it gives an error
	sum  [sha256.Size]byte  // of what was loaded last, well or not

	unreadable bool // and that was told
}

// files are all that a chain reads. Their watched are touched by New and then by the goroutine of Run alone.
type files struct {
	list    []*watched
	log     zerolog.Logger
	metrics *metrics
}

// add reads and loads a file for the first time.
func (f *files) add(what, path string, load func([]byte) error) error {
	w := &watched{what: what, path: path, load: load}
	if _, err := w.update(); err != nil {
		return err
	}
	f.list = append(f.list, w)
	return nil
}

// update loads the file if it is not what was loaded last.
func (w *watched) update() (changed bool, err error) {
	src, err := readFile(w.path)
	if err != nil {
		return false, fmt.Errorf("cannot read %s %q: %w", w.what, w.path, err)
	}
	sum := sha256.Sum256(src)
	if sum == w.sum {
		return false, nil
	}
	w.sum = sum
	if err := w.load(src); err != nil {
		return true, fmt.Errorf("cannot use %s %q: %w", w.what, w.path, err)
	}
	return true, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	src, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(src) > maxFile {
		err = fmt.Errorf("it is larger than %d bytes", maxFile)
	}
	return src, err
}

// refresh updates one file and tells about it. That a file can't be read is told once.
func (f *files) refresh(w *watched) {
	changed, err := w.update()
	known := w.unreadable
	w.unreadable = err != nil && !changed
	if !changed && (err == nil || known) {
		return
	}
	f.metrics.reload(w.what, err)
	if err != nil {
		f.log.Error().Err(err).Msg("a file of authentication is not taken; what was read before stays")
		return
	}
	f.log.Info().Str("file", w.path).Msg("a file of authentication was read again")
}

// run refreshes files as they change until ctx ends.
func (f *files) run(ctx context.Context) error {
	if len(f.list) == 0 {
		return nil
	}
	paths := make([]string, len(f.list))
	for i, w := range f.list {
		paths[i] = w.path
	}
	return tls.Watch(ctx, f.log, paths, func() {
		for _, w := range f.list {
			f.refresh(w)
		}
	})
}
