package reading

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/batch"
	"github.com/fanoutgo/fanout/internal/clock"
	"github.com/fanoutgo/fanout/internal/follow"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/replay"
	"github.com/fanoutgo/fanout/internal/sequence"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/fanoutgo/fanout/internal/work"
	"github.com/stretchr/testify/require"
)

var errDown = errors.New("the backend is down")

// A room is a room with a history, and the backend that keeps it. It implements
// Host and adapter.Historian.
type room struct {
	history History[*room, string]
	reader  Reader
	numbers sequence.Tracker
	pool    work.Pool
	window  int

	mu      locks.Mutex[locks.Room]
	changed chan struct{}
	log     []string // gaps, and the data of messages
	woken   int      // how often there was something to wake for
	calls   []string // of Widened, WidenLog, CaughtUp and Kept

	backend struct {
		sync.Mutex
		frames []adapter.KeptFrame
		pageOf int     // frames; 0: no limit
		errs   []error // of the next readings
		stuck  bool    // it announces more, and gives nothing
		reads  int
		wait   chan struct{} // readings wait until it is closed; nil: they don't
	}
	told []string // what was reported, guarded by backend
}

// in runs a test with a room whose history has n messages, which are frames of
// their own.
func in(t *testing.T, n int, test func(t *testing.T, r *room)) {
	synctest.Test(t, func(t *testing.T) {
		var tasks sync.WaitGroup
		ctx, cancel := context.WithCancel(context.Background())
		r := &room{window: 100}
		r.pool.Init(ctx, tasks.Go)
		r.reader = Reader{
			Context: ctx, Historian: r, Pool: &r.pool, Home: new(item.Home),
			Counted:       r.count,
			Believed:      func(uint64) bool { return true },
			Malformed:     func(_ string, err error) { r.report("malformed") },
			NotUnderstood: func(string, batch.NotUnderstood) { r.report("not understood") },
			Unreadable:    func(room string, err error) { r.report(room + ": " + err.Error()) },
			Explain:       func(err error) error { return fmt.Errorf("%w (explained)", err) },
		}
		r.history.Keep = adapter.Retention{Messages: 1000, Age: time.Hour}
		r.history.Init(r, &r.numbers)
		r.publish(n)
		test(t, r)
		r.pool.Stop()
		cancel()
		tasks.Wait()
	})
}

func (r *room) count() {
	r.backend.Lock()
	defer r.backend.Unlock()
	r.backend.reads++
}

func (r *room) report(what string) {
	r.backend.Lock()
	defer r.backend.Unlock()
	r.told = append(r.told, what)
}

// publish keeps n more messages, whose data are their offsets.
func (r *room) publish(n int) {
	for range n {
		r.keep([]byte(fmt.Sprint(len(r.backend.frames) + 1)))
	}
}

// keep keeps a frame of one message.
func (r *room) keep(frame []byte) {
	r.backend.Lock()
	defer r.backend.Unlock()
	offset := uint64(len(r.backend.frames) + 1)
	r.backend.frames = append(r.backend.frames, adapter.KeptFrame{At: adapter.Position{Epoch: 1, Offset: offset}, Frame: frame})
}

// at is a position in the history.
func at(offset uint64) adapter.Position { return adapter.Position{Epoch: 1, Offset: offset} }

func (r *room) History(ctx context.Context, _ string, q adapter.Query) (page adapter.Page, err error) {
	b := &r.backend
	b.Lock()
	wait := b.wait
	if len(b.errs) > 0 {
		err, b.errs = b.errs[0], b.errs[1:]
	}
	b.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return page, context.Cause(ctx)
		}
	}
	if err != nil {
		return page, err
	}
	b.Lock()
	defer b.Unlock()
	page.Head, page.First = at(uint64(len(b.frames))), q.Since.Offset+1
	if q.Limit == 0 {
		return page, nil
	}
	page.Frames = b.frames[min(q.Since.Offset, uint64(len(b.frames))):]
	if n := len(page.Frames); b.pageOf > 0 && n > b.pageOf {
		page.Frames, page.More = page.Frames[:b.pageOf], true
	}
	if b.stuck {
		page.Frames, page.More = nil, true
	}
	page.Frames = slices.Clone(page.Frames)
	return page, nil
}

