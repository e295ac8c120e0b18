package check_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/soak/check"
	"github.com/stretchr/testify/require"
)

// The clean run: two publishers take turns in three rooms, of which the first
// has no history, the second keeps all, the third five messages. Message i,
// from 0, is published at 100i+100 and received 10 later; its position is
// 1-(i+1).
//
//	a, b      are there from beginning to end
//	c         is there for messages 10 to 19, and resumes for 25 to 44 and 50 to
//	          59 in the room with history; elsewhere it joins anew
//	d         resumes from the zero position at message 30
//	faults    calm to message 19, a crash to 39, calm to 59, a failover to 79,
//	          a restart to 99
const (
	size  = 100
	plain = 0
	keeps = 1
	trims = 2
)

func list(client string, i int) *check.List {
	there := []string{"a", "b"}
	return &check.List{Client: client, At: published(i), People: there, Members: there, In: there}
}

func published(i int) check.Time { return time.Duration(100*i + 100) }

func message(i int) check.ID {
	return check.ID{Publisher: uint16(i % 2), Number: uint32(i / 2)}
}

// cleanRun returns a run without any fault of the library's.
func cleanRun() *check.Run {
	run := &check.Run{Faults: []check.Fault{
		{Name: "calm"},
		{Name: "crash", From: published(20) - 50, Lossy: true, Doubtful: true},
		{Name: "calm again", From: published(40) - 50},
		{Name: "failover", From: published(60) - 50, TwoOrders: true},
		{Name: "restart", From: published(80) - 50, Doubtful: true},
		{Name: "slots move", From: published(90) - 50, Moves: true},
	}}
	for _, keep := range []int{0, 1000, 5} {
		run.Rooms = append(run.Rooms, cleanRoom(keep))
	}
	return run
}

func cleanRoom(keep int) *check.Room {
	r := &check.Room{Name: fmt.Sprint("keeps", keep), Keeps: keep, Published: make([][]check.Publication, 2)}
	for i := range size {
		p := &r.Published[i%2]
		*p = append(*p, check.Publication{Begin: published(i), End: published(i) + 5})
	}
	stay := func(client string, from, to int) *check.Stay {
		s := &check.Stay{Client: client, Joining: published(from) - 45, Joined: published(from) - 40}
		for i := from; i < to; i++ {
			s.Events = append(s.Events, received(i, keep > 0))
		}
		s.Complete = to == size
		if to < size {
			s.Leaving, s.Left = published(to)-60, published(to)-55
		}
		r.Stays = append(r.Stays, s)
		return s
	}
	// A message that was missed meanwhile comes as soon as the stay begins.
	late := func(s *check.Stay, from int) {
		var list []check.Event
		for i := from; published(i) < s.Joined; i++ {
			e := received(i, true)
			e.At = s.Joined + 1
			list = append(list, e)
		}
		s.Events = append(list, s.Events...)
	}
	r.Lists = []*check.List{list("a", 50), list("b", 50)}
	stay("a", 0, size)
	stay("b", 0, size)
	stay("c", 10, 20)
	second, third := stay("c", 25, 45), stay("c", 50, 60)
	if keep > 0 {
		second.Resumed, second.Since = true, at(19)
		third.Resumed, third.Since = true, at(44)
	}
	switch keep {
	case 1000:
		late(second, 20)
		late(third, 45)
		d := stay("d", 30, size)
		d.Resumed = true
		late(d, 0)
		r.Reads = []*check.Read{{Client: "c", Since: at(29), Begin: published(50) - 20, End: published(50) - 10}}
		for i := 30; i < 50; i++ {
			r.Reads[0].Messages = append(r.Reads[0].Messages, received(i, true))
		}
	case 5: // 20 and 45 may have gone out of the history by then, the others not
		late(second, 21)
		late(third, 46)
		for _, s := range []*check.Stay{second, third} {
			gap := check.Event{At: s.Joined + 1, Gap: true, Missed: 1}
			s.Events = append([]check.Event{gap}, s.Events...)
		}
		// They come a little later than the one after which they are too old.
		for _, s := range []*check.Stay{second, third} {
			for i := range s.Events {
				s.Events[i].At = max(s.Events[i].At, s.Joined+50)
			}
		}
	}
	return r
}

