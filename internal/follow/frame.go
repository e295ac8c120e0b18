package follow

import (
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/fanoutgo/fanout/internal/wire"
)

// A Frame is a frame of the room's channel.
type Frame[B any] struct {
	Header     wire.Header      // with Count 0 if no hub has published it
	Messages   int              // 0 if it cannot be read
	At         adapter.Position // of the last message; zero: it is not kept
	First      uint64           // the offset of the first message
	Unreadable bool             // it stands for an unknown number of messages
	Size       int              // bytes of memory that it takes while it is held
	Body       B                // the owner's
}

// before is the position before the frame's first message.
func (b *Frame[B]) before() adapter.Position {
	return adapter.Position{Epoch: b.At.Epoch, Offset: b.First - 1}
}

// hubs reports whether a hub published the frame: then it has numbers.
func (b *Frame[B]) hubs() bool { return b.Header.Count > 0 }

// An Append is what goes into the log because of one event: gaps, then the
// messages of a frame.
type Append struct {
	// Earlier messages are missing from before this run: they concern only the
	// members that were there. Gap is for all members.
	Earlier, Gap roomlog.Gap

	// Messages is set if the frame's messages follow. The first Skip of them are
	// left out. Members have had the next Had of them at another place, so these
	// are only for members that resume. Positions is set if the messages have the
	// positions of the frame. Sender is the hub that published the frame, or empty
	// if no hub did.
	Messages  bool
	Positions bool
	// Restart is set if the room's recent messages begin anew after From, because
	// there is a gap before that. It takes effect before the messages are added.
	Restart bool

	Skip, Had int
	Sender    string
	From      adapter.Position // of Restart

	Repeated  int    // messages that came before
	Recovered uint64 // messages read from the history that had not arrived
}

// Missed is the number of messages that an append reports missing.
func (a *Append) Missed() int { return a.Earlier.Missed + a.Gap.Missed }

func (a *Append) restart(from adapter.Position) { a.Restart, a.From = true, from }

// A Held frame was held, and is now released: Append says which of its messages
// go into the log. The first Held may have no frame, and only a gap.
type Held[B any] struct {
	Append
	Frame Frame[B]
}

// A Read says whether a reading of the history is to begin, and after how long.
type Read struct {
	Due   bool
	After time.Duration
}

// A Page is a page of the history on its way into the log.
type Page struct {
	page  *adapter.Page
	begun bool
	since adapter.Position // where the log was when it began
	// unplaced means that the first frame says where the page begins; see
	// history.After.
	unplaced bool
}

// NewPage returns a page that is about to go into the log.
func NewPage(p *adapter.Page) *Page { return &Page{page: p} }
