package adapter

import (
	"context"
	"time"
)

// Historian is an optional capability of an Adapter whose backend keeps the
// latest messages of a channel. The hub uses it for rooms that have a retention
// (fanout.RoomOptions.Retain), and then attaches a HistoryReceiver.
//
// A history is a sequence of frames, each with the position of its last
// message. The backend assigns the positions. Offsets number the messages of a
// channel contiguously, from 1, and are below 2^53. The epoch changes when the
// history may have lost messages: when its server took over from another one,
// or was restarted, and cannot be sure to have every acknowledged message. The
// next Append or History then begins a new epoch, and offsets continue from the
// messages that the server has. An epoch is a number below 2^44, larger than
// all earlier ones of the channel: the time at which it began, in milliseconds
// since 1970, or somewhat more. A hub rejects an epoch that is more than 366
// days ahead of its clock.
//
// So positions never repeat: if a server takes over that lacks the latest
// messages, their offsets are assigned again, but in a new epoch.
type Historian interface {
	// Append is Publish for a channel that keeps a history. In one step the
	// backend numbers the frame's messages, keeps the frame, and sends it with
	// its position to all subscribers (HistoryReceiver.ReceiveKept), in the
	// order of positions. It drops messages that are outside of r.Keep.
	//
	// Append returns the position of the frame's last message, and receivers as
	// Publish does. A frame that the backend already has, recognised by its
	// publisher's numbers, is neither kept nor sent again: then the position is
	// that of the frame or any later one, and receivers is -1. This makes it
	// safe to repeat an Append, but only the hub does so.
	//
	// Errors, context, ownership of the frame and concurrency are as for
	// Publish. A backend that is out of memory returns ErrUnsent, which is not
	// final. A backend that cannot make sense of the history that it has
	// returns ErrBrokenHistory and ErrRefused, as History does.
	Append(ctx context.Context, channel string, r Record) (at Position, receivers int, err error)

	// History returns a part of the history as it is at one moment. It may be
	// called concurrently, whether the channel is subscribed or not. For a
	// channel without a history it returns an empty Page and no error. ctx
	// cancels the wait. History does not retry; its errors are those of
	// Publish, except ErrUnsent. The caller owns the page; the bytes of its
	// frames may be shared, so nobody modifies them.
	//
	// The hub treats a page that contradicts itself as a broken history, as if
	// History had returned ErrRefused: members of the room are told that
	// messages may be missing, and the hub reads the history again at the next
	// occasion.
	History(ctx context.Context, channel string, q Query) (Page, error)
}

// A Record is a frame to be kept.
type Record struct {
	Frame    []byte
	Messages int       // in the frame, at least 1
	Keep     Retention // of the channel; no zero values

	// Time is the current time by the hub's clock, for backends that have no
	// clock of their own. Hubs' clocks differ, so others use their own.
	Time time.Time

	// Publisher, Stream and Seq identify the frame, so that a repeated Append
	// is recognised. Seq is the number of the frame's first message within the
	// stream; the next frame's is Seq+Messages. A frame with an empty Publisher
	// is never recognised.
	Publisher   string
	Stream, Seq uint64
}

// A Query asks for a part of a channel's history.
type Query struct {
	// Since selects the frames that end after this position. The zero Position
	// is before everything. If Since is on no epoch that led to the head (see
	// Page.Before), the page has the frames after the last position at which
	// both agreed; if that is not known, the frames of later epochs. So
	// positions never go back.
	Since Position
	// Limit bounds the page: the backend adds no further frame once the page
	// has this many messages. With 0 the page has only the head. A backend may
	// return fewer frames, and set More.
	Limit int
	// Bytes bounds the page as well, if it is not 0: the backend adds no
	// further frame once the frames have this many bytes. A backend may ignore
	// it, at the cost of memory in the hub.
	Bytes int
	// Keep is the channel's retention. The page has nothing outside of it, even
	// if the backend still has such frames. The last message of a frame
	// decides, so a frame may begin outside.
	Keep Retention
	// Time is the current time by the hub's clock, for backends without a clock
	// of their own: see [Record.Time].
	Time time.Time
}

// A Page is a part of a channel's history.
type Page struct {
	// Head is the position of the latest message; in an epoch without messages,
	// the epoch and the offset of the last message before it. A zero Head means
	// that there is no history.
	Head Position
	// Before lists the epochs before Head's that led to it, as far as the
	// backend remembers them, oldest first. The offsets up to Last of each are
	// in the history under that epoch, and later ones under a later epoch. If
	// Before is empty, the history began with Head's epoch.
	Before []PastEpoch
	// First is the offset of the oldest message that is kept and comes after
	// Since, or Head.Offset+1 if there is none. It may be smaller if the
	// messages before that are kept too. It has no meaning if Limit is 0.
	First uint64
	// Frames is contiguous, in the order of positions.
	Frames []KeptFrame
	// More reports whether there are frames after these.
	More bool
}

// A PastEpoch is an epoch that has ended.
type PastEpoch struct {
	Epoch, Last uint64
	// Whole reports whether the backend is sure that no acknowledged message
	// was lost when the epoch ended. A slot that moves takes its whole history
	// along; a replica that takes over may lack the latest messages.
	Whole bool
}

// A KeptFrame is a frame with its position in the history.
type KeptFrame struct {
	At    Position // of its last message
	Frame []byte
	// Age is how long ago the frame was kept, by the backend's clock, if the
	// frame was read from the history. It is 0 for a frame that is received as
	// it is published.
	Age time.Duration
}

// A HistoryReceiver is the Receiver that a Historian is attached to.
type HistoryReceiver interface {
	Receiver

	// ReceiveKept is Receive for a frame that was published by Append.
	ReceiveKept(channel string, f KeptFrame)

	// Moving is Interrupted for a channel whose home ends the subscription in
	// an orderly way because the channel is moving: every frame that the old
	// home has accepted was received before this call. Like Interrupted it is
	// called only for a channel whose subscription was confirmed, and Restored
	// follows. If the move fails, Interrupted is called between the two.
	Moving(channel string)
}