func at(i int) fanout.Position { return fanout.Position{Epoch: 1, Offset: uint64(i + 1)} }

func received(i int, position bool) check.Event {
	e := check.Event{Asked: published(i) - 80, At: published(i) + 10, Message: message(i)}
	if position {
		e.Position = at(i)
	}
	return e
}

// Stays of a room.
const (
	stayA = iota
	stayB
	stayC1
	stayC2
	stayC3
	stayD
)

// find returns the index of message i among events.
func find(events []check.Event, i int) int {
	return slices.IndexFunc(events, func(e check.Event) bool { return !e.Gap && e.Message == message(i) })
}

// drop removes messages, and puts a gap at the place of the first, if there is
// to be one.
func drop(s *check.Stay, gap *check.Event, list ...int) {
	for n, i := range list {
		at := find(s.Events, i)
		if n == 0 && gap != nil {
			gap.Gap, gap.At = true, s.Events[at].At
			s.Events[at] = *gap
			continue
		}
		s.Events = slices.Delete(s.Events, at, at+1)
	}
}

func swap(s *check.Stay, i, j int) {
	a, b := find(s.Events, i), find(s.Events, j)
	s.Events[a], s.Events[b] = s.Events[b], s.Events[a]
}

func missed(n int) *check.Event  { return &check.Event{Missed: n} }
func unknown(n int) *check.Event { return &check.Event{Missed: n, Unknown: true} }

// publicationOf returns what is recorded of the publishing of message i.
func publicationOf(r *check.Room, i int) *check.Publication {
	return &r.Published[i%2][i/2]
}

// readLate reads the history after a position of another life of it.
func readLate(r *check.Room, unknown bool) {
	read := &check.Read{
		Client: "c", Since: fanout.Position{Offset: 2003}, Unknown: unknown,
		Begin: published(50) - 20, End: published(50) - 10,
	}
	for i := 45; i < 50; i++ {
		read.Messages = append(read.Messages, received(i, true))
	}
	r.Reads = append(r.Reads, read)
}

