package migrate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

// markKeep is for how long the new backend remembers what was copied.
var markKeep = adapter.Retention{Messages: 2, Age: 30 * 24 * time.Hour}

// A mark says at the new backend that the copy of a history is complete, so
// that the old backend is not asked again. It is an entry of a history of its
// own.
type mark struct {
	Head   adapter.Position
	Before []adapter.PastEpoch `json:",omitempty"`
	Agreed uint64
	Unsure bool `json:",omitempty"`
	Epoch  uint64
}

const (
	markText = "migrate1 copied "

	// The numbers of the entries. If there are both, the later one counts.
	markComplete = 1
	markLost     = 2 // the new backend has lost the copy: there is none
)

// besideOf returns the name of a channel of the migration that belongs to a
// channel of the hub's.
func (a *Adapter) besideOf(what, channel string) string {
	sum := sha256.Sum256([]byte(channel))
	return a.beside(what + ":" + hex.EncodeToString(sum[:16]))
}

// readMark returns the copy of a channel if it is known to be complete, and
// otherwise nil.
func (a *Adapter) readMark(ctx context.Context, channel string) (*historyCopy, error) {
	page, err := a.to.historian.History(ctx, a.besideOf("copied", channel), adapter.Query{
		Limit: markKeep.Messages, Keep: markKeep, Time: time.Now(),
	})
	if err != nil || len(page.Frames) == 0 {
		return nil, err
	}
	text, ok := strings.CutPrefix(string(page.Frames[len(page.Frames)-1].Frame), markText)
	var m mark
	if !ok || json.Unmarshal([]byte(text), &m) != nil {
		return nil, nil
	}
	return &historyCopy{head: m.Head, before: m.Before, agreed: m.Agreed, unsure: m.Unsure, epoch: m.Epoch, marked: true}, nil
}

// writeMark says that a copy is complete, or lost. If that fails, hubs that do
// not know the copy read the old history's head, and settling tries again.
func (a *Adapter) writeMark(ctx context.Context, channel string, c *historyCopy, number uint64) error {
	text, err := json.Marshal(mark{Head: c.head, Before: c.before, Agreed: c.agreed, Unsure: c.unsure, Epoch: c.epoch})
	if err != nil {
		return err // cannot happen
	}
	_, _, err = a.to.historian.Append(ctx, a.besideOf("copied", channel), adapter.Record{
		Frame: append([]byte(markText), text...), Messages: 1, Keep: markKeep, Time: time.Now(),
		Publisher: logPublisher, Stream: 1, Seq: number,
	})
	if err != nil {
		a.log.Debug("migrate: a copy was not marked as complete", "channel", channel, "error", err)
		return fmt.Errorf("mark the copy of %q: %w", channel, err)
	}
	return nil
}

// beganAtNew reports whether a history has begun at the new backend, with
// nothing to copy: it has messages, and no hub has claimed to copy it.
func (a *Adapter) beganAtNew(ctx context.Context, channel string, keep adapter.Retention) bool {
	now, err := a.to.historian.History(ctx, channel, adapter.Query{Keep: keep, Time: time.Now()})
	if err != nil || now.Head.IsZero() {
		return false
	}
	one := claim{adapter: a, channel: a.besideOf("copy", channel)}
	claims, _, err := one.read(ctx)
	return err == nil && claims == 0
}