func (*room) Append(context.Context, string, adapter.Record) (adapter.Position, int, error) {
	panic("nobody publishes")
}

func (r *room) Reader() *Reader                 { return &r.reader }
func (r *room) Mutex() *locks.Mutex[locks.Room] { return &r.mu }
func (r *room) Name() string                    { return "lobby" }
func (r *room) Channel() string                 { return "r:lobby" }
func (r *room) Window() replay.Window           { return replay.Window{Messages: r.window, Bytes: 1 << 20} }
func (r *room) Follows() bool                   { return r.history.Follower.Follows() }
func (r *room) Widened()                        { r.calls = append(r.calls, "widened") }
func (r *room) WidenLog()                       { r.calls = append(r.calls, "log widened") }
func (r *room) CaughtUp()                       { r.calls = append(r.calls, "caught up") }
func (r *room) Kept()                           { r.calls = append(r.calls, "kept") }

func (r *room) Changed() <-chan struct{} {
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.changed
}

func (r *room) Tell() {
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

func (r *room) Put(a *follow.Append, b *batch.KeptFrame) string {
	r.mu.AssertHeld()
	if a.Restart {
		r.history.Store.Reset(a.From)
	}
	if !a.Gap.IsZero() {
		r.log = append(r.log, fmt.Sprintf("gap of %d, unknown %v", a.Gap.Missed, a.Gap.Unknown))
	}
	if !a.Messages {
		return "a gap"
	}
	var u batch.Unpacker
	batch.UnpackKept(&u, b, r.reader.Home, a.Skip, a.Sender)
	for u.More() {
		_, entries := u.Fill(make([]item.Entry, 0, 8))
		r.history.Add(entries, b.Body.Since)
		for _, e := range entries {
			r.log = append(r.log, string(e.Data))
		}
	}
	return "messages"
}

func (r *room) Wake(w string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w != "" {
		r.woken++
	}
}

// subscribe subscribes the room, so that its log begins at the end of the
// history.
func (r *room) subscribe() {
	r.mu.Lock()
	r.history.Begin(r.history.Follower.Subscribed())
	r.mu.Unlock()
	synctest.Wait()
}

// catchUp makes the log catch up, and waits until it has, or d is over.
func (r *room) catchUp(d time.Duration) {
	r.mu.Lock()
	r.history.CatchUp()
	r.mu.Unlock()
	time.Sleep(d) // in a bubble
	synctest.Wait()
}

// arrive makes a kept frame arrive.
func (r *room) arrive(offset int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b batch.KeptFrame
	_ = batch.OpenKept(&b, r.backend.frames[offset-1], clock.Now())
	a, placed, read := r.history.Follower.Receive(&b, time.Now())
	if placed {
		r.Put(&a, &b)
	}
	r.history.Begin(read)
}

func (r *room) logged() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.log, " ")
}