// Each of these changes one thing of the clean run's room, and is found by the
// one rule it breaks; or by none, where it is allowed.
var planted = []struct {
	name  string
	room  int
	plant func(r *check.Room)
	rule  check.Rule
}{
	{"somebody is not in a list of people", plain, func(r *check.Room) {
		r.Lists[1].People = []string{"a"}
	}, check.Presence},
	{"a list of people has somebody who has gone", keeps, func(r *check.Room) {
		r.Lists[0].Members, r.Lists[0].In = []string{"a"}, []string{"a"}
	}, check.Presence},
	{"Members and a list of people lack somebody", plain, func(r *check.Room) {
		r.Lists[1].People, r.Lists[1].Members = []string{"a"}, []string{"a"}
	}, check.Presence},
	{"somebody comes who is here", plain, func(r *check.Room) {
		r.Lists = append(r.Lists, &check.List{Client: "a", At: published(70), Wrong: []string{"was told that b came, who was here"}})
	}, check.Presence},
	{"trimmed, and perhaps more, where servers cannot know", trims, func(r *check.Room) {
		s := &check.Stay{Client: "c", Resumed: true, Since: at(59), Joining: published(85) - 45, Joined: published(85) - 40}
		s.Events = []check.Event{{At: s.Joined + 1, Gap: true, Missed: 20, Unknown: true}}
		for i := 80; i < 95; i++ {
			e := received(i, true)
			e.At = max(e.At, s.Joined+50)
			s.Events = append(s.Events, e)
		}
		s.Leaving, s.Left = published(95)-60, published(95)-55
		r.Stays = append(r.Stays, s)
	}, ""},
	{"trimmed, and perhaps more, where they can", trims, func(r *check.Room) { r.Stays[stayC3].Events[0].Unknown = true }, check.Kept},
	{"History after what is trimmed, and perhaps more", trims, func(r *check.Room) { readLate(r, true) }, ""},
	{"History after what is trimmed, without a word", trims, func(r *check.Room) { readLate(r, false) }, check.Kept},
	{"a message lost in silence", plain, func(r *check.Room) { drop(r.Stays[stayA], nil, 30) }, check.Silence},
	{"in a short stay", plain, func(r *check.Room) { drop(r.Stays[stayC2], nil, 30) }, check.Silence},
	{"the last message", plain, func(r *check.Room) { drop(r.Stays[stayA], nil, size-1) }, check.Silence},
	{"a whole publisher", plain, func(r *check.Room) {
		for i := 0; i < size; i += 2 {
			drop(r.Stays[stayB], nil, i)
		}
	}, check.Joined},
	{"lost and reported", plain, func(r *check.Room) { drop(r.Stays[stayA], missed(1), 30) }, ""},
	{"lost, and reported with its number later", plain, func(r *check.Room) {
		drop(r.Stays[stayA], unknown(0), 30, 31)
		i := find(r.Stays[stayA].Events, 33)
		r.Stays[stayA].Events = slices.Insert(r.Stays[stayA].Events, i, check.Event{At: published(33), Gap: true, Missed: 2})
	}, ""},
	{"reported too early", plain, func(r *check.Room) {
		drop(r.Stays[stayC2], nil, 36)
		r.Stays[stayC2].Events = slices.Insert(r.Stays[stayC2].Events, find(r.Stays[stayC2].Events, 32), check.Event{At: published(32), Gap: true, Missed: 1})
	}, check.Silence},
	{"reported too late", plain, func(r *check.Room) {
		drop(r.Stays[stayC2], nil, 30)
		r.Stays[stayC2].Events = slices.Insert(r.Stays[stayC2].Events, find(r.Stays[stayC2].Events, 33), check.Event{At: published(33), Gap: true, Missed: 1})
	}, check.Silence},
	{"a number too small", plain, func(r *check.Room) { drop(r.Stays[stayA], missed(1), 30, 31) }, check.Silence},
	{"in a short stay, a number too small", plain, func(r *check.Room) { drop(r.Stays[stayC2], missed(1), 30, 31) }, check.Silence},
	{"a number too great", plain, func(r *check.Room) { drop(r.Stays[stayA], missed(3), 30, 31) }, check.Silence},
	{"unknown for ever", plain, func(r *check.Room) { drop(r.Stays[stayA], unknown(0), 30) }, check.Silence},
	{"nothing lost, and unknown", plain, func(r *check.Room) {
		r.Stays[stayA].Events = slices.Insert(r.Stays[stayA].Events, 30, check.Event{At: published(30), Gap: true, Unknown: true})
	}, ""},
	{"an unclear message lost", plain, func(r *check.Room) {
		publicationOf(r, 30).Outcome = check.Unclear
		drop(r.Stays[stayA], nil, 30)
	}, ""},
	{"an unclear message that came", plain, func(r *check.Room) { publicationOf(r, 30).Outcome = check.Unclear }, ""},
	{"a message that cannot have been sent", plain, func(r *check.Room) {
		publicationOf(r, 30).Outcome = check.Unsent
		drop(r.Stays[stayA], nil, 30)
		drop(r.Stays[stayB], nil, 30)
	}, check.Outcomes},
	{"a message that nobody sent", plain, func(r *check.Room) {
		r.Stays[stayC1].Events[3].Message = check.ID{Publisher: 1, Number: size}
		publicationOf(r, 13).Outcome = check.Unclear // so that it is not missing
	}, check.Outcomes},

	{"missing right after Join", plain, func(r *check.Room) { drop(r.Stays[stayC1], nil, 10) }, check.Joined},
	{"right after Join in a room with history", keeps, func(r *check.Room) { drop(r.Stays[stayC1], nil, 10) }, check.Joined},
	{"missing right before Join returned", plain, func(r *check.Room) {
		r.Stays[stayC1].Joined = published(10)
		drop(r.Stays[stayC1], nil, 10)
	}, ""},
	{"missing right after Join and reported", plain, func(r *check.Room) { drop(r.Stays[stayC1], unknown(0), 10) }, ""},
	{"nothing more before Leave", plain, func(r *check.Room) { drop(r.Stays[stayC1], nil, 17, 18, 19) }, ""},

	{"two messages swapped", plain, func(r *check.Room) { swap(r.Stays[stayA], 10, 11) }, check.Order},
	{"for one who was there shortly", plain, func(r *check.Room) { swap(r.Stays[stayC1], 12, 13) }, check.Order},
	{"two messages of one publisher swapped for everybody", plain, func(r *check.Room) {
		for _, s := range r.Stays {
			if find(s.Events, 12) >= 0 {
				swap(s, 12, 14)
			}
		}
	}, check.Order},
	{"swapped while there were two primaries", plain, func(r *check.Room) { swap(r.Stays[stayA], 70, 71) }, ""},
	{"swapped with their positions", keeps, func(r *check.Room) { swap(r.Stays[stayA], 70, 71) }, check.Positions},
	{"swapped without their positions", keeps, func(r *check.Room) {
		e := r.Stays[stayA].Events
		e[70].Message, e[71].Message = e[71].Message, e[70].Message
	}, check.Positions},

	{"a message twice", plain, func(r *check.Room) { repeat(r.Stays[stayA], 30, 30) }, check.Once},
	{"much later", plain, func(r *check.Room) { repeat(r.Stays[stayA], 30, 50) }, check.Once},
	{"in a room with history", keeps, func(r *check.Room) { repeat(r.Stays[stayA], 30, 30) }, check.Once},
	{"again after Resume", keeps, func(r *check.Room) {
		r.Stays[stayC3].Events = slices.Insert(r.Stays[stayC3].Events, 0, received(44, true))
	}, check.Once},

	{"after Leave", plain, func(r *check.Room) { late(r.Stays[stayC1]) }, check.Left},
	{"after Leave in a room with history", keeps, func(r *check.Room) { late(r.Stays[stayC1]) }, check.Left},
	{"a gap after Leave", plain, func(r *check.Room) {
		late(r.Stays[stayC1])
		r.Stays[stayC1].Events[10] = check.Event{Asked: published(20), At: published(20), Gap: true, Unknown: true}
	}, check.Left},
	{"received when Leave was called", plain, func(r *check.Room) {
		late(r.Stays[stayC1])
		r.Stays[stayC1].Events[10].Asked = r.Stays[stayC1].Leaving
	}, ""},

	{"a position twice", keeps, func(r *check.Room) { r.Stays[stayC1].Events[5].Position = at(14) }, check.Positions},
	{"another message at a position", keeps, func(r *check.Room) {
		// It was never received by others, and is missing for nobody.
		for _, s := range r.Stays[:stayC1+1] {
			s.Events[find(s.Events, 15)].Message = check.ID{Publisher: 2}
		}
		r.Stays[stayC1].Events[5].Message = message(15)
		r.Published = append(r.Published, []check.Publication{{Begin: published(15), End: published(15), Outcome: check.Unclear}})
		publicationOf(r, 15).Outcome = check.Unclear
		drop(r.Stays[stayD], nil, 15)
		r.Stays[stayD].Since, r.Stays[stayD].Events = at(19), r.Stays[stayD].Events[19:]
	}, check.Positions},
	{"a message at two positions", keeps, func(r *check.Room) {
		for i := 10; i < 20; i++ { // in another epoch for this client
			r.Stays[stayC1].Events[i-10].Position.Epoch = 2
		}
		for _, s := range r.Stays[stayC2 : stayC3+1] {
			s.Since.Epoch = 2
			for i := range s.Events {
				s.Events[i].Position.Epoch = 2
			}
		}
	}, check.Positions},
	{"no position", keeps, func(r *check.Room) { r.Stays[stayA].Events[5].Position = fanout.Position{} }, check.Positions},
	{"a position in a room without history", plain, func(r *check.Room) { r.Stays[stayA].Events[5].Position = at(5) }, check.Positions},

	{"lost in a room with history, in silence", keeps, func(r *check.Room) { drop(r.Stays[stayA], nil, 30) }, check.Silence},
	{"an unclear one", keeps, func(r *check.Room) {
		publicationOf(r, 15).Outcome = check.Unclear
		drop(r.Stays[stayA], nil, 15)
	}, check.Silence},
	{"at the seam of a Resume", keeps, func(r *check.Room) { drop(r.Stays[stayC3], nil, 45) }, check.Silence},
	{"at the seam, by its publisher", keeps, func(r *check.Room) { drop(r.Stays[stayC3], nil, 46) }, check.Silence},
	{"with a gap, for no reason", keeps, func(r *check.Room) { drop(r.Stays[stayA], missed(1), 45) }, check.Kept},
	{"with an unknown gap, for no reason", keeps, func(r *check.Room) { drop(r.Stays[stayA], unknown(1), 45) }, check.Kept},
	{"at the seam with a gap, for no reason", keeps, func(r *check.Room) { drop(r.Stays[stayC3], missed(1), 45) }, check.Kept},
	{"a gap for no reason with nothing missing", keeps, func(r *check.Room) {
		r.Stays[stayA].Events = slices.Insert(r.Stays[stayA].Events, 45, check.Event{At: published(45), Gap: true, Unknown: true})
	}, check.Kept},
	{"a gap at a failover that loses nothing", keeps, func(r *check.Room) {
		r.Stays[stayA].Events = slices.Insert(r.Stays[stayA].Events, 65, check.Event{At: published(65), Gap: true, Unknown: true})
	}, check.Kept},
	{"by the servers", keeps, func(r *check.Room) {
		crash(r, func(s *check.Stay) { drop(s, unknown(1), 30) })
	}, ""},
	{"by the servers, told when the history is read", keeps, func(r *check.Room) {
		crash(r, func(s *check.Stay) { drop(s, unknown(1), 30) })
		for i := range r.Stays[stayC3].Events { // all of it was read later
			r.Stays[stayC3].Events[i].At += published(size)
		}
	}, ""},
	{"by the servers, told by the next message of its publisher", keeps, func(r *check.Room) {
		crash(r, func(s *check.Stay) { toldLater(s, 1) })
	}, ""},
	{"by the servers, told later with a number too great", keeps, func(r *check.Room) {
		crash(r, func(s *check.Stay) { toldLater(s, 2) })
	}, check.Silence},
	{"a number told later, of nothing that is missing", keeps, func(r *check.Room) {
		crash(r, func(s *check.Stay) { drop(s, unknown(1), 30); later(s, 34, 1) })
	}, check.Silence},
	{"by the servers, and in silence", keeps, func(r *check.Room) {
		crash(r, func(s *check.Stay) { drop(s, nil, 30) })
	}, check.Silence},
	{"by the servers, after a client had it, and stored again", keeps, func(r *check.Room) { storeTwice(r) }, ""},
	{"by the servers, stored again, and then lost in silence", keeps, func(r *check.Room) {
		storeTwice(r)
		drop(r.Stays[stayA], nil, 30)
	}, check.Silence},
	{"by servers that may be in doubt, but lose nothing", keeps, func(r *check.Room) { drop(r.Stays[stayA], unknown(1), 85) }, check.Kept},
	{"a false alarm of such servers", keeps, func(r *check.Room) {
		r.Stays[stayA].Events = slices.Insert(r.Stays[stayA].Events, 85, check.Event{At: published(85), Gap: true, Unknown: true})
	}, ""},
	{"a false alarm of servers to which slots move when they have just restarted", keeps, func(r *check.Room) {
		r.Stays[stayA].Events = slices.Insert(r.Stays[stayA].Events, 95, check.Event{At: published(95), Gap: true, Unknown: true})
	}, ""},
	{"by such servers, but they lose nothing", keeps, func(r *check.Room) { drop(r.Stays[stayA], unknown(1), 95) }, check.Kept},
	{"a false alarm of servers to which slots move much later", keeps, func(r *check.Room) {
		later := func(at *check.Time, from check.Time) {
			if *at > from {
				*at += check.Time(time.Minute)
			}
		}
		const from = 9000 // after message 88
		for i := range r.Published {
			for j := range r.Published[i] {
				later(&r.Published[i][j].Begin, from)
				later(&r.Published[i][j].End, from)
			}
		}
		for _, s := range r.Stays {
			for i := range s.Events {
				later(&s.Events[i].At, from)
			}
			later(&s.Left, from)
		}
		r.Stays[stayA].Events = slices.Insert(r.Stays[stayA].Events, 95, check.Event{At: r.Stays[stayA].Events[95].At, Gap: true, Unknown: true})
	}, check.Kept},
	{"by servers in a crash, and a false alarm later", keeps, func(r *check.Room) {
		tellTwice(r, published(40)-30)
	}, ""},
	{"by servers that may be in doubt, after what others lost", keeps, func(r *check.Room) {
		tellTwice(r, published(84)+20)
	}, check.Kept},
	{"the same, read late", keeps, func(r *check.Room) {
		tellTwice(r, published(84)+20)
		for i := range r.Stays[stayA].Events {
			r.Stays[stayA].Events[i].At += published(size)
		}
	}, check.Kept},
	{"the same, before one whose Publish had failed", keeps, func(r *check.Room) {
		tellTwice(r, published(84)+20)
		*publicationOf(r, 85) = check.Publication{Begin: published(84) + 6, End: published(84) + 10, Outcome: check.Unclear}
	}, check.Kept},
	{"a number that the offsets belie", keeps, func(r *check.Room) { drop(r.Stays[stayA], missed(2), 30) }, check.Silence},
	{"what is kept, after the zero position", keeps, func(r *check.Room) {
		s := r.Stays[stayD]
		s.Joining, s.Joined = published(15), published(16)
		s.Events = s.Events[10:]
	}, check.Kept},
	{"what was lost by servers, after the zero position", keeps, func(r *check.Room) {
		r.Stays[stayD].Events = r.Stays[stayD].Events[10:]
	}, ""},

	{"trimmed in silence", trims, func(r *check.Room) { r.Stays[stayC3].Events = r.Stays[stayC3].Events[1:] }, check.Silence},
	{"trimmed, a number too small", trims, func(r *check.Room) { drop(r.Stays[stayC2], nil, 21) }, check.Silence},
	{"trimmed too early", trims, func(r *check.Room) {
		drop(r.Stays[stayC3], nil, 46)
		r.Stays[stayC3].Events[0].Missed = 2
	}, check.Kept},

	{"History lacks the latest", keeps, func(r *check.Room) { r.Reads[0].Messages = r.Reads[0].Messages[:19] }, check.Kept},
	{"History lacks all", keeps, func(r *check.Room) { r.Reads[0].Messages = nil }, check.Kept},
	{"History has a hole", keeps, func(r *check.Room) {
		r.Reads[0].Messages = slices.Delete(r.Reads[0].Messages, 5, 6)
		publicationOf(r, 35).Outcome = check.Unclear
	}, check.Silence},
	{"History is out of order", keeps, func(r *check.Room) { slices.Reverse(r.Reads[0].Messages[4:6]) }, check.Positions},
	{"History lacks what came after it was called", keeps, func(r *check.Room) {
		r.Reads[0].Begin = published(49)
		r.Reads[0].Messages = r.Reads[0].Messages[:19]
	}, ""},
}

