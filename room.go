package fanout

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/wire"
)

// A Room is a handle to a room by its name, on one hub. Handles of the same
// name are the same room. All methods may be called from any goroutine.
type Room struct {
	hub     *Hub
	name    string
	channel string
	err     error // the name is invalid

	state atomic.Pointer[roomState] // the latest that was acquired
}

// acquire returns the room's state, which stays until it is released.
func (r *Room) acquire() *roomState {
	if rs := r.state.Load(); rs != nil && rs.hold() {
		return rs
	}
	rs := r.hub.acquire(r.name, r.channel)
	r.state.Store(rs)
	return rs
}

// Name returns the room's name.
func (r *Room) Name() string { return r.name }

// Join brings a member into the room. When it returns nil, everything that is
// published to the room from then on, by any hub, reaches the member or is
// reported to it as missed: the backend has confirmed the subscription. While
// the backend cannot be reached Join waits, no longer than ctx; it ends at once
// when the member leaves or closes, and when the hub closes.
//
// Joining twice is joining once. A Join that is overtaken by a Leave returns
// ErrLeft. Other errors are ErrInvalidRoom, ErrInvalidMember, ErrClosed, the
// error of ctx, with what the adapter knows of its links in its text, and
// ErrRefused if the backend refuses, for example for want of rights: the room
// now, or the hub's own channels at the last attempt (the hub goes on trying).
// After an error the member is not in the room, unless it was before.
func (r *Room) Join(ctx context.Context, m *Member) error {
	if err := r.check(ctx, m); err != nil {
		return r.wrap("join", err)
	}
	rs := r.acquire()
	defer r.hub.release(rs)
	return r.wrap("join", rs.admit(ctx, m, nil))
}

// admit brings a member into the room, to its end or, with r, to a place in its
// history.
func (rs *roomState) admit(ctx context.Context, m *Member, r *replay) (err error) {
	if rs.invalid != nil {
		return rs.invalid.error
	}
	ms, err := m.reserve(rs, r)
	if err != nil {
		return err
	}
	err = errPanic
	defer func() { m.settle(ms, r, err) }()
	err = rs.hub.explain(ctx, rs.await(ctx, ms, r))
	return err
}

// Resume is Join for a member that has been in the room before: it first gets
// what was said after the position since, from the room's history, and then
// what is said from now on, in order, without a seam and nothing twice. Since is
// the Message.Position that the client has seen last; the zero Position asks for
// all that is kept.
//
// What has been trimmed is a *GapError before the first message, with the number
// (none after the zero Position). If the history has lost what was said at since,
// because a server took over that lacked it, or may have, the GapError is Unknown, and the
// member goes on with what the history has in its place.
//
// A message to several rooms comes once to a member that resumes several of
// them (see [Hub.In]), but that goes by member. A client that connects again
// is a new one: if it had received such a message in one room, and resumes
// another room from before that message, it gets the copy of the other room. A
// client that must not show it twice has to tell by the content. A member that
// resumes a room long after it has received what is kept there in another room
// may get it again, too: the hub remembers the latest that each member has
// received, in up to 64 KiB where rooms keep histories, which is 2,700
// messages or more.
//
// Resume returns when the member's place is known and the first messages are
// there. The rest is read as the member receives, a page of some 128 KiB at a
// time, so a member that does not receive holds no more than that; what is
// trimmed before it comes to it is a *GapError with the number at its place.
// Members that are at the same place share readings, and where the hub has the
// messages itself it asks nobody. Errors are those of Join,
// ErrNoHistory, ErrInvalidPosition, and ErrJoined if the member is in the room.
func (r *Room) Resume(ctx context.Context, m *Member, since Position) error {
	if err := r.check(ctx, m); err != nil {
		return r.wrap("resume", err)
	}
	rs := r.acquire()
	defer r.hub.release(rs)
	from, err := rs.history(since)
	if err == nil {
		err = rs.admit(ctx, m, &replay{at: from, newcomer: from.IsZero()})
	}
	return r.wrap("resume", err)
}

// History returns the messages that were kept after the position since, the
// oldest first, and at most limit of them; 0 is no limit. It asks the backend, so
// whatever Publish has returned nil for is in it. It includes messages
// that were not for everyone (Except, ExceptRooms), but none that was Volatile.
//
// If messages after since have been trimmed the error is a *GapError, and the
// messages are those after the gap; not so after the zero Position, which asks
// for all that is kept. Other errors are ErrNoHistory, ErrInvalidPosition, a
// negative limit (ErrInvalidOption), ErrClosed, ErrRefused, and the error of ctx: while the backend
// cannot be reached History tries again, no longer than ctx, or
// Options.PublishTimeout if ctx has no deadline.
func (r *Room) History(ctx context.Context, since Position, limit int) ([]Message, error) {
	h := r.hub
	switch {
	case r.err != nil:
		return nil, r.wrap("history of", r.err)
	case limit < 0:
		return nil, r.wrap("history of", fmt.Errorf("%w: the limit is %d, it must be positive, or 0 for none", ErrInvalidOption, limit))
	}
	if err := h.begin(1); err != nil {
		return nil, r.wrap("history of", err)
	}
	defer h.ops.Leave(1)
	rs := r.acquire()
	defer h.release(rs)
	from, err := rs.history(since)
	if err != nil {
		return nil, r.wrap("history of", err)
	}
	messages, err := rs.past(ctx, from, limit)
	if gap := (*GapError)(nil); errors.As(err, &gap) {
		return messages, err
	}
	return messages, r.wrap("history of", err)
}