func TestCatchUp(t *testing.T) {
	t.Run("begins at the end of the history", func(t *testing.T) {
		in(t, 5, func(t *testing.T, r *room) {
			r.subscribe()
			require.Equal(t, follow.Live, r.history.Follower.State())
			require.Equal(t, at(5), r.history.Follower.Position())
			require.Empty(t, r.logged())
			require.NotNil(t, r.Changed())
		})
	})
	t.Run("puts missed messages into the log, a page at a time, and then held frames", func(t *testing.T) {
		in(t, 2, func(t *testing.T, r *room) {
			r.subscribe()
			r.backend.pageOf = 3
			r.publish(9)
			r.backend.wait = make(chan struct{})
			r.arrive(9)  // not the next one
			r.publish(1) // and another one while the history is read
			r.arrive(10)
			changed := r.Changed()
			close(r.backend.wait)
			<-changed
			synctest.Wait()
			r.arrive(12)
			synctest.Wait()
			require.Equal(t, "3 4 5 6 7 8 9 10 11 12", r.logged())
			require.NotZero(t, r.woken)
			require.Subset(t, r.calls, []string{"widened", "log widened", "caught up", "kept"})
			require.Equal(t, 1, strings.Count(strings.Join(r.calls, ","), "kept"))
		})
	})
	t.Run("tries again when the backend fails", func(t *testing.T) {
		in(t, 1, func(t *testing.T, r *room) {
			r.subscribe()
			r.publish(1)
			r.backend.errs = []error{errDown, errDown, errDown}
			began := time.Now()
			r.mu.Lock()
			changed := r.history.AwaitLog()
			r.mu.Unlock()
			<-changed
			require.Equal(t, 70*time.Millisecond, time.Since(began), "10, 20 and 40 ms")
			require.Equal(t, "2", r.logged())
		})
	})
	t.Run("continues after a gap when the backend refuses", func(t *testing.T) {
		in(t, 1, func(t *testing.T, r *room) {
			r.subscribe()
			r.publish(3)
			r.backend.errs = []error{adapter.ErrRefused}
			r.arrive(3)
			synctest.Wait()
			r.arrive(4)
			require.Equal(t, "gap of 0, unknown true 3 4", r.logged())
			require.Equal(t, []string{"lobby: " + adapter.ErrRefused.Error()}, r.told)
		})
	})
	t.Run("does not log the error of an adapter that has closed", func(t *testing.T) {
		in(t, 1, func(t *testing.T, r *room) {
			r.subscribe()
			r.backend.errs = []error{adapter.ErrClosed}
			r.catchUp(0)
			require.Empty(t, r.told)
		})
	})
	t.Run("gives up a history that announces messages and returns none", func(t *testing.T) {
		in(t, 1, func(t *testing.T, r *room) {
			r.subscribe()
			r.publish(1)
			r.backend.stuck = true
			r.catchUp(time.Minute)
			require.Equal(t, "gap of 0, unknown true", r.logged())
			require.Len(t, r.told, 1)
			require.Less(t, r.backend.reads, 20)
		})
	})
	t.Run("reads again after a wait when a frame that came is not in the history", func(t *testing.T) {
		in(t, 3, func(t *testing.T, r *room) {
			r.subscribe()
			r.publish(3)
			late := r.backend.frames
			r.backend.frames = late[:4]
			r.mu.Lock()
			var b batch.KeptFrame
			_ = batch.OpenKept(&b, late[5], clock.Now())
			_, _, read := r.history.Follower.Receive(&b, time.Now())
			r.history.Begin(read)
			r.mu.Unlock()
			synctest.Wait()
			require.Equal(t, "4", r.logged())
			r.backend.Lock()
			r.backend.frames = late
			r.backend.Unlock()
			time.Sleep(time.Second)
			synctest.Wait()
			require.Equal(t, "4 5 6", r.logged())
		})
	})
	t.Run("reports what is missing at the end", func(t *testing.T) {
		in(t, 5, func(t *testing.T, r *room) {
			r.subscribe()
			r.backend.frames = r.backend.frames[:2]
			r.catchUp(0)
			require.Equal(t, "gap of 0, unknown true", r.logged())
		})
	})
	t.Run("ends when the room is unsubscribed", func(t *testing.T) {
		for name, err := range map[string]error{"read": nil, "refused": adapter.ErrRefused, "failed": errDown} {
			t.Run(name, func(t *testing.T) {
				in(t, 1, func(t *testing.T, r *room) {
					for _, limit := range []bool{true, false} { // while the head is read, and a page
						if !limit {
							r.subscribe()
						}
						r.publish(1)
						r.backend.wait, r.backend.errs = make(chan struct{}), []error{err}
						if limit {
							r.subscribe()
						} else {
							r.catchUp(0)
						}
						r.mu.Lock()
						r.history.Forget()
						r.mu.Unlock()
						close(r.backend.wait)
						synctest.Wait()
						r.backend.wait, r.backend.errs = nil, nil
						time.Sleep(time.Second)
						synctest.Wait()
						require.Equal(t, follow.Off, r.history.Follower.State())
						require.Empty(t, r.logged())
						require.Empty(t, r.told)
					}
				})
			})
		}
	})
}

// A member implements Member.
type member struct {
	room  *room
	rp    *Replay
	moved chan struct{}
	done  chan struct{}
	begun bool
}

