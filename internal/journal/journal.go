// Package journal writes log lines to a user's Logger that may be slow, may
// panic, or may call back. It does so in order, on a goroutine of its own that
// exists while there are lines. Adding a line runs no code of the user's, so it
// may happen under a lock and on a connection's reader.
//
//	Info, Warn, Error ─▶ up to 64 lines ─▶ goroutine ─▶ Logger
//	                     (more are counted, and the number is a line)
package journal

import (
	"context"
	"log/slog"
	"runtime"
	"time"

	"github.com/fanoutgo/fanout/internal/locks"
)

// maxLines bounds the lines that wait for the Logger.
const maxLines = 64

// A Journal is made by New. Its methods may be called by anyone.
type Journal struct {
	logger *slog.Logger
	prefix string // of each line
	slow   string // what is said when lines were dropped

	mu      locks.Mutex[locks.Innermost] // guards all below
	lines   []slog.Record
	lost    int // lines that did not fit, since the last one that said so
	running bool
	stopped bool
	idle    chan struct{} // closed when the journal is stopped and nothing runs
}

// New returns a journal that writes lines, which begin with a prefix, to a
// logger. When lines were dropped it says slow, with their number.
func New(logger *slog.Logger, prefix, slow string) *Journal {
	return &Journal{logger: logger, prefix: prefix, slow: prefix + slow, idle: make(chan struct{})}
}

// Info adds a line.
func (j *Journal) Info(msg string, args ...any) { j.add(slog.LevelInfo, msg, args) }

// Warn adds a warning.
func (j *Journal) Warn(msg string, args ...any) { j.add(slog.LevelWarn, msg, args) }

// Error adds an error.
func (j *Journal) Error(msg string, args ...any) { j.add(slog.LevelError, msg, args) }

// add queues a line, or counts it as lost if there are too many.
func (j *Journal) add(level slog.Level, msg string, args []any) {
	var caller [1]uintptr
	runtime.Callers(3, caller[:])
	line := slog.NewRecord(time.Now(), level, j.prefix+msg, caller[0])
	line.Add(args...)
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.stopped:
		return
	case len(j.lines) >= maxLines:
		j.lost++
		return
	}
	j.lines = append(j.lines, line)
	if !j.running {
		j.running = true
		go j.run() // the caller of Stop waits for it
	}
}

// run writes lines until there are none.
func (j *Journal) run() {
	finished := false
	defer func() {
		if !finished { // the Logger has ended the goroutine (runtime.Goexit)
			go j.run()
		}
	}()
	for {
		line, more := j.next()
		if !more {
			finished = true
			return
		}
		j.write(line)
	}
}

// next takes a line. If there is none, the goroutine is over.
func (j *Journal) next() (line slog.Record, more bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case len(j.lines) > 0:
		line = j.lines[0]
		j.lines[0] = slog.Record{}
		j.lines = j.lines[1:]
		return line, true
	case j.lost > 0:
		line = slog.NewRecord(time.Now(), slog.LevelWarn, j.slow, 0)
		line.Add("lines", j.lost)
		j.lost = 0
		return line, true
	}
	j.lines, j.running = nil, false
	if j.stopped {
		close(j.idle)
	}
	return line, false
}

// write calls the Logger. A line that makes it panic is dropped: a process does
// not end because it could not log.
func (j *Journal) write(line slog.Record) {
	defer func() { _ = recover() }()
	if ctx := context.Background(); j.logger.Enabled(ctx, line.Level) {
		_ = j.logger.Handler().Handle(ctx, line) // as slog.Logger does
	}
}

// Stop lets no more lines in, and returns a channel that is closed when those
// that are there have been written. It is called once.
func (j *Journal) Stop() <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.stopped = true
	if !j.running {
		close(j.idle)
	}
	return j.idle
}