// Leave takes a member out of the room. When it returns, nothing more of the
// room arrives at the member, not even what it had not read yet (a Receive that
// was under way may still return what it had taken before). That holds for each
// of several Leaves at a time, and for a Join that is called meanwhile: at no
// time is a member in a room twice. Leaving a room that the member is not in is
// no error. Leave does not wait for the backend; its errors are those of bad
// arguments.
func (r *Room) Leave(ctx context.Context, m *Member) error {
	if err := r.check(context.WithoutCancel(ctx), m); err != nil {
		return r.wrap("leave", err)
	}
	m.leave(r.channel)
	return nil
}

// Publish sends data to everyone in the room, on all hubs. The publisher need
// not be in the room. Data is copied before Publish returns.
//
// When Publish returns nil the backend has taken the message. While the backend
// cannot be reached Publish tries again, no longer than ctx, or
// Options.PublishTimeout if ctx has no deadline; receivers recognise what comes
// twice. After an error the message may or may not have been delivered, unless
// the error wraps ErrUnsent: then it was not. Members who did not get it are
// told of a gap.
//
// Messages that are published while another of the same room is on its way are
// gathered and go together.
func (r *Room) Publish(ctx context.Context, data []byte) error {
	rs, err := r.beginPublish(data)
	if err != nil {
		return err
	}
	defer r.hub.endPublish(rs)
	return rs.way().publish(ctx, &wire.Message{Data: data})
}

// beginPublish begins an operation, until endPublish.
func (r *Room) beginPublish(data []byte) (rs *roomState, err error) {
	h := r.hub
	if err := r.checkPublish(data); err != nil {
		return nil, err
	}
	if err := h.begin(1); err != nil {
		return nil, r.publishError(err)
	}
	defer func() {
		if rs == nil { // acquire may call the user, who may panic
			h.ops.Leave(1)
		}
	}()
	return r.acquire(), nil
}

func (h *Hub) endPublish(rs *roomState) {
	h.release(rs)
	h.ops.Leave(1)
}

// PublishAsync is Publish for who does not wait, such as the loop of a server: it
// returns when the hub has accepted the message, and done is called with what
// Publish would have returned. Data is copied before that. What one goroutine
// publishes to a room, in either way, stays in order. Publishing like this costs a
// fraction: nothing waits for a single message, and hundreds of them, of any rooms,
// travel together.
//
// Done is called once for each nil that PublishAsync returns; it may be nil. All of a
// hub's are called by one goroutine, those of a room in order: one that takes its time
// delays the others and Hub.Close, so it must not wait for that. Those that wait for
// it take some memory, which Options.PublishBuffer does not count.
//
// While Options.PublishBuffer is full PublishAsync waits, no longer than ctx, or
// Options.PublishTimeout if ctx has no deadline. That is all that ctx is for: a message that was accepted is not taken back. It is tried as
// long as Options.PublishTimeout says, or as the message that it travels with; an
// attempt that has begun by then is waited for, which with a server that is silent
// takes some seconds.
//
// PublishAsync's own errors are ErrInvalidRoom, ErrTooLarge, ErrClosed and that of ctx;
// the message is not sent then.
func (r *Room) PublishAsync(ctx context.Context, data []byte, done func(error)) error {
	h := r.hub
	if err := r.checkPublish(data); err != nil {
		return err
	}
	if h.isClosing() { // a closed hub creates no rooms
		return r.publishError(ErrClosed)
	}
	rs := r.acquire() // before there is anything to undo: it may call the user, who may panic
	a, err := h.beginOne(ctx, len(data), done)
	if err != nil {
		h.release(rs)
		return r.publishError(err)
	}
	rs.way().publishAsync(&wire.Message{Data: data}, a)
	return nil
}

// check says what is wrong with the arguments of Join and Leave.
func (r *Room) check(ctx context.Context, m *Member) error {
	switch {
	case r.err != nil:
		return r.err
	case m == nil:
		return fmt.Errorf("%w: the member is nil", ErrInvalidMember)
	case m.hub != r.hub:
		return fmt.Errorf("%w: member %s belongs to another hub", ErrInvalidMember, m.ID())
	case r.hub.isClosing():
		return ErrClosed
	}
	return context.Cause(ctx)
}

// checkPublish says what is wrong with the room's name or the data.
func (r *Room) checkPublish(data []byte) error {
	err := r.err
	if err == nil {
		err = r.hub.checkSize(data)
	}
	if err != nil {
		return r.publishError(err)
	}
	return nil
}

// publishError is the error of a message that was not sent.
func (r *Room) publishError(err error) error {
	return &PublishError{Room: r.name, Err: adapter.Unsent(err)}
}

func (r *Room) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("fanout: %s room %s: %w", op, quoteName(r.name), err)
}
