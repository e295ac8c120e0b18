package fanout

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/replay"
	"github.com/fanoutgo/fanout/internal/wire"
)

// A Room is a handle to a room of one hub, by its name. Handles of the same
// name are the same room. All methods may be called from any goroutine.
type Room struct {
	hub     *Hub
	name    string
	channel string
	err     error // the name is invalid

	latest atomic.Pointer[room] // that was acquired
}

// acquire returns the hub's room, which stays until it is released.
func (r *Room) acquire() *room {
	if room := r.latest.Load(); room != nil && room.hold() {
		return room
	}
	room := r.hub.acquire(r.name, r.channel)
	r.latest.Store(room)
	return room
}

// Name returns the room's name.
func (r *Room) Name() string { return r.name }

// Join brings a member into the room. When it returns nil, the backend has
// confirmed the subscription: everything that any hub publishes to the room
// from then on reaches the member or is reported to it as missed.
//
// While the backend cannot be reached Join waits until ctx ends. It also ends
// when the member leaves or closes, and when the hub closes. After an error the
// member is not in the room, unless it was before. Joining a room again has no
// effect.
//
// Errors:
//   - [ErrInvalidRoom], [ErrInvalidMember] and [ErrInvalidOption] (of
//     [Options.Room]) for what can never work;
//   - that of [Options.Admit], if it refuses the member;
//   - [ErrLeft] if Leave was called for the member during Join;
//   - [ErrClosed] if the member or the hub is closed: a [*ClosedError] after
//     [Selection.Close] or [Hub.Drain]; [ErrSlow] if that ended the member;
//   - [ErrBrokenHistory] if the room's history is damaged;
//   - [ErrRefused] if the backend refuses to read the room's history, or
//     refuses the subscription, of the room or of the hub's own channels
//     (which the hub keeps trying to subscribe);
//   - the error of ctx, with what the adapter knows of its links.
func (r *Room) Join(ctx context.Context, m *Member) error {
	if err := r.check(ctx, m); err != nil {
		return r.wrap("join", err)
	}
	room := r.acquire()
	defer r.hub.release(room)
	return r.wrap("join", room.admit(ctx, m, nil))
}

// admit brings a member into the room, to its end or, with rp, to a place in
// its history.
func (r *room) admit(ctx context.Context, m *Member, rp *memberReplay) (err error) {
	if err := r.invalid(); err != nil {
		return err
	}
	ms, err := m.reserve(r, rp)
	if err != nil {
		return err
	}
	err = errPanic
	defer func() { m.endJoin(ms, rp, err) }()
	err = r.hub.explain(ctx, r.await(ctx, ms, rp))
	return err
}

// Resume is [Room.Join] for a member that continues where a client has stopped
// reading. The member first gets the messages after the position since, from
// the room's history, and then those that are published from now on: in order,
// none missing and none twice. The since position is the last
// [Message.Position] that the client saw and that is not zero: messages that
// are in no history have the zero Position. The zero Position asks for all that
// is kept.
//
// Messages after since that have been trimmed are reported as a [*GapError]
// before the first message, with their number; after the zero Position they are
// not reported. If the history lacks messages up to since, or may lack them,
// because another server took over, the GapError is Unknown and the member
// continues with what the history has instead.
//
// Resume returns when the member's place is known and the first messages are
// there. The rest is read as the member receives, in pages of some 128 KiB, so
// a member that does not receive takes no more memory than that. Messages that
// are trimmed before the member comes to them are reported at their place.
// Members at the same place share readings, and messages that the hub still has
// are not read from the backend.
//
// A message to several rooms comes once to a member that resumes several of
// them (see [Hub.In]). The hub knows this by the member, and a client that
// connects again is a new member: if it had received such a message in one
// room, and resumes another room from before the message, it gets the copy of
// the other room. A client that must not show a message twice has to recognise
// it by its content.
//
// For each member the hub remembers such messages: all of them as long as that
// takes less than 64 KiB, which is 2,700 messages or more (1 KiB without
// Options.Room, or if the adapter keeps no histories). Above that it forgets
// those that are older than 30 s, and than twice [Options.PublishTimeout], and
// that no room of the member can bring again. It uses at most some 3 MiB for a
// member, and then forgets the older half. So a member that resumes a room much
// later may get a copy, too.
//
// Errors are those of Join, [ErrNoHistory], [ErrInvalidPosition], and
// [ErrJoined] if the member is in the room.
func (r *Room) Resume(ctx context.Context, m *Member, since Position) error {
	if err := r.check(ctx, m); err != nil {
		return r.wrap("resume", err)
	}
	room := r.acquire()
	defer r.hub.release(room)
	from, err := room.history(since)
	if err == nil {
		err = room.admit(ctx, m, replay.Resume[item.Entry](from))
	}
	return r.wrap("resume", err)
}

// History returns the messages that were kept after the position since, oldest
// first: at most limit of them, or all if limit is 0. It asks the backend, so
// it includes every message for which Publish has returned nil. It includes
// messages that were not for everyone (Except, ExceptRooms), and no volatile
// ones.
//
// If messages after since have been trimmed, the error is a [*GapError] and the
// messages are those after the gap. The zero Position asks for all that is
// kept, without a GapError.
//
// While the backend cannot be reached History tries again until ctx ends, or
// until [Options.PublishTimeout] has passed if ctx has no deadline. Other
// errors are [ErrInvalidRoom], [ErrNoHistory], [ErrInvalidPosition],
// [ErrInvalidOption] for a negative limit, [ErrClosed], [ErrRefused],
// [ErrBrokenHistory] and that of ctx.
func (r *Room) History(ctx context.Context, since Position, limit int) ([]Message, error) {
	h := r.hub
	switch {
	case r.err != nil:
		return nil, r.wrap("history of", r.err)
	case limit < 0:
		return nil, r.wrap("history of", fmt.Errorf("%w: the limit is %d, it must be positive, or 0 for no limit", ErrInvalidOption, limit))
	}
	if err := h.begin(); err != nil {
		return nil, r.wrap("history of", err)
	}
	defer h.ops.Leave(1)
	room := r.acquire()
	defer h.release(room)
	from, err := room.history(since)
	if err != nil {
		return nil, r.wrap("history of", err)
	}
	messages, err := room.past(ctx, from, limit)
	if gap := (*GapError)(nil); errors.As(err, &gap) {
		return messages, err
	}
	return messages, r.wrap("history of", err)
}

