package fanout

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/questions"
	"github.com/fanoutgo/fanout/internal/wire"
)

// A MemberInfo describes a member, wherever it is connected.
type MemberInfo struct {
	ID    string    // see Member.ID
	User  string    // of MemberOptions
	Info  []byte    // see Member.Info; nil if there is none
	Since time.Time // when it connected, to a tenth of a second, by its hub's clock
}

// Hub returns the ID of the hub that holds the member.
func (m MemberInfo) Hub() string {
	hub, _ := hubOf(m.ID)
	return hub
}

// A UserInfo describes a user.
type UserInfo struct {
	User        string
	Connections int       // members of the user in the selection, on all hubs
	Info        [][]byte  // of each of these connections that has one, in no order
	Since       time.Time // the first of them connected
}

// A HubInfo describes a hub.
type HubInfo struct {
	ID      string
	Since   time.Time // when it was made, by its own clock
	Release string    // the version of this module in the hub's program
	Members int
	Rooms   int // those it knows, counted as in Stats.Rooms
}

// Count returns the number of selected members on all hubs. Hubs answer with a
// number and not with a list. It returns as soon as every hub that has members
// of the selection has answered: at once if there is none.
//
// If some hubs have not answered when ctx ends, or after
// [Options.PublishTimeout] if ctx has no deadline, the error is a
// [*PartialError], and the number is that of the hubs that have. A hub that
// closes is not waited for, and neither is one that is known to be gone: see
// [Hub.Hubs].
//
// What happens while the link of a hub to the backend is down depends on the
// selection. If it is of everyone, or of members of that hub, Count waits until
// the hub is known to be gone, and names it if ctx ends before. If it is of
// rooms or users, and the backend counts receivers (see [ErrNoReceiver]), that
// hub looks like one that has no members there: it is left out. On other
// backends every hub has to say whether it has members there, and a silent one
// is named. A hub that is not heard of yet can be left out as well: hubs know
// of each other a second after they start. The members of this hub are counted
// even if its own link is down.
//
// A member of several rooms of the selection counts once. With Local only the
// members of this hub count, and nobody is asked. Volatile has no effect. Other
// errors are [ErrEmptySelection], [ErrInvalidRoom], [ErrInvalidMember],
// [ErrInvalidUser], [ErrInvalidOption] if Options.Room returns one,
// [ErrTooLarge] for a selection with too many names, [ErrRefused], [ErrClosed],
// and that of ctx if it ends before the question is sent.
func (s Selection) Count(ctx context.Context) (int, error) {
	n := uint64(0)
	err := s.query(ctx, "count", &control.Question{Op: control.OpCount}, func(_ uint64, a *control.Answer) bool {
		if a.Status.Final() {
			n += a.Count
		}
		return true
	})
	return int(n), err
}

// Members yields the selected members of all hubs, each once, in no order, as
// hubs answer: the first before the last hub has answered. Members that come or
// go meanwhile may or may not be among them. The memory that this takes is
// bounded, here and on the other hubs, however many members there are: hubs
// send the next page, of some 48 KiB, when one has been consumed.
//
// An error is the last thing that is yielded. Members waits as long as
// [Selection.Count], and has the same errors. To leave the loop early is no
// error. The body of the loop may call the hub, also [Hub.Close]: then
// [ErrClosed] comes next.
func (s Selection) Members(ctx context.Context) iter.Seq2[MemberInfo, error] {
	return s.members(ctx, "members")
}

// members is Members for an operation, which errors name.
func (s Selection) members(ctx context.Context, op string) iter.Seq2[MemberInfo, error] {
	return entries(ctx, s, op, control.Question{Op: control.OpMembers}, func(hub uint64, e *control.Entry) MemberInfo {
		m := MemberInfo{ID: item.MemberID(hubID(hub), e.Number), User: string(e.Name), Since: time.UnixMilli(int64(e.Since))}
		if len(e.Data) > 0 {
			m.Info = slices.Clone(e.Data) // not to keep the page
		}
		return m
	})
}

// Users yields each user of the selection once, with the number of its
// connections. Members without a user are left out. Users has to see all of
// them before it yields the first, so it takes memory for each. With a
// [*PartialError] the users on the hubs that have answered are yielded before
// it. Errors are those of [Selection.Members].
func (s Selection) Users(ctx context.Context) iter.Seq2[UserInfo, error] {
	return func(yield func(UserInfo, error) bool) {
		users := make(map[string]*UserInfo)
		var failed error
		for m, err := range s.members(ctx, "users") {
			if failed = err; err != nil || m.User == "" {
				continue
			}
			u := users[m.User]
			if u == nil {
				u = &UserInfo{User: m.User, Since: m.Since}
				users[m.User] = u
			}
			u.Connections++
			if m.Since.Before(u.Since) {
				u.Since = m.Since
			}
			if len(m.Info) > 0 {
				u.Info = append(u.Info, m.Info)
			}
		}
		for _, u := range users {
			if !yield(*u, nil) {
				return
			}
		}
		if failed != nil {
			yield(UserInfo{}, failed)
		}
	}
}

