package tls

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/rs/zerolog"
)

const (
	// pollEvery is the time between two looks at the files when nothing was heard of them: not every file system says when
	// a file changes.
	pollEvery = 30 * time.Second
	// settle is the time without changes after which they are looked at: a certificate and its key are two files, and
	// a file may be written in pieces.
	settle = 200 * time.Millisecond
)

// Watch calls look when it begins, after changes in the folders of files, once they are quiet, and every 30 s, until ctx
// ends. look is called by one goroutine, that of Watch.
func Watch(ctx context.Context, log zerolog.Logger, files []string, look func()) error {
	return watch(ctx, log, files, pollEvery, look)
}

// watch calls look after changes in the folders of files, and every poll, until ctx ends.
func watch(ctx context.Context, log zerolog.Logger, files []string, poll time.Duration, look func()) error {
	heard, stop := listen(log, files)
	defer stop()
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	quiet := time.NewTimer(0) // what changed before the watch began
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-heard.Events:
			quiet.Reset(settle)
		case <-heard.Errors: // some may have been lost
			quiet.Reset(settle)
		case <-quiet.C:
			look()
		case <-ticker.C:
			look()
		}
	}
}

// listen hears of changes in the folders of files. It watches folders, since files are replaced, and by some, as by
// Kubernetes, through a link somewhere else in the folder. Where it can't, polling has to do.
func listen(log zerolog.Logger, files []string) (*fsnotify.Watcher, func()) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn().Err(err).Msg("cannot watch files, they are only read now and then")
		return new(fsnotify.Watcher), func() {} // its channels are nil and never say anything
	}
	var folders []string
	for _, name := range files {
		folders = append(folders, filepath.Dir(name))
	}
	slices.Sort(folders)
	for _, folder := range slices.Compact(folders) {
		if err := w.Add(folder); err != nil {
			log.Warn().Err(err).Str("folder", folder).Msg("cannot watch files, they are only read now and then")
		}
	}
	return w, func() { w.Close() }
}
