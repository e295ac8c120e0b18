package redispubsub

import (
	"context"
	"log/slog"
)

// journalLength is the number of entries that wait for a slow Logger. Further
// ones are dropped.
const journalLength = 64

// A journal writes to the user's Logger from a goroutine of its own, so that a
// Logger that is slow, or that calls the adapter, delays only the log.
type journal struct {
	engine  *Engine
	entries chan entry
}

type entry struct {
	level slog.Level
	text  string
	args  []any
}

func (j *journal) init(e *Engine) {
	j.engine = e
	j.entries = make(chan entry, journalLength)
}

// add adds an entry, which is written later. It does not wait.
func (j *journal) add(level slog.Level, text string, args ...any) {
	select {
	case j.entries <- entry{level, j.engine.cfg.Name + ": " + text, args}:
	default:
	}
}

// run writes entries until the engine closes, and then those that are left.
func (j *journal) run() {
	for {
		select {
		case en := <-j.entries:
			j.write(en)
		case <-j.engine.ctx.Done():
			for {
				select {
				case en := <-j.entries:
					j.write(en)
				default:
					return
				}
			}
		}
	}
}

func (j *journal) write(en entry) {
	j.engine.cfg.Logger.Log(context.Background(), en.level, en.text, en.args...)
}
