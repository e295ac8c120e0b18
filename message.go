package fanout

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/announcer"
	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/history"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/presence"
	"github.com/fanoutgo/fanout/internal/questions"
)

// A Message is what a member receives.
type Message struct {
	// Room is the room that the message was published to. It is empty for a
	// direct message, for one to a user, for one to everyone, and for a
	// question: see [Member.IsQuestion].
	Room string

	// Data is what was published. All members of the process share these bytes:
	// do not modify them. Work that is the same for all members can be done
	// once, since &Data[0] is the same for all of them. The bytes stay valid as
	// long as they are held, and may keep in memory the whole frame that brought
	// them (some 64 KiB).
	Data []byte

	// Sender is the ID of the hub that published the message. It is empty if a
	// program that is not a hub published it to the room's channel, and
	// "presence" for a change of presence: see [Message.Presence].
	Sender string

	// Position is the place of the message in the room's history. [Room.Resume]
	// continues after it. It is the zero Position in a room without a history, and
	// for messages that the history does not have: those of Local and Unkept
	// selections, those that Options.LocalFallback delivered, changes of presence,
	// those that other programs only published, and those whose place in the
	// history was lost or not found.
	Position Position
}

// A PresenceChange says who has come to a room and who has left it. Members of
// a room with [RoomOptions.Presence] receive them among its messages: see
// [Message.Presence].
//
// The first change that a member receives has Reset set, and lists who is in
// the room. Messages may come before it. It may lack the member itself, and
// others who have just come: they follow as changes. Later changes, applied in
// order, keep the list right. A member that has fallen out of the room's window
// receives a new list. Once nobody comes or goes and links are up, the lists on
// all hubs are equal, and name the persons whose connections
// [Selection.Members] yields.
type PresenceChange struct {
	// Reset means that Joined is the whole list: forget what was before.
	Reset bool

	// Joined are persons whose first connection has come, Updated those whose
	// Info has changed, and Left those whose last connection has gone. Those
	// that have left have no Info.
	Joined, Updated, Left []Person

	// Large means that there are more connections than RoomOptions.PresenceList.
	// Joined is then a sample, Reset is set, and single changes are not reported.
	Large bool

	// Count is the number of connections in the room, on all hubs, at the time of
	// this change. A person may have several: a second one causes no change.
	// [Selection.Count] returns the number as it is now.
	Count int
}

// A Person is a user, with all connections of it, or a member that has no user.
type Person struct {
	User   string // MemberOptions.User
	Member string // the member's ID, if it has no user
	Info   []byte // of the person's oldest connection; do not modify it

	// Since is when the person's oldest connection was made, by the clock of its
	// hub. If another connection takes its place, as after a reload within
	// RoomOptions.Grace, no change is announced for that alone. So members that
	// were there before keep the earlier time, and members that join later get the
	// new one in their list.
	Since time.Time
}

// Presence returns the change of presence that a message is. It is not ok if
// the message is an ordinary one. A change has no Position, is in no history,
// and does not count as missed.
//
// All members share the Data of a change. It takes some microseconds to decode,
// 0.2 ms with 600 persons, so a server that forwards changes to many clients
// may do it once: &Data[0] is the same for all of them.
func (m Message) Presence() (c PresenceChange, ok bool) {
	if m.Sender != announcer.Sender {
		return c, false
	}
	d, err := presence.Decode(m.Data)
	if err != nil {
		return c, false
	}
	return PresenceChange{
		Reset: d.Reset, Large: d.Large, Count: d.Count,
		Joined: persons(d.Joined), Updated: persons(d.Updated), Left: persons(d.Left),
	}, true
}

func persons(list []presence.Person) []Person {
	if len(list) == 0 {
		return nil
	}
	all := make([]Person, len(list))
	for i, p := range list {
		all[i] = Person{User: p.User, Info: p.Info, Since: time.UnixMilli(int64(p.Since))}
		if p.User == "" {
			all[i].Member = item.MemberID(hubID(p.Hub), p.Member)
		}
	}
	return all
}

// A Position is a place in a room's history. Offsets number the room's messages
// contiguously, from 1. A new epoch begins when another server takes over the
// history: the room's slot moved, a replica took over, the server was
// restarted, or the history was lost. Offsets continue after what the new
// server has. If it lacks messages, their offsets are given again, in the new
// epoch.
//
// Positions of one room can be compared. The position of another room is
// recognised ([ErrInvalidPosition]). The zero Position is before everything.
type Position struct {
	Epoch  uint64
	Offset uint64
}

// IsZero reports whether p is the zero Position.
func (p Position) IsZero() bool { return p == Position{} }

// positionVersion begins the strings of positions, so that a later release can
// write others, and read these.
const positionVersion = "v1-"

// String returns the position as "v1-epoch-offset": the version of the form,
// and two decimal numbers.
func (p Position) String() string { return fmt.Sprintf("%s%d-%d", positionVersion, p.Epoch, p.Offset) }

// Before reports whether p comes before q in the history of one room.
func (p Position) Before(q Position) bool {
	return p.Epoch < q.Epoch || (p.Epoch == q.Epoch && p.Offset < q.Offset)
}