// repeat makes message i come again, right before message j+1.
func repeat(s *check.Stay, i, j int) {
	e := s.Events[find(s.Events, i)]
	at := find(s.Events, j) + 1
	e.At = s.Events[at-1].At
	s.Events = slices.Insert(s.Events, at, e)
}

// late makes the client of the first short stay receive one more message.
func late(s *check.Stay) {
	e := received(20, !s.Events[0].Position.IsZero())
	e.Asked = s.Left + 1
	s.Events = append(s.Events, e)
}

// toldLater reports message 30 as lost in unknown number, and its number when
// the next of its publisher comes.
func toldLater(s *check.Stay, n int) {
	drop(s, unknown(0), 30)
	later(s, 32, n)
}

// later puts a gap before message i.
func later(s *check.Stay, i, n int) {
	at := find(s.Events, i)
	s.Events = slices.Insert(s.Events, at, check.Event{At: s.Events[at].At, Gap: true, Missed: n})
}

// tellTwice has one client only, and a third publisher: of its two messages the
// first, said at a time, is lost, and the second comes at the end. Two gaps
// without a number come between: one after the crash, and one in the restart.
func tellTwice(r *check.Room, lost check.Time) {
	r.Stays, r.Reads = r.Stays[:1], nil
	s := r.Stays[stayA]
	s.Events[find(s.Events, 90)].Message = check.ID{Publisher: 2, Number: 1}
	publicationOf(r, 90).Outcome = check.Unclear
	r.Published = append(r.Published, []check.Publication{{Begin: lost, End: lost + 5}, {Begin: published(90), End: published(90) + 5}})
	for _, i := range []int{40, 85} {
		at := find(s.Events, i)
		s.Events = slices.Insert(s.Events, at, check.Event{At: s.Events[at].At, Gap: true, Unknown: true})
	}
}

