package migrate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/backoff"
	"github.com/fanoutgo/fanout/internal/wire"
)

// copies are the histories that this hub has copied, or found copied.
type copies struct {
	mu     sync.Mutex
	known  map[string]*copying
	clock  uint64           // the new backend's clock is not before this, in ms since 1970
	doubts map[string]doubt // of channels at the old backend
}

// A copying is a copy that is being made, or is complete.
type copying struct {
	done   chan struct{}
	result historyCopy
	err    error
}

const (
	// maxCopies is how many copies are remembered. If a forgotten copy is needed,
	// its mark is read again, or the heads of both histories if it has no mark.
	maxCopies = 10_000

	// copyPage and copyBytes bound a page that is copied.
	copyPage  = 2048
	copyBytes = 2 << 20
)

// lose notes that the new backend has lost a copy, unless that was noted. The
// history there has begun anew, and nothing is copied into it.
func (c *copies) lose(channel string, lost *historyCopy) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	one := c.known[channel]
	if one == nil || &one.result != lost {
		return false
	}
	none := &copying{done: make(chan struct{})}
	close(none.done)
	c.known[channel] = none
	return true
}

// makeRoomLocked forgets copies that are complete until there is room for one.
// One that is being made stays, so that a hub does not make it twice.
func (c *copies) makeRoomLocked() {
	for name, one := range c.known {
		if len(c.known) < maxCopies {
			return
		}
		select {
		case <-one.done:
			delete(c.known, name)
		default:
		}
	}
}

// copyOf copies the history of a channel, unless it has been copied before.
// Several hubs may call it for one channel at the same time.
func (a *Adapter) copyOf(ctx context.Context, channel string, keep adapter.Retention) (*historyCopy, error) {
	for {
		a.copies.mu.Lock()
		if a.copies.known == nil {
			a.copies.known = make(map[string]*copying)
		}
		one := a.copies.known[channel]
		mine := one == nil
		if mine {
			a.copies.makeRoomLocked()
			one = &copying{done: make(chan struct{})}
			a.copies.known[channel] = one
		}
		a.copies.mu.Unlock()
		if mine {
			one.result, one.err = a.copyHistory(ctx, channel, keep)
			if one.err != nil {
				a.copies.mu.Lock()
				if a.copies.known[channel] == one {
					delete(a.copies.known, channel)
				}
				a.copies.mu.Unlock()
			}
			if one.err == nil {
				a.copied(channel, &one.result)
			}
			close(one.done)
		}
		select {
		case <-one.done:
		case <-ctx.Done():
			return nil, fmt.Errorf("its history is being copied: %w", context.Cause(ctx))
		}
		if one.err == nil {
			return &one.result, nil
		}
		if mine || ctx.Err() != nil {
			return nil, fmt.Errorf("copy its history: %w", one.err)
		}
	}
}

// headIn bounds the question for the head of the old history, so that an old
// backend that is down does not stop rooms that do not need it.
const headIn = 2 * time.Second

// copyHistory returns the copy of a history. It makes the copy if there is
// none.
func (a *Adapter) copyHistory(ctx context.Context, channel string, keep adapter.Retention) (historyCopy, error) {
	if c, err := a.readMark(ctx, channel); err != nil {
		return historyCopy{}, err
	} else if c != nil {
		return *c, nil
	}
	old, err := a.headOfOld(ctx, channel, keep)
	switch {
	case err != nil && a.beganAtNew(ctx, channel, keep):
		return historyCopy{}, nil
	case err != nil || old.Head.IsZero():
		return historyCopy{}, err
	}
	c := historyCopy{head: old.Head, before: old.Before}
	if err := a.makeCopy(ctx, channel, keep, &c); err != nil {
		return c, err
	}
	if !c.head.IsZero() && !c.marked {
		c.marked = a.writeMark(ctx, channel, &c, markComplete) == nil
	}
	return c, nil
}

func (a *Adapter) headOfOld(ctx context.Context, channel string, keep adapter.Retention) (adapter.Page, error) {
	ctx, cancel := context.WithTimeout(ctx, headIn)
	defer cancel()
	return a.from.historian.History(ctx, channel, adapter.Query{Keep: keep, Time: time.Now()})
}