// ParsePosition reads what [Position.String] has written; "v1-0-0" is the zero
// Position. Anything else is [ErrInvalidPosition]: signs, spaces, leading
// zeros, an offset without an epoch, and a string of another version.
func ParsePosition(s string) (Position, error) {
	rest, ok := strings.CutPrefix(s, positionVersion)
	epoch, offset, two := strings.Cut(rest, "-")
	p := Position{}
	var err1, err2 error
	p.Epoch, err1 = strconv.ParseUint(epoch, 10, 64)
	p.Offset, err2 = strconv.ParseUint(offset, 10, 64)
	if ok && two && err1 == nil && err2 == nil && p.String() == s && (p.Epoch != 0 || p.Offset == 0) {
		return p, nil
	}
	if len(s) > 64 {
		s = s[:64] + "…"
	}
	if version, _, more := strings.Cut(s, "-"); more && otherVersion(version) {
		return Position{}, fmt.Errorf("fanout: %w: %q is of version %s, and this release reads v1", ErrInvalidPosition, s, version)
	}
	return Position{}, fmt.Errorf("fanout: %w: %q is not v1-epoch-offset, as in \"v1-0-0\" and as Position.String writes it", ErrInvalidPosition, s)
}

// MarshalText returns what [Position.String] returns, so JSON has a position as
// a string. (As numbers, JavaScript would round it.)
func (p Position) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what [ParsePosition] reads, with the same error.
func (p *Position) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePosition(string(text))
	return err
}

// otherVersion reports whether a string begins a position of another version.
func otherVersion(s string) bool {
	digits, ok := strings.CutPrefix(s, "v")
	n, err := strconv.ParseUint(digits, 10, 32)
	return ok && err == nil && n != 1
}

// An epoch of a backend is some milliseconds since 1970, or a little more.
// The epoch that users see has a mark of the room in its low bits, by which a
// position of another room is told apart.
const markBits = 20

// began is when the process began.
var began = time.Now()

// believedEpoch reports whether a history can have begun an epoch by now. It
// looks at the clock only if it could not have when the process began.
func believedEpoch(epoch uint64) bool {
	return history.BelievedEpoch(epoch, began.UnixMilli()) || history.BelievedEpoch(epoch, time.Now().UnixMilli())
}

// believed reports whether a position of a backend's can be that of a message.
func believed(p adapter.Position) bool {
	return believedEpoch(p.Epoch) && history.BelievedOffset(p.Offset)
}

// roomMark returns the mark of a room, from its channel: FNV-1a, folded.
func roomMark(channel string) uint64 {
	h := fnv.New32a()
	h.Write([]byte(channel))
	sum := h.Sum32()
	return uint64((sum>>markBits)^sum) & (1<<markBits - 1)
}

// public turns a backend's position into a user's.
func public(p adapter.Position, mark uint64) Position {
	if p.IsZero() {
		return Position{}
	}
	return Position{Epoch: p.Epoch<<markBits | mark, Offset: p.Offset}
}

// private turns a position that the hub gave to users into the backend's.
func (p Position) private() adapter.Position {
	return adapter.Position{Epoch: p.Epoch >> markBits, Offset: p.Offset}
}

// of turns a user's position of the room with a mark into the backend's.
func (p Position) of(mark uint64) (adapter.Position, error) {
	switch {
	case p.IsZero():
		return adapter.Position{}, nil
	case p.Epoch == 0:
		return adapter.Position{}, fmt.Errorf("%w: %v has an offset without an epoch", ErrInvalidPosition, p)
	case p.Epoch&(1<<markBits-1) != mark:
		return adapter.Position{}, fmt.Errorf("%w: %v is a position of another room", ErrInvalidPosition, p)
	case p.Offset > history.MaxOffset:
		return adapter.Position{}, fmt.Errorf("%w: %v has an offset that no message has", ErrInvalidPosition, p)
	}
	return p.private(), nil
}

// IsQuestion reports whether the message, which the member has received, is a
// question that can be answered with Reply. A question can be answered while
// its asker waits.
func (m *Member) IsQuestion(msg Message) bool { return m.hub.pollOf(&msg) != nil }

// Reply answers a question: to is the message that the member has received,
// with its Data as it was, not a copy. Reply copies data. A hub holds up to
// 1 MiB of replies to a question until they are sent: while this one does not
// fit, Reply waits, at most until ctx ends.
//
// The error is [ErrNoQuestion] if
//
//   - the message is no question;
//   - the member has answered it: a member answers once;
//   - the member has ended, or has left the rooms that were asked (see
//     [Selection.Ask]);
//   - the asker has gone.
//
// Other errors are [ErrTooLarge] and that of ctx.
func (m *Member) Reply(ctx context.Context, to Message, data []byte) error {
	if err := cmp.Or(context.Cause(ctx), m.hub.checkSize(data)); err != nil {
		return failed("reply", err)
	}
	p := m.hub.pollOf(&to)
	if p == nil {
		return failed("reply", ErrNoQuestion)
	}
	open, err := p.Reply(ctx, control.Entry{Number: m.num, Name: []byte(m.User()), Data: data})
	if !open {
		err = ErrNoQuestion
	}
	return failed("reply", err)
}

// pollOf returns the question that a message is, nil if it is none. All members
// share its data, which has an address of its own.
func (h *Hub) pollOf(msg *Message) *questions.Poll { return h.switchboard.PollOf(msg.Data) }
