package auth

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/rs/zerolog"
)

const (
	maxFile = 64 << 20 // bytes; a wrong path, such as that of a log, is not read to its end

	// settle is how long a folder must be quiet before its files are read: a file is often written in pieces.
	settle = 200 * time.Millisecond

	// poll is how often files are read unasked: some file systems do not say that they have changed.
	poll = 30 * time.Second
)

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
	events, faults, stop := f.notice()
	defer stop()
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	quiet := time.NewTimer(0) // a file may have changed since New
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-events:
			quiet.Reset(settle)
			continue
		case <-faults: // such as too many events at once: something has changed
		case <-quiet.C:
		case <-ticker.C:
		}
		for _, w := range f.list {
			f.refresh(w)
		}
	}
}

// notice watches the folders of the files, since what replaces a file, as Kubernetes does by a symbolic link,
// is no event of the file. Where that is not possible there is the poll.
func (f *files) notice() (<-chan fsnotify.Event, <-chan error, func()) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		f.log.Warn().Err(err).Msg("cannot watch the files of authentication; they are read every 30 s")
		return nil, nil, func() {}
	}
	for _, w := range f.list {
		if err := watcher.Add(filepath.Dir(w.path)); err != nil {
			f.log.Warn().Err(err).Str("file", w.path).Msg("cannot watch a file of authentication; it is read every 30 s")
		}
	}
	return watcher.Events, watcher.Errors, func() { watcher.Close() }
}