// crash makes the servers lose message 30, which nobody received: those after
// it take its offset, in a new epoch.
func crash(r *check.Room, loses func(*check.Stay)) {
	move := func(p *fanout.Position) {
		if p.Offset > at(30).Offset {
			p.Epoch, p.Offset = 2, p.Offset-1
		}
	}
	for _, s := range r.Stays {
		if find(s.Events, 30) >= 0 {
			loses(s)
		}
		move(&s.Since)
		for i := range s.Events {
			move(&s.Events[i].Position)
		}
	}
	for i := range r.Reads[0].Messages {
		move(&r.Reads[0].Messages[i].Position)
	}
	r.Reads[0].Messages = r.Reads[0].Messages[1:]
}

// storeTwice makes the servers lose message 30 after client a has received it.
// Its publisher sends it again: then it has a place after message 31.
func storeTwice(r *check.Room) {
	r.Stays, r.Reads = r.Stays[:stayC1], nil
	for _, s := range r.Stays {
		for i := find(s.Events, 31); i < len(s.Events); i++ {
			s.Events[i].Position.Epoch = 2
		}
		s.Events[find(s.Events, 31)].Position.Offset--
	}
	a, b := r.Stays[stayA], r.Stays[stayB]
	gap := check.Event{At: published(31), Gap: true, Unknown: true}
	a.Events = slices.Insert(a.Events, find(a.Events, 31), gap)
	swap(b, 30, 31)
	second := &b.Events[find(b.Events, 30)]
	second.Position, second.At = fanout.Position{Epoch: 2, Offset: at(31).Offset}, published(31)+20
	b.Events = slices.Insert(b.Events, find(b.Events, 31), gap)
}