// Hubs yields the hubs that share this one's backend and prefix, this one too,
// as they answer. Errors are those of [Selection.Count].
//
// Hubs watch each other. When one is killed, or has lost its link to the
// backend, the others know that it is gone within 4 s on a backend that counts
// receivers, and within 8 s on others; when it is heard again, it is listed
// again. A hub that pauses for a second is not taken for gone. A hub that
// closes announces it.
func (h *Hub) Hubs(ctx context.Context) iter.Seq2[HubInfo, error] {
	return entries(ctx, h.Everyone(), "hubs", control.Question{Op: control.OpHubs}, func(hub uint64, e *control.Entry) HubInfo {
		return HubInfo{
			ID: hubID(hub), Since: time.UnixMilli(int64(e.Since)), Release: string(e.Name),
			Members: int(e.Count), Rooms: int(e.Number),
		}
	})
}

// entries yields what info makes of each entry of the answers to a question,
// and then the error, if there is one.
func entries[T any](ctx context.Context, s Selection, op string, q control.Question, info func(hub uint64, e *control.Entry) T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		stopped, asked := false, q // the loop may run again
		err := s.query(ctx, op, &asked, func(hub uint64, a *control.Answer) bool {
			for i := range a.Entries {
				if stopped = !yield(info(hub, &a.Entries[i]), nil); stopped {
					return false
				}
			}
			return true
		})
		if err != nil && !stopped {
			var none T
			yield(none, err)
		}
	}
}

// Join brings the selected members into rooms, on their hubs, as [Room.Join]
// does. When it returns nil, every member that was selected when the command
// reached its hub has joined: what any hub publishes from then on reaches it.
// It is no error if a member ends or leaves meanwhile, or if [Options.Admit]
// refuses it. A hub runs the command once, even if it has to be sent several
// times.
//
// A hub whose link to the backend is down gets the command when the link is
// back, if that is before ctx ends and before the other hubs take it for gone:
// see [Hub.Hubs]. Otherwise Join stops waiting for it, and its members stay as
// they are. A rule that must hold for such members, too, such as a ban, belongs
// in [Options.Admit]. Repeat the command once Hubs yields the hub again.
//
// If hubs have not answered in time, or have not been able to do it, the error
// is a [*PartialError]; the command may still take effect there. Other errors
// are those of [Selection.Count] and [ErrInvalidRoom].
func (s Selection) Join(ctx context.Context, rooms ...string) error {
	return s.command(ctx, "join", control.OpJoin, rooms)
}

// Leave takes the selected members out of rooms, on their hubs, as [Room.Leave]
// does. Rooms that they are not in have no effect. Errors, and hubs that cannot
// be reached, are as for [Selection.Join].
func (s Selection) Leave(ctx context.Context, rooms ...string) error {
	return s.command(ctx, "leave", control.OpLeave, rooms)
}

// Close ends the selected members, on their hubs. What was published before to
// the rooms of the selection, by this hub, or by another whose Publish has
// returned, reaches them first; then Receive returns a [*ClosedError] with the
// reason, of up to 1,024 bytes (a close frame of a WebSocket has room for 123).
// It does not keep a client from connecting again: see [Options.Admit].
//
// If the selection is of users, of members or of everyone, two things reach
// them first: what was published before to the same selection, and what has
// come to their hub by then in any room.
//
// When Close returns nil they are in no room, and a Join of theirs returns the
// [*ClosedError]. A member that does not read what is left for it ends after
// 5 s; until then [Member.Done] is open. Errors are those of [Selection.Count],
// and [ErrTooLarge]. For hubs that cannot be reached see [Selection.Join].
func (s Selection) Close(ctx context.Context, reason string) error {
	if len(reason) > control.MaxText {
		return failed("close", fmt.Errorf("%w: a reason of %d bytes, at most %d are allowed", ErrTooLarge, len(reason), control.MaxText))
	}
	q := &control.Question{Op: control.OpClose, Text: []byte(reason)}
	return s.query(ctx, "close", q, func(uint64, *control.Answer) bool { return true })
}

// command has all hubs bring the members into rooms, or take them out.
func (s Selection) command(ctx context.Context, op string, what control.Op, rooms []string) error {
	q := &control.Question{Op: what, Rooms: distinct(rooms)}
	switch n := len(q.Rooms); {
	case n == 0:
		return failed(op, fmt.Errorf("%w: no room is named", ErrEmptySelection))
	case n > maxNames:
		return failed(op, fmt.Errorf("%w: %d rooms, at most %d are allowed", ErrTooLarge, n, maxNames))
	}
	for _, room := range q.Rooms {
		if err := wire.CheckRoom(room); err != nil {
			return failed(op, fmt.Errorf("%w %s: %w", ErrInvalidRoom, quoteName(room), err))
		}
	}
	return s.query(ctx, op, q, func(uint64, *control.Answer) bool { return true })
}