// Leave takes a member out of the room. When it returns, no more messages of
// the room arrive at the member, not even those that it had not read yet. (A
// Receive that is running may still return messages that it took before.)
// Several calls of Leave, and of Join, may run at once. Leaving a room that the
// member is not in is no error, and neither is it for a member that has ended.
// Leave does not wait for the backend, and ctx has no effect. Its errors are
// [ErrInvalidRoom], [ErrInvalidMember] and, of a closed hub, [ErrClosed].
func (r *Room) Leave(ctx context.Context, m *Member) error {
	if err := r.check(context.WithoutCancel(ctx), m); err != nil {
		return r.wrap("leave", err)
	}
	m.leave(r.channel)
	return nil
}

// Publish sends data to everyone in the room, on all hubs. The publisher need
// not be in the room. Publish copies data before it returns.
//
// When Publish returns nil the backend has taken the message. While the backend
// cannot be reached Publish tries again until ctx ends, or until
// [Options.PublishTimeout] has passed if ctx has no deadline; a message that
// arrives twice because of that is delivered once. An error is a
// [*PublishError]. If it wraps [ErrUnsent], nobody has got the message.
// Otherwise the message may have been delivered; members who did not get it are
// told of a gap.
//
// The cause of an error is [ErrInvalidRoom], [ErrInvalidOption] (of
// [Options.Room]), [ErrTooLarge], [ErrClosed], [ErrRefused],
// [ErrBrokenHistory], [ErrLocalOnly] (with [Options.LocalFallback]), that of
// ctx, context.DeadlineExceeded after Options.PublishTimeout, or one of the
// backend.
//
// Messages that are published while another one of the same room is being sent
// are gathered and sent together, as one frame. The hub tries to send such a
// frame for [Options.PublishTimeout], counted from when its first message of
// PublishAsync was accepted or, if it has none, from when it is first sent.
// After that Publish fails even if ctx has more time.
func (r *Room) Publish(ctx context.Context, data []byte) error {
	room, err := r.beginPublish(data)
	if err != nil {
		return err
	}
	defer r.hub.endPublish(room)
	return room.outgoing().Publish(ctx, &wire.Message{Data: data})
}

// beginPublish begins an operation, until endPublish.
func (r *Room) beginPublish(data []byte) (to *room, err error) {
	h := r.hub
	if err := r.checkPublish(data); err != nil {
		return nil, err
	}
	if err := h.begin(); err != nil {
		return nil, r.publishError(err)
	}
	defer func() {
		if to == nil { // acquire may call Options.Room, which may panic
			h.ops.Leave(1)
		}
	}()
	return r.acquire(), nil
}

func (h *Hub) endPublish(r *room) {
	h.release(r)
	h.ops.Leave(1)
}

// PublishAsync publishes without waiting for the backend. It returns once the
// hub has accepted the message, and later calls done with the error that
// [Room.Publish] would have returned. It copies data before it returns. It is
// much cheaper than Publish: hundreds of messages, of any rooms, are sent
// together. Messages that one goroutine publishes to a room, in either way,
// stay in order.
//
// The done function may be nil. It is called once if PublishAsync returns nil,
// and not otherwise. One goroutine makes all these calls of a hub, for the
// messages of a room in order. So a done that takes long delays the others and
// [Hub.Close], and it must not call Close. Callbacks that wait for their turn
// take memory that [Options.PublishBuffer] does not count.
//
// While the buffer of Options.PublishBuffer is full PublishAsync waits until
// ctx ends, or until [Options.PublishTimeout] has passed if ctx has no
// deadline. The context has no effect on a message that was accepted: the hub
// tries to send it until Options.PublishTimeout has passed since the first
// message of PublishAsync in its frame was accepted. An attempt that has begun
// by then is completed, which takes some seconds if the server does not answer.
//
// The errors that PublishAsync itself returns are [ErrInvalidRoom],
// [ErrTooLarge], [ErrClosed], that of ctx, and context.DeadlineExceeded after
// Options.PublishTimeout. They wrap [ErrUnsent].
func (r *Room) PublishAsync(ctx context.Context, data []byte, done func(error)) error {
	h := r.hub
	if err := r.checkPublish(data); err != nil {
		return err
	}
	if h.isClosing() { // a closed hub creates no rooms
		return r.publishError(ErrClosed)
	}
	room := r.acquire() // before there is anything to undo: Options.Room may panic
	a, err := h.publishers.Begin(ctx, len(data), done)
	if err != nil {
		h.release(room)
		return r.publishError(err)
	}
	room.outgoing().PublishAsync(&wire.Message{Data: data}, a)
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

// Members returns the members of the room on this hub, in no order, without
// asking other hubs. It returns nothing for a room that cannot exist.
func (r *Room) Members() []*Member {
	room := r.hub.lookup(r.channel)
	if r.err != nil || room == nil {
		return nil
	}
	room.mu.Lock()
	defer room.mu.Unlock()
	all := make([]*Member, 0, room.life.Members())
	for ms := range room.members.All {
		all = append(all, ms.member)
	}
	return all
}