func (r *room) resume(since uint64) *member {
	return &member{room: r, rp: replay.Resume[item.Entry](at(since)), moved: make(chan struct{}), done: make(chan struct{})}
}

func (m *member) Advance() (s Step, err error) {
	r := m.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.rp == nil {
		return s, nil
	}
	s.Replay = m.rp
	s.Verdict, err = r.history.Assemble(m.rp)
	switch {
	case s.Verdict == replay.LogBehind:
		s.Changed = r.history.AwaitLog()
	case s.Verdict == replay.Complete && !m.begun:
		m.begun = true
		m.rp.Begin(r.history.Follower.Position())
	}
	return s, err
}

func (m *member) WhenMoved() <-chan struct{} { return m.moved }
func (m *member) Done() <-chan struct{}      { return m.done }

func (m *member) Wait(ctx context.Context, c, moved <-chan struct{}) error {
	select {
	case <-c:
	case <-moved:
		m.room.mu.Lock()
		m.rp = nil
		m.room.mu.Unlock()
	case <-m.done:
		return adapter.ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// read reads parts until the member meets the log.
func (m *member) read(t *testing.T) string {
	var got []string
	for !m.rp.Met() {
		require.NoError(t, m.room.history.Await(t.Context(), m))
		if gap := m.rp.TakeGap(); !gap.IsZero() {
			got = append(got, fmt.Sprintf("gap of %d", gap.Missed))
		}
		for _, e := range m.rp.Items() {
			got = append(got, string(e.Data)+e.Sender)
		}
		m.rp.Advance(len(m.rp.Items()))
	}
	return strings.Join(got, " ")
}

func TestAwait(t *testing.T) {
	t.Run("gives a member everything up to the log", func(t *testing.T) {
		in(t, 8, func(t *testing.T, r *room) {
			r.subscribe()
			r.backend.pageOf = 3
			r.publish(1)
			r.arrive(9)
			require.Equal(t, "3 4 5 6 7 8 9", r.resume(2).read(t))
		})
	})
	t.Run("shares readings among members", func(t *testing.T) {
		in(t, 8, func(t *testing.T, r *room) {
			r.subscribe()
			reads := r.backend.reads
			r.backend.wait = make(chan struct{})
			all := make(chan string)
			for range 10 {
				go func() { all <- r.resume(2).read(t) }()
			}
			synctest.Wait()
			close(r.backend.wait)
			for range 10 {
				require.Equal(t, "3 4 5 6 7 8", <-all)
			}
			require.Equal(t, 1, r.backend.reads-reads)
			r.mu.Lock()
			require.False(t, r.history.Narrow(clock.Now()))
			require.True(t, r.history.Narrow(clock.Now()+replay.WideTime.Nanoseconds()))
			r.mu.Unlock()
		})
	})
	t.Run("waits until the log has caught up", func(t *testing.T) {
		in(t, 2, func(t *testing.T, r *room) {
			r.subscribe()
			r.publish(3)
			require.Equal(t, "5", r.resume(4).read(t))
			require.Equal(t, "3 4 5", r.logged(), "the log has read it, too")
		})
	})
	t.Run("reports messages that cannot be read or understood as missing", func(t *testing.T) {
		in(t, 2, func(t *testing.T, r *room) {
			h := wire.Header{Hub: 7, Stream: 1, Seq: 1, Count: 1}
			message := func(m *wire.Message) []byte { return wire.AppendMessage(wire.AppendHeader(nil, &h), m) }
			r.keep(message(&wire.Message{Data: []byte("a")})[:8])
			r.keep(message(&wire.Message{Data: []byte("b"), Fields: wire.AppendField(nil, wire.Field{Number: wire.PrivateFields, Must: true})}))
			r.keep(message(&wire.Message{Data: []byte("from ")}))
			r.subscribe()
			require.Equal(t, "2 gap of 2 from 0000000000000007", r.resume(1).read(t))
			require.Equal(t, []string{"malformed", "not understood"}, r.told)
		})
	})
	t.Run("tries again when the backend fails", func(t *testing.T) {
		in(t, 4, func(t *testing.T, r *room) {
			r.subscribe()
			r.backend.errs = []error{errDown, errDown}
			began := time.Now()
			require.Equal(t, "3 4", r.resume(2).read(t))
			require.Equal(t, 30*time.Millisecond, time.Since(began), "10 and 20 ms")
		})
	})
	t.Run("fails when the backend refuses", func(t *testing.T) {
		in(t, 4, func(t *testing.T, r *room) {
			r.subscribe()
			r.backend.errs = []error{adapter.ErrRefused}
			require.ErrorIs(t, r.history.Await(t.Context(), r.resume(2)), adapter.ErrRefused)
			r.backend.stuck = true
			require.ErrorIs(t, r.history.Await(t.Context(), r.resume(2)), errNoProgress)
		})
	})
	t.Run("fails when the log cannot be read either", func(t *testing.T) {
		in(t, 1, func(t *testing.T, r *room) {
			r.subscribe()
			r.backend.errs = []error{adapter.ErrRefused, adapter.ErrRefused}
			r.catchUp(0)
			require.ErrorIs(t, r.history.Await(t.Context(), r.resume(0)), adapter.ErrRefused)
		})
	})
	t.Run("reports a position that is ahead of the history", func(t *testing.T) {
		in(t, 3, func(t *testing.T, r *room) {
			r.subscribe()
			m := r.resume(7)
			for range 10 {
				s, err := m.Advance()
				require.NoError(t, err)
				if s.Verdict == replay.AheadOfHistory {
					require.Equal(t, at(3), m.rp.Head())
					return
				}
				require.Equal(t, replay.NeedsReading, s.Verdict)
				require.NoError(t, r.history.Fetch(t.Context(), m, m.rp))
			}
			t.Fatal("it is not reported")
		})
	})
	for name, test := range map[string]struct {
		end func(m *member, cancel func())
		err error
	}{
		"with ctx":                         {func(_ *member, cancel func()) { cancel() }, context.Canceled},
		"with the member":                  {func(m *member, _ func()) { close(m.done) }, adapter.ErrClosed},
		"when the member needs no reading": {func(m *member, _ func()) { close(m.moved) }, nil},
	} {
		t.Run("ends "+name, func(t *testing.T) {
			in(t, 4, func(t *testing.T, r *room) {
				r.subscribe()
				r.backend.wait = make(chan struct{})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				m := r.resume(2)
				outcome := make(chan error)
				go func() { outcome <- r.history.Await(ctx, m) }()
				synctest.Wait()
				test.end(m, cancel)
				require.Equal(t, test.err, <-outcome)
				r.mu.Lock()
				require.False(t, r.history.Store.Waiting())
				r.mu.Unlock()
				close(r.backend.wait)
			})
		})
	}
	t.Run("ends with the member while the log is behind", func(t *testing.T) {
		in(t, 1, func(t *testing.T, r *room) { // which is not subscribed
			m := r.resume(0)
			outcome := make(chan error)
			go func() { outcome <- r.history.Await(t.Context(), m) }()
			synctest.Wait()
			close(m.done)
			require.NoError(t, <-outcome)
		})
	})
	t.Run("fails when the hub closes", func(t *testing.T) {
		in(t, 4, func(t *testing.T, r *room) {
			r.subscribe()
			ctx, cancel := context.WithCancel(t.Context())
			r.reader.Context = ctx
			r.backend.wait = make(chan struct{})
			outcome := make(chan error)
			go func() { outcome <- r.history.Await(t.Context(), r.resume(2)) }()
			synctest.Wait()
			cancel()
			close(r.backend.wait)
			require.ErrorIs(t, <-outcome, adapter.ErrClosed)
			r.catchUp(0)
			require.Empty(t, r.logged())
		})
	})
}

// The history is not read for a member if what it needs has come meanwhile, or
// if it has stopped waiting.
func TestFetchReadsNoMoreThanIsNeeded(t *testing.T) {
	in(t, 4, func(t *testing.T, r *room) {
		r.subscribe()
		require.Equal(t, "3 4", r.resume(2).read(t))
		reads, m := r.backend.reads, r.resume(2)
		require.NoError(t, r.history.Fetch(t.Context(), m, m.rp))
		require.Equal(t, reads, r.backend.reads)

		r.backend.errs = []error{errDown, errDown, errDown, errDown}
		m = r.resume(0)
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, r.history.Fetch(ctx, m, m.rp), context.DeadlineExceeded)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, reads+2, r.backend.reads)
	})
}

