package adapter

import (
	"context"
	"time"
)

// Historian is an optional capability of an Adapter: its backend keeps the
// latest messages of a channel. The hub uses it for rooms to which
// fanout.Options.Room gives a Retain, and Attach then gets a HistoryReceiver.
//
// A history is a sequence of frames, each with the position of its last
// message. The backend gives the positions: offsets number the messages of a
// channel contiguously, from 1, and are below 2^53. Epoch says in whose hands
// the history is. An epoch is a number below 2^44, larger than all before it in
// the channel; it is about the time of its beginning in milliseconds since
// 1970. A hub does not believe one that is more than 366 days ahead of its
// clock. A new one begins, with the next Append or History, when the history is
// at a server, or a life of a server, that cannot know for sure that it has all
// that was acknowledged before; offsets go on from what it has.
//
// So positions never repeat: if a server takes over that lacks the latest
// messages, their offsets are given again, but in a new epoch.
type Historian interface {
	// Append is Publish for a channel that keeps a history. In one step the
	// backend numbers the frame's messages, keeps the frame, and sends it with
	// its position to all who are subscribed (HistoryReceiver.ReceiveKept), in the
	// order of positions. It drops what r.Keep no longer asks for.
	//
	// It returns the position of the frame's last message, and receivers as
	// Publish does. A frame that the backend has already, by its publisher's
	// numbers, is not kept or sent again: then the position is its own or any
	// later one, and receivers is -1. So a repeated Append is safe, but it is
	// still the hub that repeats.
	//
	// Errors, context, ownership of the frame and concurrency are as for
	// Publish. A backend that lacks the memory just now says so (ErrUnsent):
	// memory may be freed, so that is not final. One that cannot make sense of
	// what it has kept returns ErrBrokenHistory and ErrRefused, as does History.
	Append(ctx context.Context, channel string, r Record) (at Position, receivers int, err error)

	// History returns a part of the history as it is at one moment. It may be
	// called concurrently, whether the channel is subscribed or not, and for a
	// channel that has no history, which is an empty Page and no error. ctx
	// cancels the wait. It does not retry; errors are those of Publish, but for
	// ErrUnsent. The page is the caller's; the bytes of a frame in it may be shared,
	// and nobody modifies them.
	//
	// The hub takes a page that contradicts itself for a broken history, as if
	// it had been ErrRefused: the room's members are told that messages may be
	// missing, and the history is read again when there is a reason to.
	History(ctx context.Context, channel string, q Query) (Page, error)
}

// A Record is a frame to be kept.
type Record struct {
	Frame    []byte
	Messages int       // in the frame, at least 1
	Keep     Retention // of the channel; no zero values

	// Time is now, by the hub's clock. It is for backends without a clock of
	// their own: hubs' clocks differ, and a backend that has one goes by that.
	Time time.Time

	// The publisher and its numbers, by which a repeated Append is recognised:
	// within a stream Seq is the number of the first message, and the next
	// frame's is Seq+Messages. An empty Publisher is never recognised.
	Publisher   string
	Stream, Seq uint64
}

// A Query asks for a part of a channel's history.
type Query struct {
	// Since is the position after which the history is wanted: the page has the
	// frames that end after it. The zero Position is before everything.
	//
	// If Since is not on the way to the head (see [Page.Before]), the page
	// begins after the last position that is on the way and not after Since. If
	// the history does not remember that position, the page begins with the
	// first later epoch. So positions never go back.
	Since Position
	// Limit bounds the page in messages: once it has that many, no further
	// frame is added. A Limit of 0 asks for the head alone. A backend may
	// return less and set [Page.More].
	Limit int
	// Bytes bounds the page in bytes, if it is not 0: once its frames have that
	// many, no further frame is added. A backend may ignore it, at the cost of
	// memory in the hub.
	Bytes int
	// Keep is the channel's retention: what is outside of it is not handed out,
	// even if the backend still has it. A frame goes by its last message, so it
	// may reach over the bound.
	Keep Retention
	// Time is now, by the hub's clock, for backends without a clock of their own:
	// see [Record.Time].
	Time time.Time
}

// A Page is a part of a channel's history.
type Page struct {
	// Head is the position of the latest message. If the current epoch has no
	// message yet, it is that epoch with the offset of the last message before
	// it. The zero Position means that there is no history.
	Head Position
	// Before are the earlier epochs of the history, oldest first, as far as
	// they are remembered. Of each epoch the history has the offsets up to
	// Last; the offsets after that belong to a later epoch. If Before is empty,
	// the history began with the epoch of Head.
	Before []PastEpoch
	// First is the offset of the oldest message after Since that is kept, or
	// Head.Offset+1 if there is none. It may be lower if messages before that
	// are kept, too. It has no meaning if the Limit of the Query was 0.
	First uint64
	// Frames are in the order of their positions, without a gap between them.
	Frames []KeptFrame
	// More is set if there are further frames after these.
	More bool
}

// A PastEpoch is an epoch that is over.
type PastEpoch struct {
	Epoch, Last uint64
	// Whole: the backend knows that nothing acknowledged was lost when the
	// history went on to the next epoch. A slot that moves takes everything with
	// it; a replica that takes over may not have had the latest.
	Whole bool
}

// A KeptFrame is a frame with its place in the history.
type KeptFrame struct {
	At    Position // of its last message
	Frame []byte
	// Age is how long ago the frame was kept, by the backend's clock, for one that
	// was read. One that is received as it is published has none.
	Age time.Duration
}

// A HistoryReceiver is the Receiver that a Historian is attached to.
type HistoryReceiver interface {
	Receiver

	// ReceiveKept is Receive for a frame that was published by Append.
	ReceiveKept(channel string, f KeptFrame)

	// Moving is Interrupted for a channel whose home ends the subscription in
	// good order, because it is moving: whatever the old home has taken from
	// anybody was received before this call. Like Interrupted it is called only
	// for a channel whose subscription was confirmed, and Restored follows; if
	// the move goes wrong meanwhile, Interrupted comes between them.
	Moving(channel string)
}