// makeCopy brings the history at the new backend to where that of the old one
// ended. The hub that has claimed the channel does it, and the others wait for
// its mark. If both backends have the same history, the copy becomes zero.
func (a *Adapter) makeCopy(ctx context.Context, channel string, keep adapter.Retention, c *historyCopy) error {
	head := adapter.Query{Keep: keep, Time: time.Now()}
	first := firstEpoch(&adapter.Page{Head: c.head, Before: c.before})
	one := claim{adapter: a, channel: a.besideOf("copy", channel)}
	pause := backoff.Backoff{First: claimPause}
	var mineUpTo uint64 // this call has copied up to here
	for {
		now, err := a.to.historian.History(ctx, channel, head)
		if err != nil {
			return err
		}
		begun, err := a.isOther(ctx, &now, c, &one)
		switch {
		case err != nil:
			return err
		case begun, firstEpoch(&now) == first:
			*c = historyCopy{}
			return nil
		}
		if over, err := c.over(&now); over || err != nil {
			if over {
				c.agreed, c.unsure, err = a.agreedUpTo(ctx, channel, keep, c, c.epoch, c.agreed)
			}
			return err
		}
		mine, err := one.hold(ctx)
		switch {
		case err != nil:
			return err
		case !mine:
			if made, err := a.awaitOther(ctx, channel, c, &pause); made || err != nil {
				return err
			}
			continue
		}
		if at := min(now.Head.Offset, c.head.Offset); at > mineUpTo {
			if ended, err := a.endsBefore(ctx, channel, keep, c, now.Head.Epoch, at); ended || err != nil {
				return err
			}
		}
		switch {
		case now.Head.Offset >= c.head.Offset:
			c.epoch, c.agreed = now.Head.Epoch, c.head.Offset
			return nil
		case now.Head.IsZero():
			if err := a.awaitClock(ctx, c.head.Epoch); err != nil {
				return err
			}
		}
		w := copyWriter{Adapter: a, channel: channel, keep: keep, at: now.Head.Offset}
		err = a.copyPage(ctx, &w, c, &one)
		mineUpTo = w.at
		switch {
		case errors.Is(err, errOvertaken):
			backoff.Sleep(ctx, claimPause) // the next reading shows whether another hub has copied or published it
		case err != nil:
			return err
		}
	}
}

// awaitOther waits a moment for the hub that copies, and reports whether its
// copy is complete.
func (a *Adapter) awaitOther(ctx context.Context, channel string, c *historyCopy, pause *backoff.Backoff) (made bool, err error) {
	mark, err := a.readMark(ctx, channel)
	switch {
	case err != nil:
		return false, err
	case mark != nil:
		*c = *mark
		return true, nil
	case !pause.Wait(ctx):
		return false, context.Cause(ctx)
	}
	return false, nil
}

// isOther reports whether a history at the new backend is neither a copy nor
// the beginning of one: it has messages, and no hub has claimed to copy it.
// Then a hub that has only the new backend has begun it.
func (a *Adapter) isOther(ctx context.Context, now *adapter.Page, c *historyCopy, one *claim) (bool, error) {
	if now.Head.IsZero() || firstEpoch(now) <= c.head.Epoch || !one.since.IsZero() {
		return false, nil
	}
	claims, _, err := one.read(ctx)
	return err == nil && claims == 0, err
}

// over reports whether the copy has ended, given the head of the new history.
// It has if a newer epoch has begun there: what the history lacks by then is
// lost.
func (c *historyCopy) over(now *adapter.Page) (bool, error) {
	switch {
	case now.Head.IsZero():
		return false, nil
	case firstEpoch(now) <= c.head.Epoch:
		return false, fmt.Errorf("%w: %w: the new backend has a history that is older than the old one's: delete it there",
			adapter.ErrRefused, adapter.ErrBrokenHistory)
	case len(now.Before) > 0:
		c.epoch, c.agreed = now.Before[0].Epoch, min(c.head.Offset, now.Before[0].Last)
		return true, nil
	}
	return false, nil
}

// firstEpoch returns the epoch in which a history began.
func firstEpoch(p *adapter.Page) uint64 {
	if len(p.Before) > 0 {
		return p.Before[0].Epoch
	}
	return p.Head.Epoch
}

