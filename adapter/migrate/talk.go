package migrate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/migrate/internal/flip"
	"github.com/fanoutgo/fanout/internal/backoff"
)

// The names of the log that the hubs share, and of the note at the new backend
// that they have flipped.
const (
	logPublisher = "migrate"
	noteText     = "migrate1 flipped"
)

// logKeep is more than the log ever has: a join for each start of a hub.
var logKeep = adapter.Retention{Messages: 10_000, Age: 366 * 24 * time.Hour}

// talkIn bounds each call of a backend that the talk makes.
const talkIn = 2 * time.Second

// pendingFor is how long a subscription at the new backend may take before the
// hub says that it does not listen to both.
const pendingFor = 2 * time.Second

// wake has the goroutine of talk ask the node what to do.
func (a *Adapter) wake() {
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

// talk does what the node says until the adapter is closed.
func (a *Adapter) talk() {
	phase := flip.Asking
	for a.life.Err() == nil {
		do, now := a.next()
		if now != phase {
			a.log.Info("migrate: the hub is in another phase", "migration", a.name, "phase", now.String())
			if now == flip.Flipped {
				a.flipChannels()
				a.start(a.settleAll)
			}
			phase = now
		}
		if !do.Nothing() {
			a.perform(&do)
			continue
		}
		timer := time.NewTimer(time.Until(do.Wake))
		select {
		case <-timer.C:
		case <-a.kick:
		case <-a.life.Done():
		}
		timer.Stop()
	}
}

// next asks the node what is to be done, and where it stands.
func (a *Adapter) next() (do flip.Do, phase flip.Phase) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	ready := a.heardNew && !a.deafNew && a.newDown == 0
	for _, since := range a.pending {
		ready = ready && now.Sub(since) < pendingFor
	}
	a.node.SetReady(ready)
	a.changeLocked()
	a.node.SetIdle(a.phase == flip.Pausing && a.inflight == 0 && len(a.pending) == 0)
	do = a.node.Next(now)
	a.changeLocked()
	if do.Announce != nil {
		do.Announce.Hub = a.hub
	}
	return do, a.phase
}

// changeLocked takes over the phase of the node.
func (a *Adapter) changeLocked() {
	phase := a.node.Phase()
	if phase == a.phase {
		return
	}
	a.phase = phase
	a.flipped.Store(phase == flip.Flipped)
	close(a.changed)
	a.changed = make(chan struct{})
}

// perform does what the node says.
func (a *Adapter) perform(do *flip.Do) {
	if do.Announce != nil {
		a.announce(do.Announce)
	}
	if do.Probe {
		count := a.count()
		a.update(func(time.Time) { a.node.Counted(count) })
	}
	var err error
	if do.Append != nil {
		err = a.appendEntry(do.Append)
	}
	if do.Read && err == nil {
		err = a.readLog()
	}
	if err != nil {
		a.update(a.node.Failed)
	}
	if do.Note && a.writeNote() == nil {
		a.update(func(time.Time) { a.node.Noted() })
	}
}

func (a *Adapter) update(f func(now time.Time)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(time.Now())
}

// announce tells the other hubs how far this one is. After the flip it does so
// at both backends, since some hubs may listen to only one of them.
func (a *Adapter) announce(said *flip.Announcement) {
	text, err := json.Marshal(said)
	if err != nil {
		return // it cannot be
	}
	ctx, cancel := context.WithTimeout(a.life, talkIn)
	defer cancel()
	var both sync.WaitGroup
	both.Go(func() { _, _ = a.from.Publish(ctx, a.control, text) }) // if it is lost, the next one may arrive
	if said.Phase == flip.Flipped {
		both.Go(func() { _, _ = a.to.Publish(ctx, a.control, text) })
	}
	both.Wait()
}

// hear takes what another hub, or this one, has announced.
func (a *Adapter) hear(frame []byte, old bool) {
	var said flip.Announcement
	if json.Unmarshal(frame, &said) != nil || said.ID == "" || said.Phase > flip.Flipped {
		return
	}
	a.update(func(now time.Time) { a.node.Heard(&said, old, now) })
	a.wake()
}

// heardEntry takes note that something was appended to the log.
func (a *Adapter) heardEntry() {
	a.update(func(time.Time) { a.node.Told() })
	a.wake()
}

