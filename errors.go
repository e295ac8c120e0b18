package fanout

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/publishing"
	"github.com/fanoutgo/fanout/internal/wire"
)

// Errors are returned wrapped with what failed and for which room, such as
//
//	fanout: publish to room "lobby": closed (not sent)
//
// Test for them with errors.Is. The error of an ended context is found the same
// way.
var (
	// ErrClosed means that a Hub, a Member or an Adapter is closed. From Receive
	// it is final. A second Close does not return it, and, while the hub is open,
	// neither does Room.Leave of a member that has ended.
	ErrClosed = adapter.ErrClosed

	// ErrSlow is the final error of a member that fell out of the window of a
	// room, or of its direct messages, whose [Overflow] is Disconnect.
	ErrSlow = errors.New("member too slow")

	// ErrInvalidRoom means that a room name is empty, longer than 255 bytes,
	// or not UTF-8.
	ErrInvalidRoom = errors.New("invalid room name")

	// ErrInvalidMember means a nil Member, a Member of another Hub, or a
	// string that cannot be a member ID.
	ErrInvalidMember = errors.New("invalid member")

	// ErrInvalidUser means that the name of a user is empty, longer than 255
	// bytes, or not UTF-8.
	ErrInvalidUser = errors.New("invalid user")

	// ErrEmptySelection means a Selection of no rooms, users or members. It never
	// stands for everybody. It is also the error of a [Selection.Join] or Leave
	// that names no room.
	ErrEmptySelection = errors.New("empty selection")

	// ErrTooLarge means that data is longer than [Options.MaxMessage], that a
	// Selection has too many names, or its Join or Leave too many rooms, that a
	// member's info is longer than [MaxInfo], or that the reason of
	// [Selection.Close] is longer than 1,024 bytes.
	ErrTooLarge = errors.New("too large")

	// ErrInvalidOption means that an option is out of its range: one that was
	// given to New, that [Options.Room] has returned, or that a method was
	// given.
	ErrInvalidOption = adapter.ErrInvalidOption

	// ErrInvalidPosition means a position that no message of the room can have:
	// malformed, of another room, or ahead of the room's history.
	ErrInvalidPosition = errors.New("invalid position")

	// ErrNoQuestion means that a message cannot be answered: it is no question,
	// the member has already answered it, the member has ended or has left the
	// rooms that were asked, or the asker has stopped waiting. See Member.Reply.
	ErrNoQuestion = errors.New("not an open question")

	// ErrNoHistory means that Resume or History was called for a room that
	// keeps no history ([RoomOptions]).
	ErrNoHistory = errors.New("room keeps no history")

	// ErrJoined is returned by Resume if the member is in the room, or is
	// joining it.
	ErrJoined = errors.New("member is in the room")

	// ErrLeft is returned by a Join or Resume during which Leave was called for
	// the same member and room.
	ErrLeft = errors.New("left while joining")

	// ErrNoReceiver means that nobody received a direct message: the member's hub
	// is gone, or its link to the backend is down. It is returned only by a hub
	// without an adapter, and with backends that count receivers: adapter/memory,
	// adapter/redis on one server or behind Sentinel, sharded (which does not
	// count the receivers of rooms if its ReadFrom is not Primaries), and
	// adapter/partition and adapter/migrate over these.
	ErrNoReceiver = publishing.ErrNoReceiver

	// ErrLocalOnly means that a publish failed in the backend, and that
	// [Options.LocalFallback] delivered the message to the members of this hub.
	ErrLocalOnly = publishing.ErrLocalOnly

	// ErrUnsent means that no part of a message has reached anybody, and none
	// will. Publishing it again cannot deliver it twice.
	ErrUnsent = adapter.ErrUnsent

	// ErrRefused means that the backend refuses what was asked, for a reason
	// that does not go away by waiting: missing rights, an unknown command, a
	// message that is too long for it. The call has not tried again; the hub
	// itself keeps trying to subscribe its own channels.
	ErrRefused = adapter.ErrRefused

	// ErrBrokenHistory means that the history of a room, as the backend has it,
	// is not what the library wrote: another program has written to it, or a
	// part of it is damaged. Publish, Join, Resume and History of that room
	// then fail at once, with the reason, and members in the room are told of a
	// gap. The room works again once its keys have been repaired or deleted.
	ErrBrokenHistory = adapter.ErrBrokenHistory

	// ErrConcurrentReceive means that Receive, ReceiveBatch, Messages or
	// TryReceiveBatch was called while another goroutine was in Receive,
	// ReceiveBatch or Messages of the same member.
	ErrConcurrentReceive = errors.New("concurrent Receive on one member")

	errPanic = errors.New("the adapter panicked")

	errEmptyBuffer = errors.New("the buffer has no room for a message")
)