// A Reply is the answer of a member to Selection.Ask.
type Reply struct {
	Member string // its ID
	User   string // of MemberOptions
	Data   []byte
}

// Ask sends data to the selected members as a question, a direct message that
// they answer with [Member.Reply], and yields the answers as they come. It ends
// when all members that got the question have answered or ended. No member can
// answer for another.
//
// If the selection is one of rooms, a member that leaves them before it answers
// is not waited for either, and its answer is no longer taken, even if it comes
// back. A member that is still in another room of the selection is waited for.
//
// A question is in no history. Ask waits as long as [Selection.Count], and has
// the same errors. In its [*PartialError] Unanswered is the number of members
// that got the question and have not answered, including those that have ended
// or left. Data may be as long as a message. The body of the loop may call the
// hub, as that of [Selection.Members] may.
func (s Selection) Ask(ctx context.Context, data []byte) iter.Seq2[Reply, error] {
	return func(yield func(Reply, error) bool) {
		if s.hub != nil {
			if err := s.hub.checkSize(data); err != nil {
				yield(Reply{}, failed("ask", err))
				return
			}
		}
		stopped, answers := false, 0
		asked := make(map[uint64]int) // members by hub
		q := &control.Question{Op: control.OpAsk, Data: data}
		err := s.query(ctx, "ask", q, func(hub uint64, a *control.Answer) bool {
			asked[hub] = max(asked[hub], int(a.Count))
			for i := range a.Entries {
				e := &a.Entries[i]
				answers++
				r := Reply{Member: item.MemberID(hubID(hub), e.Number), User: string(e.Name), Data: item.CloneData(e.Data)}
				if stopped = !yield(r, nil); stopped {
					return false
				}
			}
			return true
		})
		if partial, is := errors.AsType[*PartialError](err); is {
			for _, n := range asked {
				partial.Unanswered += n
			}
			partial.Unanswered -= answers
		}
		if err != nil && !stopped {
			yield(Reply{}, err)
		}
	}
}

// query puts a question to the hubs of the selection, or to this one alone if
// it is Local, and calls take for each page of an answer.
func (s Selection) query(ctx context.Context, op string, q *control.Question, take questions.Take) error {
	q.Names, q.Except, q.ExceptRooms, q.Scope = s.names, s.except, s.exceptRooms, s.scope()
	err := s.check(nil)
	switch {
	case err != nil:
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case s.local:
		err = partialError(s.hub.switchboard.AskHere(ctx, q, take))
	default:
		err = partialError(s.hub.switchboard.Ask(ctx, q, take, s.lanes))
	}
	if _, partial := errors.AsType[*PartialError](err); partial {
		return err // it says itself what it is about
	}
	return failed(op, err)
}

// scope returns what kind of names a selection has.
func (s Selection) scope() control.Scope {
	switch s.kind {
	case toEveryone:
		return control.ScopeEveryone
	case toMembers:
		return control.ScopeMembers
	case toUsers:
		return control.ScopeUsers
	}
	return control.ScopeRooms
}

// partialError returns the error of a question as users get it.
func partialError(err error) error {
	incomplete, is := errors.AsType[*questions.Incomplete](err)
	if !is {
		return err
	}
	e := &PartialError{Unknown: incomplete.Unknown, Err: incomplete.Err}
	for _, k := range incomplete.Silent {
		e.Silent = append(e.Silent, SilentHub{hubID(k.Hub), k.Heard})
	}
	for _, f := range incomplete.Failed {
		e.Failed = append(e.Failed, FailedHub{hubID(f.Hub), f.Why})
	}
	return e
}

// lanes returns the channels in which a question to the selection travels,
// held.
func (s Selection) lanes(q *control.Question) (lanes []questions.Lane) {
	h := s.hub
	switch s.kind {
	case toEveryone:
		out := h.everyone.outgoing()
		out.Hold()
		return []questions.Lane{{Out: out}}
	case toMembers:
		return questions.InboxLanes(&h.notices, s.names)
	}
	complete := false
	defer func() {
		if !complete { // Options.Room has panicked
			questions.Release(lanes)
		}
	}()
	for i, name := range s.names {
		room := name
		if s.kind == toUsers {
			room = "" // a user's channel is a room without a name
		}
		out := h.acquire(room, h.channelOf(q.Scope, name)).outgoing()
		lanes = append(lanes, questions.Lane{Out: out, Names: s.names, Which: uint64(i)})
	}
	complete = true
	return lanes
}
