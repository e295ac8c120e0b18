package fanout

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/fanoutgo/fanout/internal/wire"
)

// Options configure a Hub. The zero value, and nil, are the defaults.
type Options struct {
	// Window is what a room keeps for members that lag.
	Window Window

	// Overflow says what happens to a member that falls out of a room's
	// window. The default is Skip.
	Overflow Overflow

	// MaxMessage is the greatest length of a message, in bytes: 1 to 256 MiB,
	// default 1 MiB. Publishing more is ErrTooLarge.
	//
	// The backend may take less. A Redis server cuts off subscribers whose output
	// buffer exceeds client-output-buffer-limit: 32 MiB by default, of which
	// a message may have just under 28, since the server rounds up. The adapters
	// ask the servers, and refuse what is longer (ErrRefused) before it is sent.
	// Where they may not ask (CONFIG GET) they assume the default. Several long
	// messages at once can still exceed the limit: then links break, and what is
	// missing is reported.
	MaxMessage int

	// Linger is how long a room stays subscribed when its last member on this
	// hub has left, so that people who reload a page do not cost the backend
	// anything. Default 5 s; negative is not at all.
	Linger time.Duration

	// PublishTimeout bounds a publish whose context has no deadline, retries
	// included: it ends then, or up to an eighth earlier. It bounds PublishAsync as
	// well, but for an attempt that has begun. Default 10 s.
	PublishTimeout time.Duration

	// PublishBuffer bounds what PublishAsync has under way, in bytes: the data of
	// each message and 256 more. While it is full PublishAsync waits. Default 16 MiB.
	PublishBuffer int

	// Retain says which rooms keep a history, and how much of it. It is called
	// with a room's name when the room comes into use on this hub, concurrently,
	// and must return the same for the same name on all hubs. The zero Retention
	// is none; a nil Retain is none for all rooms. It needs a backend that is a
	// Historian; all of this module are.
	Retain func(room string) Retention

	// LocalFallback lets the members of this hub have what could not be
	// published to the backend. The error of the publish says so (ErrLocalOnly),
	// unless its context ended while the frame was on its way with those of
	// others: then it cannot say what became of it. The order of the room may
	// differ between hubs, and what somebody waits for may overtake what has been
	// handed over before.
	LocalFallback bool

	// Prefix begins the names of all channels, so that several applications
	// can share a backend: 1 to 64 bytes without braces, default "fanout".
	Prefix string

	// Logger gets what an operator may want to know: interruptions, malformed
	// frames. Default slog.Default(). It is called on a goroutine that does
	// nothing else, so one that is slow, or blocks, delays nothing but
	// Hub.Close, by up to a second. While it is slow the hub keeps 64 lines for
	// it, and says how many more there were. A line that makes it panic is
	// dropped.
	Logger *slog.Logger
}

// Window bounds what a room keeps for members that lag, in each process. A
// member that is further behind has missed the rest. The newest message is kept
// even if it is longer than Bytes. Memory is used only while somebody lags: a
// message takes some 200 bytes besides what Bytes counts.
//
// A room with a history holds more while that is read, after an interruption or
// for members that come from behind, and for about a second after that: up to
// 16,384 messages and 4 MiB of what arrives, and 4 MiB for those members. So
// members that keep up lose nothing while the hub catches up, however fast it
// does, and those that come from behind meet the others. Members further behind
// than that fall out of the window as they do otherwise.
//
// It should hold what may be said while a member's goroutine waits for its turn:
// where 300 people speak at once, more than the default.
type Window struct {
	Messages int // at least 1, default 256
	// Bytes bounds the data, and whom it is not for (8 bytes for each member
	// and room that is left out): at least 1, default 1 MiB.
	Bytes int
}

// The most that a Retention may be.
const (
	maxRetained = 1_000_000
	maxAge      = 366 * 24 * time.Hour
)

// checkRetention returns r with its default, or says what is wrong with it.
func checkRetention(r Retention, room string) (Retention, error) {
	if r == (Retention{}) {
		return r, nil
	}
	orDefault(&r.Age, 24*time.Hour)
	switch {
	case r.Messages < 1 || r.Messages > maxRetained:
		return r, fmt.Errorf("%w: Retain(%q) keeps %d messages, it must be 1 to %d", ErrInvalidOption, room, r.Messages, maxRetained)
	case r.Age < time.Second || r.Age > maxAge:
		return r, fmt.Errorf("%w: Retain(%q) keeps messages for %v, it must be 1s to %v", ErrInvalidOption, room, r.Age, maxAge)
	}
	return r, nil
}

// Overflow says what happens to a member that falls out of a room's window.
type Overflow int

const (
	// Skip reports a GapError and goes on at the oldest message that is kept. In a
	// room with a history the member first gets what it missed from there, and
	// only what that has not is a gap.
	Skip Overflow = iota
	// Latest reports a GapError and goes on at the newest message.
	Latest
	// Disconnect closes the member with ErrSlow. It does so by itself, whether
	// the member reads or not, by the time it is one and a half windows behind.
	Disconnect
)

// maxMessage is the most that Options.MaxMessage may be: Redis takes 512 MiB.
const maxMessage = 256 << 20

// withDefaults returns the options with defaults filled in, or says what is
// wrong with them. It is the only place that knows the defaults.
func (o *Options) withDefaults() (Options, error) {
	var c Options
	if o != nil {
		c = *o
	}
	orDefault(&c.Window.Messages, 256)
	orDefault(&c.Window.Bytes, 1<<20)
	orDefault(&c.MaxMessage, 1<<20)
	orDefault(&c.Linger, 5*time.Second)
	orDefault(&c.PublishTimeout, 10*time.Second)
	orDefault(&c.PublishBuffer, 16<<20)
	orDefault(&c.Prefix, wire.DefaultPrefix)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	bad := func(format string, args ...any) (Options, error) {
		return c, fmt.Errorf("%w: %s", ErrInvalidOption, fmt.Sprintf(format, args...))
	}
	switch {
	case c.Window.Messages < 1:
		return bad("Window.Messages is %d, it must be at least 1", c.Window.Messages)
	case c.Window.Bytes < 1:
		return bad("Window.Bytes is %d, it must be at least 1", c.Window.Bytes)
	case c.Overflow < Skip || c.Overflow > Disconnect:
		return bad("Overflow is %d, it must be Skip, Latest or Disconnect", c.Overflow)
	case c.MaxMessage < 1 || c.MaxMessage > maxMessage:
		return bad("MaxMessage is %d, it must be 1 to %d", c.MaxMessage, maxMessage)
	case c.PublishTimeout < 0:
		return bad("PublishTimeout is %v, it must be positive", c.PublishTimeout)
	case c.PublishBuffer < 0:
		return bad("PublishBuffer is %d, it must be positive", c.PublishBuffer)
	}
	if err := wire.CheckPrefix(c.Prefix); err != nil {
		return bad("Prefix %q: %v", c.Prefix, err)
	}
	c.Linger = max(c.Linger, 0)
	return c, nil
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func (o *Options) limits() *roomlog.Limits[entry] {
	policy := [...]roomlog.Policy{Skip: roomlog.Oldest, Latest: roomlog.Newest, Disconnect: roomlog.Track}
	return roomlog.NewLimits[entry](o.Window.Messages, o.Window.Bytes, policy[o.Overflow])
}