func TestList(t *testing.T) {
	list := func(t *testing.T, r *room, since uint64, limit int) (got []string, err error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		l, err := r.history.List(ctx, at(since), limit)
		if err != nil {
			return nil, err
		}
		require.True(t, l.Gap().IsZero())
		for _, e := range l.Items() {
			got = append(got, string(e.Data))
		}
		return got, nil
	}
	t.Run("returns all pages, up to the limit", func(t *testing.T) {
		in(t, 8, func(t *testing.T, r *room) {
			r.backend.pageOf, r.backend.errs = 3, []error{errDown}
			got, err := list(t, r, 1, 0)
			require.NoError(t, err)
			require.Equal(t, []string{"2", "3", "4", "5", "6", "7", "8"}, got)
			got, err = list(t, r, 1, 4)
			require.NoError(t, err)
			require.Equal(t, []string{"2", "3", "4", "5"}, got)
		})
	})
	t.Run("fails for a position that is ahead", func(t *testing.T) {
		in(t, 3, func(t *testing.T, r *room) {
			_, err := list(t, r, 9, 0)
			require.Equal(t, &AheadError{At: at(9), Head: at(3)}, err)
			require.ErrorContains(t, err, "ahead of the history")
		})
	})
	t.Run("fails when the backend refuses", func(t *testing.T) {
		in(t, 3, func(t *testing.T, r *room) {
			r.backend.errs = []error{adapter.ErrRefused}
			_, err := list(t, r, 1, 0)
			require.ErrorIs(t, err, adapter.ErrRefused)
		})
	})
	t.Run("tries until ctx ends, and says why it failed", func(t *testing.T) {
		in(t, 3, func(t *testing.T, r *room) {
			r.backend.stuck = true
			_, err := list(t, r, 1, 0)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorIs(t, err, errNoProgress)
			require.ErrorContains(t, err, "(explained)")
			require.Less(t, r.backend.reads, 140, "with pauses")
		})
	})
}