// A ClosedError is the final error of a member that [Selection.Close] or
// [Hub.Drain] has closed. Draining says which, and so whether the client should
// connect again. errors.Is(err, ErrClosed) is true.
type ClosedError struct {
	// Reason is what the caller of Selection.Close gave, in plain text. It may
	// be empty. That of Drain is "hub is closing".
	Reason string
	// Draining is true if the hub ends all its members because its process is
	// about to stop: the client should connect again, to another process. If it
	// is false somebody has closed this member, and the client should not
	// connect again by itself.
	Draining bool
}

func (e *ClosedError) Error() string {
	if e.Reason == "" {
		return ErrClosed.Error()
	}
	return ErrClosed.Error() + ": " + e.Reason
}

// Unwrap returns ErrClosed.
func (*ClosedError) Unwrap() error { return ErrClosed }

// A PublishError is returned by Publish, and passed to the callback of
// PublishAsync, when a message could not be published. A message to several
// rooms or members that fails for more than one of them returns an error with
// an Unwrap() []error method, with a PublishError for each.
type PublishError struct {
	// Room is the room that the message was for, or empty.
	Room string
	// User is the user that the message was for, or empty.
	User string
	// Hub is the ID of the hub of the members that the message was for, or
	// empty. For a message to everyone, Room, User and Hub are empty.
	Hub string
	// Err is the cause. If it wraps ErrUnsent, nobody of this room or hub has
	// got the message.
	Err error
}

func (e *PublishError) Error() string {
	to := "everyone"
	switch {
	case e.Room != "" || errors.Is(e.Err, ErrInvalidRoom):
		to = "room " + quoteName(e.Room)
	case e.User != "":
		to = "user " + quoteName(e.User)
	case e.Hub != "":
		to = "members of hub " + e.Hub
	}
	return publishTo + to + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *PublishError) Unwrap() error { return e.Err }

// quoteName quotes a room's name, the beginning of one that is too long.
func quoteName(name string) string {
	if len(name) > wire.MaxRoom {
		name = name[:64] + "…"
	}
	return strconv.Quote(name)
}

// failed returns err with what was tried, which is not said of a nil err.
func failed(op string, err error) error {
	if err == nil {
		return nil
	}
	if _, publishes := errors.AsType[*PublishError](err); publishes {
		err = partError{err}
	}
	return fmt.Errorf("fanout: %s: %w", op, err)
}

// publishTo begins the text of a PublishError.
const publishTo = "fanout: publish to "

// A partError is an error with a PublishError in it, for the error of an
// operation that is not Publish: the text says only which part has failed.
type partError struct{ error }

func (e partError) Error() string { return strings.ReplaceAll(e.error.Error(), publishTo, "") }

func (e partError) Unwrap() error { return e.error }

