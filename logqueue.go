package fanout

import (
	"context"
	"log/slog"
	"runtime"
	"time"

	"github.com/fanoutgo/fanout/internal/locks"
)

const (
	// maxLogLines bounds the lines that wait for Options.Logger.
	maxLogLines = 64
	// logPatience is how long Hub.Close waits for Options.Logger after
	// everything else has ended.
	logPatience = time.Second
)

// A logQueue hands log lines to Options.Logger, in order, on a goroutine of its
// own, which exists while there are lines. Adding a line runs no code of the
// user's, so it may happen under a lock and on the adapter's reader.
type logQueue struct {
	logger *slog.Logger

	mu      locks.Mutex[locks.Innermost] // guards all below. Innermost
	lines   []slog.Record
	lost    int // lines that did not fit, since the last one that said so
	running bool
	stopped bool
	idle    chan struct{} // closed when the queue is stopped and nothing runs
}

func newLogQueue(logger *slog.Logger) *logQueue {
	return &logQueue{logger: logger, idle: make(chan struct{})}
}

func (q *logQueue) info(msg string, args ...any)  { q.add(slog.LevelInfo, msg, args) }
func (q *logQueue) warn(msg string, args ...any)  { q.add(slog.LevelWarn, msg, args) }
func (q *logQueue) error(msg string, args ...any) { q.add(slog.LevelError, msg, args) }

// add queues a line, or counts it as lost if the queue is full.
func (q *logQueue) add(level slog.Level, msg string, args []any) {
	var caller [1]uintptr
	runtime.Callers(3, caller[:])
	line := slog.NewRecord(time.Now(), level, msg, caller[0])
	line.Add(args...)
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.stopped:
		return
	case len(q.lines) >= maxLogLines:
		q.lost++
		return
	}
	q.lines = append(q.lines, line)
	if !q.running {
		q.running = true
		go q.run() // stop waits for it
	}
}

// run writes lines until there are none.
func (q *logQueue) run() {
	finished := false
	defer func() {
		if !finished { // the Logger has ended the goroutine (runtime.Goexit)
			go q.run()
		}
	}()
	for {
		line, more := q.next()
		if !more {
			finished = true
			return
		}
		q.write(line)
	}
}

// next takes a line. If there is none, the goroutine is over.
func (q *logQueue) next() (line slog.Record, more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case len(q.lines) > 0:
		line = q.lines[0]
		q.lines[0] = slog.Record{}
		q.lines = q.lines[1:]
		return line, true
	case q.lost > 0:
		line = slog.NewRecord(time.Now(), slog.LevelWarn, "fanout: log lines dropped, Options.Logger is too slow", 0)
		line.Add("lines", q.lost)
		q.lost = 0
		return line, true
	}
	q.lines, q.running = nil, false
	if q.stopped {
		close(q.idle)
	}
	return line, false
}

// write calls the Logger. A line that makes it panic is dropped: a process does
// not end because it could not log.
func (q *logQueue) write(line slog.Record) {
	defer func() { _ = recover() }()
	if ctx := context.Background(); q.logger.Enabled(ctx, line.Level) {
		_ = q.logger.Handler().Handle(ctx, line) // as slog.Logger does
	}
}

// stop ends the queue and waits until its lines are written, no longer than a
// time. It reports whether they are. It is called once.
func (q *logQueue) stop(patience time.Duration) bool {
	q.mu.Lock()
	q.stopped = true
	if !q.running {
		close(q.idle)
	}
	q.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-q.idle:
		return true
	case <-timer.C:
		return false
	}
}