func TestRetry(t *testing.T) {
	const ms = retry(time.Millisecond)
	for name, test := range map[string]struct {
		outcomes []outcome
		delays   []retry
	}{
		"doubles up to a bound":      {[]outcome{failed, failed, failed, failed, failed, failed, failed, failed}, []retry{10 * ms, 20 * ms, 40 * ms, 80 * ms, 160 * ms, 320 * ms, 500 * ms, 500 * ms}},
		"begins anew":                {[]outcome{failed, failed, read, failed}, []retry{10 * ms, 20 * ms, 0, 10 * ms}},
		"is longer without progress": {[]outcome{stuck, stuck, stuck, stuck, stuck}, []retry{50 * ms, 100 * ms, 200 * ms, 400 * ms, 500 * ms}},
	} {
		t.Run(name, func(t *testing.T) {
			var delay retry
			for i, o := range test.outcomes {
				delay = delay.after(o)
				require.Equal(t, test.delays[i], delay)
				require.Equal(t, delay == 500*ms, delay.hopeless())
			}
		})
	}
}

func TestJudge(t *testing.T) {
	more := &adapter.Page{Head: at(2), More: true}
	for name, test := range map[string]struct {
		page *adapter.Page
		err  error
		want outcome
		says error
	}{
		"a page":       {&adapter.Page{Head: at(2)}, nil, read, nil},
		"nothing new":  {more, nil, stuck, errNoProgress},
		"no answer":    {more, errDown, failed, errDown},
		"a refusal":    {more, adapter.ErrRefused, refused, adapter.ErrRefused},
		"a closed hub": {more, adapter.ErrClosed, refused, adapter.ErrClosed},
		"a broken one": {more, fmt.Errorf("%w: x", adapter.ErrRefused), refused, adapter.ErrRefused},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := judge(test.page, at(1), test.err)
			require.Equal(t, test.want, o)
			require.ErrorIs(t, err, test.says)
		})
	}
}