// count returns how many hubs the old backend has; -1: it does not say.
func (a *Adapter) count() int {
	ctx, cancel := context.WithTimeout(a.life, talkIn)
	defer cancel()
	select {
	case a.prober <- struct{}{}:
	case <-ctx.Done():
		return 0 // which is never enough
	}
	defer func() { <-a.prober }()
	n, err := a.from.Publish(ctx, a.everyone, a.marker())
	if err != nil {
		return 0
	}
	return n
}

// listen subscribes to the control channel of a backend, and calls f.
func (a *Adapter) listen(s *side, f func()) {
	for a.life.Err() == nil {
		if s.Subscribe(a.life, a.control) == nil {
			a.update(func(time.Time) { f() })
			a.wake()
			return
		}
		backoff.Sleep(a.life, refusedPause)
	}
}

func (a *Adapter) listenOld() { a.node.Subscribed() }

func (a *Adapter) listenNew() { a.heardNew = true }

// appendEntry appends an entry to the log, unless another one has its number.
func (a *Adapter) appendEntry(e *flip.Entry) error {
	if a.from.historian == nil {
		a.update(a.node.Logless)
		return nil
	}
	ctx, cancel := context.WithTimeout(a.life, talkIn)
	defer cancel()
	_, _, err := a.from.historian.Append(ctx, a.control, adapter.Record{
		Frame: []byte(e.String()), Messages: 1, Keep: logKeep, Time: time.Now(),
		Publisher: logPublisher, Stream: 1, Seq: e.Attempt,
	})
	a.refusedLog(err)
	return err
}

// refusedLog stops using the log if the old backend refuses it.
func (a *Adapter) refusedLog(err error) {
	if errors.Is(err, adapter.ErrRefused) {
		a.log.Warn("migrate: the old backend keeps no history, so the hubs do not flip", "error", err)
		a.update(a.node.Logless)
	}
}

// readLog reads the log, and whether there is a note at the new backend.
func (a *Adapter) readLog() error {
	if a.from.historian == nil {
		a.update(a.node.Logless)
		return nil
	}
	ctx, cancel := context.WithTimeout(a.life, talkIn)
	defer cancel()
	var noted bool
	var both sync.WaitGroup
	a.mu.RLock()
	asks := a.phase == flip.Asking
	a.mu.RUnlock()
	if asks {
		both.Go(func() { noted = a.readNote(ctx) })
	}
	var entries []flip.Entry
	frames, err := readAll(ctx, a.from.historian, a.control)
	both.Wait()
	for _, f := range frames {
		if e, ok := flip.ParseEntry(string(f.Frame), f.At.Offset); ok {
			entries = append(entries, e)
		} else { // it counts
			entries = append(entries, flip.Entry{At: f.At.Offset})
		}
	}
	a.update(func(now time.Time) {
		switch {
		case noted:
			a.node.Flip(now)
		case err == nil:
			a.node.Log(entries, now)
		}
	})
	if noted {
		return nil
	}
	a.refusedLog(err)
	return err
}

// readAll reads a short history.
func readAll(ctx context.Context, h adapter.Historian, channel string) (frames []adapter.KeptFrame, err error) {
	q := adapter.Query{Limit: logKeep.Messages, Keep: logKeep, Time: time.Now()}
	for {
		page, err := h.History(ctx, channel, q)
		if err != nil {
			return nil, err
		}
		frames = append(frames, page.Frames...)
		if !page.More || len(page.Frames) == 0 {
			return frames, nil
		}
		q.Since = page.Frames[len(page.Frames)-1].At
	}
}

// readNote reports whether the new backend says that the hubs have flipped. If
// it does not answer, the log decides.
func (a *Adapter) readNote(ctx context.Context) bool {
	if a.to.historian == nil {
		return false
	}
	frames, err := readAll(ctx, a.to.historian, a.control)
	return err == nil && len(frames) > 0 && string(frames[0].Frame) == noteText
}

// writeNote says at the new backend that the hubs have flipped, once for all.
func (a *Adapter) writeNote() error {
	if a.to.historian == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(a.life, talkIn)
	defer cancel()
	_, _, err := a.to.historian.Append(ctx, a.control, adapter.Record{
		Frame: []byte(noteText), Messages: 1, Keep: logKeep, Time: time.Now(), Publisher: logPublisher, Stream: 1, Seq: 1,
	})
	if errors.Is(err, adapter.ErrRefused) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("migrate: note of the flip: %w", err)
	}
	return nil
}
