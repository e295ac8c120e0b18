package control

// Version is the version of the format.
const Version = 1

// A Kind says what a payload is.
type Kind uint8

const (
	// KindQuestion asks hubs something, or commands them to do something.
	KindQuestion Kind = iota + 1
	// KindAnswer is a page of the answer of one hub.
	KindAnswer
	// KindCredit tells an answering hub how many pages it may send.
	KindCredit
	// KindCancel tells a hub that nobody waits for its answer.
	KindCancel
	// KindAnnouncement says who came to a room and left it, on one hub.
	KindAnnouncement
	// KindHello says that the sender is there.
	KindHello
	// KindSuspect says that a hub may be gone.
	KindSuspect
	// KindGone says that a hub is gone.
	KindGone
	// KindProbe asks for a KindAck.
	KindProbe
	// KindAck answers a KindProbe.
	KindAck
	// KindRoster lists hubs.
	KindRoster
)

// Bounds of a payload.
const (
	// MaxNames is the largest number of names in a list.
	MaxNames = 1024
	// MaxName is the length of the longest name, in bytes.
	MaxName = 255
	// MaxEntries is the largest number of entries in a payload.
	MaxEntries = 4096
	// MaxText is the length of the longest reason, in bytes.
	MaxText = 1024
)

// An Op is what a question asks for.
type Op uint8

const (
	// OpMembers lists members.
	OpMembers Op = iota + 1
	// OpUsers is not used yet.
	OpUsers
	// OpCount counts members.
	OpCount
	// OpHubs describes the hub.
	OpHubs
	// OpJoin has members join rooms.
	OpJoin
	// OpLeave has members leave rooms.
	OpLeave
	// OpClose ends members.
	OpClose
	// OpAsk hands the message to members, and collects their replies.
	OpAsk
	// OpPresence asks for the snapshot of a room with presence.
	OpPresence
	// OpRoll asks to which of the channels the hub is subscribed.
	OpRoll
)

// IsCommand reports whether the question changes something. A command must not
// be lost at a hub whose subscription is down for a moment, so its asker asks
// all hubs that are known to be there whether they listen.
func (o Op) IsCommand() bool { return o == OpJoin || o == OpLeave || o == OpClose }

// A Scope is the kind of the names in a question.
type Scope uint8

const (
	// ScopeRooms means that names are rooms.
	ScopeRooms Scope = iota + 1
	// ScopeUsers means that names are users.
	ScopeUsers
	// ScopeMembers means that names are the IDs of members.
	ScopeMembers
	// ScopeEveryone means that there are no names: all members are meant.
	ScopeEveryone
)

// A Question goes to every channel of a selection.
type Question struct {
	ID      uint64 // with the sending hub, names the question
	Attempt uint64 // from 0; grows when the question is sent again
	Op      Op
	Credit  uint64 // pages that a hub may send before it gets more credit
	Wait    uint64 // how long the asker waits, in ms
	Scope   Scope
	Which   uint64   // the index of the name in whose channel this copy travels
	Names   []string // of the selection
	Rooms   []string // of OpJoin and OpLeave
	Text    []byte   // the reason of OpClose

	// What the asker of OpPresence has of the hub already; zeros: nothing.
	Life, Seq, Digest uint64

	// Except are the IDs of members that are left out, and ExceptRooms the
	// rooms whose members are.
	Except      []string
	ExceptRooms []string
	Data        []byte // of OpAsk: what members get
}

// A Status says what an answer is.
type Status uint8

const (
	// StatusMore means that more pages follow.
	StatusMore Status = iota + 1
	// StatusLast means that this is the last page.
	StatusLast
	// StatusWorking means that an earlier copy is being dealt with.
	StatusWorking
	// StatusBusy means that the hub has too much to do: it forgets the
	// question.
	StatusBusy
	// StatusSame means that what the asker of OpPresence has is right.
	StatusSame
	// StatusNotUnderstood means that the hub does not know the op.
	StatusNotUnderstood
	// StatusFailed means that the hub could not do it. The data of the last
	// entry says why.
	StatusFailed
)

// Final reports whether no more pages follow.
func (s Status) Final() bool {
	return s == StatusLast || s == StatusSame || s == StatusNotUnderstood || s == StatusFailed
}

// HasPage reports whether the answer is a numbered page, and not only a sign of
// life.
func (s Status) HasPage() bool { return s == StatusMore || s.Final() }

// An Answer is a page of what one hub answers.
type Answer struct {
	ID      uint64
	Attempt uint64 // of the copy that is answered
	Status  Status
	Page    uint64   // from 0
	Covers  []uint64 // indexes of the names whose copies it answers
	Count   uint64   // of members that were selected, in all pages
	Entries []Entry

	// Of OpPresence.
	Life, Seq, Digest uint64
	Mode              Mode
}

// An Entry is a member, a user, a hub, or a member's reply.
type Entry struct {
	Number uint64 // of the member on its hub
	Since  uint64 // ms since 1970
	Count  uint64 // of connections
	Name   []byte // the user
	Data   []byte // info, or the reply
}

// A Credit allows a hub to send pages, and asks for those from From on again.
type Credit struct {
	ID   uint64
	From uint64 // the page that the asker wants next
	Upto uint64 // the hub may send the pages before this one
}

// A Cancel ends a question.
type Cancel struct{ ID uint64 }

// A Mode says how a hub announces a room.
type Mode uint8

const (
	// ModeList means that members are named.
	ModeList Mode = iota + 1
	// ModeSummary means that members are counted, and entries are a sample.
	ModeSummary
)

// An Announcement says what has changed in a room on the sending hub.
type Announcement struct {
	Life   uint64 // grows when the hub begins to count anew
	Seq    uint64 // of the announcement within the life, from 1
	Mode   Mode
	Count  uint64 // of members after it
	Digest uint64 // of members after it; 0 in a summary
	// Joined are members that came, and those whose info has changed.
	Joined []Entry
	Left   []uint64 // numbers of members
	// Again is set if the announcement has no changes and repeats the numbers
	// of the last one.
	Again bool
}

// A Hello says that the sending hub is there.
type Hello struct {
	Incarnation uint64
	Since       uint64 // ms since 1970
	Version     []byte // of the module
	Leaving     bool
}

// A Verdict is what the sending hub says of another one.
type Verdict struct {
	Gone        bool // else suspected
	Hub         uint64
	Incarnation uint64
}

// A Probe asks for a sign of life, and an ack is one.
type Probe struct {
	Ack    bool
	Number uint64
	Hubs   uint64 // that the sender knows
	Digest uint64 // of their IDs and incarnations
}

// A Roster lists hubs.
type Roster struct {
	Answer bool // the receiver answers with its own
	Hubs   []Known
}

// A Known is a hub that the sender of a roster knows.
type Known struct {
	Hub         uint64
	Incarnation uint64
	Since       uint64
	Gone        bool
}