func TestACleanRunPasses(t *testing.T) {
	report := check.Verify(cleanRun())
	require.Empty(t, report.Failures)
	sum := check.Figures{}
	for _, f := range report.Figures {
		sum.Add(f)
	}
	require.Equal(t, 3*size, sum.Published)
	require.Equal(t, 2, sum.Trimmed)
	require.Equal(t, 3*2, sum.Lists)
	require.Zero(t, sum.Silent+sum.Alarms+sum.Order)
}

func TestPlantedFaultsAreFoundByTheRuleTheyBreak(t *testing.T) {
	for _, p := range planted {
		t.Run(p.name, func(t *testing.T) {
			run := cleanRun()
			p.plant(run.Rooms[p.room])
			broken := make(map[check.Rule]bool)
			for _, f := range check.Verify(run).Failures {
				t.Log(f)
				broken[f.Rule] = true
			}
			want := make(map[check.Rule]bool)
			if p.rule != "" {
				want[p.rule] = true
			}
			require.Equal(t, want, broken)
		})
	}
}

// Where a backend has no order among publishers, that of each still holds.
func TestUnorderedRuns(t *testing.T) {
	for name, test := range map[string]struct {
		i, j int
		fine bool
	}{
		"two publishers may change places": {10, 11, true},
		"one publisher may not":            {10, 12, false},
	} {
		t.Run(name, func(t *testing.T) {
			run := cleanRun()
			run.Unordered = true
			swap(run.Rooms[plain].Stays[stayA], test.i, test.j)
			failures := check.Verify(run).Failures
			if test.fine {
				require.Empty(t, failures)
				return
			}
			require.NotEmpty(t, failures)
			require.Equal(t, check.Order, failures[0].Rule)
		})
	}
}