// A GapError tells a member that messages of a room did not reach it. Receive
// returns it at the place in the room's order where they are missing. It is not
// final: Receive continues after it.
//
// Once every publisher has been heard again after an Unknown gap, the messages
// that a member received and the numbers of its gaps account for all that was
// published to it. In these cases Unknown is all that is reported, and no
// number follows:
//
//   - messages of a publisher that was silent for more than ten minutes, or was
//     heard for the first time after the gap;
//   - messages of programs that are not hubs, which carry no numbers;
//   - messages that a server lost before a Resume, since the member was not
//     there to count them. Messages that the history in its place has trimmed
//     are reported with their number;
//   - two interruptions without a message of a publisher between them, for a
//     member that joined between them;
//   - holes of 2^32 messages or more, which no publisher can have caused.
//
// Messages that were missed before a member joined are not reported to it.
type GapError struct {
	// Room is the name of the room. It is empty for direct messages, messages to
	// the member's user and messages to everyone. Their gaps are reported once a
	// first one has come to this hub: a direct message of another hub, a message
	// to that user, or one to everyone.
	Room string
	// Missed is the number of messages that are known to be missing, 0 or more.
	// The content of lost messages is not known, so the number includes those
	// that this member would not have got (Except, ExceptRooms, Volatile, a second
	// copy).
	Missed int
	// Unknown is set if more than Missed may be missing: a link was down, and
	// it is not known yet what was published meanwhile, or a server that has
	// been replaced took a message, and its publisher may send it again. If
	// messages are missing, the next message of their publisher shows how many,
	// and another GapError follows, except in the cases listed at GapError.
	Unknown bool
}

func (e *GapError) Error() string {
	where := "direct messages"
	if e.Room != "" {
		where = "room " + strconv.Quote(e.Room)
	}
	switch {
	case e.Unknown && e.Missed == 0:
		return fmt.Sprintf("fanout: %s: messages may be missing", where)
	case e.Unknown && e.Missed == 1:
		return fmt.Sprintf("fanout: %s: missed 1 message or more", where)
	case e.Unknown:
		return fmt.Sprintf("fanout: %s: missed %d messages or more", where, e.Missed)
	case e.Missed == 1:
		return fmt.Sprintf("fanout: %s: missed 1 message", where)
	}
	return fmt.Sprintf("fanout: %s: missed %d messages", where, e.Missed)
}

// explain adds to an error that comes from the end of ctx what the adapter
// knows of its links. It is text only: errors.Is finds what it found before.
func (h *Hub) explain(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || !errors.Is(err, context.Cause(ctx)) {
		return err
	}
	return h.withHealth(err)
}

// withHealth is explain for an error that says itself that the time was over.
func (h *Hub) withHealth(err error) error {
	hc, ok := h.adapter.(adapter.HealthChecker)
	if !ok || errors.Is(err, ErrClosed) {
		return err
	}
	if why := hc.Health(); why != nil && !strings.Contains(err.Error(), why.Error()) {
		return fmt.Errorf("%w (adapter: %v)", err, why)
	}
	return err
}

// A PartialError means that some hubs have not answered, or could not do what
// they were asked. What the others answered has been returned, and commands
// have taken effect there.
type PartialError struct {
	// Silent are the hubs that are known not to have answered, or not
	// completely: in an Ask also those whose members have not all answered.
	Silent []SilentHub
	// Unknown is the number of hubs that got the question, have not answered,
	// and whose IDs are not known.
	Unknown int
	// Unanswered is the number of members that got the question of an Ask and
	// have not answered.
	Unanswered int
	// Failed are the hubs that could not do what they were asked.
	Failed []FailedHub
	// Err is why no more answers were awaited: the error of ctx, mostly. It is
	// nil if all hubs have answered, and some have failed.
	Err error
}

// A SilentHub is a hub that has not answered.
type SilentHub struct {
	ID    string
	Since time.Time // when this hub last heard of it; zero: never
}

// A FailedHub is a hub that could not do what it was asked.
type FailedHub struct {
	ID     string
	Reason string // the hub's own words
}

func (e *PartialError) Error() string {
	var parts []string
	for _, h := range e.Silent {
		s := "hub " + h.ID + " has not answered completely"
		if !h.Since.IsZero() {
			s += ", last heard " + h.Since.UTC().Format(time.RFC3339)
		}
		parts = append(parts, s)
	}
	if e.Unknown > 0 {
		parts = append(parts, fmt.Sprintf("hubs that have not answered and are not known: %d", e.Unknown))
	}
	if e.Unanswered > 0 {
		parts = append(parts, fmt.Sprintf("members that have not answered: %d", e.Unanswered))
	}
	for _, h := range e.Failed {
		parts = append(parts, "hub "+h.ID+" failed: "+h.Reason)
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	return "fanout: incomplete: " + strings.Join(parts, "; ")
}

// Unwrap returns Err.
func (e *PartialError) Unwrap() error { return e.Err }