// copyPage copies some frames of the old history, from the one after w.at on.
// It puts fillers in the place of frames that are no longer kept, so that all
// frames have the same offset in both histories. It returns early when the
// claim is no longer certainly held.
func (a *Adapter) copyPage(ctx context.Context, w *copyWriter, c *historyCopy, one *claim) error {
	q := adapter.Query{Since: c.positionOf(w.at), Limit: copyPage, Bytes: copyBytes, Keep: w.keep, Time: time.Now()}
	page, err := a.from.historian.History(ctx, w.channel, q)
	if err != nil {
		return err
	}
	for i := range page.Frames {
		f := &page.Frames[i]
		if f.At.Offset <= w.at { // the old backend has lost its history and begun another one
			continue
		}
		first := max(w.at+1, firstOf(f, &page))
		if err := w.fill(ctx, first-1, one); err != nil || !one.held() {
			return err
		}
		if err := w.append(ctx, f.Frame, f.At.Offset); err != nil {
			return err
		}
	}
	if page.More {
		return nil
	}
	return w.fill(ctx, c.head.Offset, one)
}

// positionOf returns where an offset was at the old backend.
func (c *historyCopy) positionOf(offset uint64) adapter.Position {
	if offset == 0 {
		return adapter.Position{}
	}
	for _, past := range c.before {
		if offset <= past.Last {
			return adapter.Position{Epoch: past.Epoch, Offset: offset}
		}
	}
	return adapter.Position{Epoch: c.head.Epoch, Offset: offset}
}

// firstOf returns the offset of the first message of a frame of a page. For a
// frame that cannot be read, such as one of a later release, it returns where
// the page begins. Pages are contiguous, so only the first frame of a page can
// begin there. Any other one begins where the one before it ends.
func firstOf(f *adapter.KeptFrame, page *adapter.Page) uint64 {
	head, _, err := wire.Decode(f.Frame)
	if err != nil {
		return min(page.First, f.At.Offset)
	}
	return f.At.Offset - min(f.At.Offset, uint64(head.Count)) + 1
}

// A copyWriter appends copies to the history of a channel at the new backend.
type copyWriter struct {
	*Adapter
	channel string
	keep    adapter.Retention
	at      uint64 // the offset of what was appended last
}

// fill appends fillers up to an offset, as long as the claim is held.
func (w *copyWriter) fill(ctx context.Context, upTo uint64, one *claim) error {
	for w.at < upTo && one.held() {
		n := min(upTo-w.at, fillerMost)
		if err := w.append(ctx, filler(w.at+1, n), w.at+n); err != nil {
			return err
		}
	}
	return nil
}

// errOvertaken says that another hub has already copied the frame, or a part of
// what a filler stands for, or has published another frame in its place.
var errOvertaken = errors.New("another hub has copied that")

// append appends a frame that has the offsets up to last.
func (w *copyWriter) append(ctx context.Context, frame []byte, last uint64) error {
	first := w.at + 1
	at, _, err := w.to.historian.Append(ctx, w.channel, adapter.Record{
		Frame: frame, Messages: int(last - w.at), Keep: w.keep, Time: time.Now(),
		Publisher: logPublisher + ":" + w.name, Stream: 1, Seq: first,
	})
	if err != nil {
		return err
	}
	switch {
	case at.Offset == last:
		w.at = last
		return nil
	case at.Offset <= w.at:
		return fmt.Errorf("%w: %w: offset %d of the old history came to be %d in the new one",
			adapter.ErrRefused, adapter.ErrBrokenHistory, last, at.Offset)
	}
	return errOvertaken
}

// awaitClock waits until the new backend's clock is beyond an epoch of the old
// one, since epochs must grow. It reads that clock by appending to a history
// that exists for this alone.
func (a *Adapter) awaitClock(ctx context.Context, epoch uint64) error {
	for {
		a.copies.mu.Lock()
		clock := a.copies.clock
		a.copies.mu.Unlock()
		if clock > epoch {
			return nil
		}
		name := a.beside("clock:" + rand.Text())
		at, _, err := a.to.historian.Append(ctx, name, adapter.Record{
			Frame: []byte("migrate1 clock"), Messages: 1, Time: time.Now(),
			Keep: adapter.Retention{Messages: 1, Age: time.Second},
		})
		if err != nil {
			return err
		}
		a.copies.mu.Lock()
		a.copies.clock = max(a.copies.clock, at.Epoch)
		a.copies.mu.Unlock()
		if at.Epoch > epoch {
			return nil
		}
		wait := min(time.Duration(epoch-at.Epoch+1)*time.Millisecond, time.Second)
		if !backoff.Sleep(ctx, wait) {
			return fmt.Errorf("the new backend's clock is %d ms behind the old one's: %w", epoch-at.Epoch, context.Cause(ctx))
		}
	}
}
