package fanout

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/fanoutgo/fanout/adapter"
)

// Errors arrive wrapped with what was tried and on which room; test for them
// with errors.Is. The error of an ended context is reachable the same way.
var (
	// ErrClosed is returned by everything that is asked of a closed Hub,
	// Member or Adapter. From Receive it is final.
	ErrClosed = adapter.ErrClosed

	// ErrSlow is the final error of a member that fell out of a room's window
	// under the overflow policy Disconnect.
	ErrSlow = errors.New("fanout: member too slow")

	// ErrInvalidRoom means that a room name is empty, longer than 255 bytes,
	// or not UTF-8.
	ErrInvalidRoom = errors.New("fanout: invalid room name")

	// ErrInvalidMember means a nil Member, a Member of another Hub, or a
	// member ID that no hub can have given.
	ErrInvalidMember = errors.New("fanout: invalid member")

	// ErrEmptySelection means a Selection of no rooms or no members. It is
	// never taken for everybody.
	ErrEmptySelection = errors.New("fanout: empty selection")

	// ErrTooLarge means that data is longer than Options.MaxMessage, or that a
	// Selection has more names than it may have.
	ErrTooLarge = errors.New("fanout: message too large")

	// ErrInvalidOption means that New was given an option out of its range.
	ErrInvalidOption = adapter.ErrInvalidOption

	// ErrInvalidPosition means a position that no message of the room can have:
	// malformed, of another room, or ahead of the room's history.
	ErrInvalidPosition = errors.New("fanout: invalid position")

	// ErrNoHistory means that Resume or History was asked of a room that keeps
	// no history ([RoomOptions]).
	ErrNoHistory = errors.New("fanout: room keeps no history")

	// ErrJoined is returned by a Resume of a member that is in the room, or is
	// joining it: nobody can be at two places of one room.
	ErrJoined = errors.New("fanout: member is in the room")

	// ErrLeft is returned by a Join or Resume that was overtaken by a Leave of the same
	// member and room: the Leave was asked for last, so it holds.
	ErrLeft = errors.New("fanout: left while joining")

	// ErrNoReceiver means that a direct message went to a hub that nobody
	// listens for: the hub is gone, or its link is down just now. It is
	// reported where the backend can tell.
	ErrNoReceiver = errors.New("fanout: no hub listens for the member")

	// ErrLocalOnly means that a publish failed in the backend, and that
	// Options.LocalFallback delivered it to the members of this hub alone.
	ErrLocalOnly = errors.New("fanout: delivered to local members only")

	// ErrUnsent means that nobody has got, or can still get, any part of a
	// message. An adapter promises so for a frame by wrapping it in an error of
	// Adapter.Publish.
	ErrUnsent = adapter.ErrUnsent

	// ErrRefused is for adapters: it means that the backend refuses what was
	// asked for a reason that waiting does not cure, such as missing rights, a
	// command that it does not know, or a frame that is too long for it. The hub
	// does not try again, but for its own channels, which it tries as long as it
	// lives. A backend that is full, busy or down has not refused.
	ErrRefused = adapter.ErrRefused

	// ErrBrokenHistory means that what a backend keeps of a room's history is not
	// what the library has written: somebody else has written there, or a part
	// of it is damaged. Publish, Join, Resume and History of that room return it
	// at once, with what is wrong, and members that are in the room are told of a
	// gap. The room works again when somebody has mended or deleted the keys.
	ErrBrokenHistory = adapter.ErrBrokenHistory

	errEmptyBuffer = errors.New("fanout: ReceiveBatch needs a buffer for at least one message")

	// ErrConcurrentReceive means that a second goroutine called Receive,
	// ReceiveBatch or Messages of a member while a first one was in it.
	ErrConcurrentReceive = errors.New("fanout: concurrent Receive on one member")
)

// A GapError tells a member that messages of a room did not reach it. It comes
// from Receive at the place in the room's order where they are missing, and it
// is not final: whoever calls Receive again gets the messages after the gap.
//
// The sum of what a member received and of all Missed is what was published to
// it, once every publisher has been heard again after an Unknown gap. The number
// does not follow, and Unknown is all that is said, of
//
//   - a publisher that was silent for more than ten minutes, or was heard for
//     the first time after the gap;
//   - messages of programs that are no hubs, which carry no numbers;
//   - what a server lost before a Resume: the member was not there to count.
//     What the history that took its place does not keep any more is in the
//     number;
//   - two interruptions, with no word of a publisher between them, to a member
//     that joined between them;
//   - numbers that nobody can have given: a hole of 2^32 messages or more.
//
// What was missed in an interruption before a member joined is not reported to
// it.
type GapError struct {
	// Room is the room; empty for direct messages and those to everyone. Gaps
	// of those are reported only after the first such message has come to this hub.
	Room string
	// Missed is the number of messages that are known to be missing, 0 or more.
	// Nobody can look into what is lost, so messages that were not for this
	// member (Except, ExceptRooms, a second copy) are among them.
	Missed int
	// Unknown is set when more than Missed may be missing: a link was down,
	// and nobody can say yet what passed meanwhile. If something did, the next
	// message of its publisher shows how many, and another GapError tells, except
	// as listed above.
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

// gaveUp is the error of a publish whose context has ended, after an attempt
// that failed with last.
func (h *Hub) gaveUp(ctx context.Context, unsent bool, last error) error {
	err := context.Cause(ctx)
	if errors.Is(last, err) {
		err = last // which says more
	} else {
		err = fmt.Errorf("%w (last: %w)", err, last)
	}
	return mark(h.withHealth(err), unsent)
}

// mark has an error say that nothing was sent, if that is so. If it is not, the
// error of a later attempt must not say it either.
func mark(err error, unsent bool) error {
	switch says := errors.Is(err, ErrUnsent); {
	case unsent && !says:
		return fmt.Errorf("%w: %w", err, ErrUnsent)
	case says && !unsent:
		return fmt.Errorf("an earlier attempt may have arrived; the last: %w", sent(err))
	}
	return err
}
