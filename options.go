package fanout

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/announcer"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/presence"
	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/fanoutgo/fanout/internal/wire"
)

// Options configure a [Hub]. The zero value, and nil, are the defaults.
type Options struct {
	// Window bounds what each room keeps for members that lag. Room can give a
	// room bounds of its own.
	Window Window

	// Overflow says what happens to a member that falls out of a room's window.
	// Room can give a room a policy of its own. Default Skip.
	Overflow Overflow

	// Room returns the options of a room, such as its history. A nil Room is
	// the zero RoomOptions for every room.
	//
	// It is called when a room comes into use on this hub, and again when a
	// room that was forgotten comes into use once more. It may be called
	// concurrently, and must return the same options for the same name each
	// time, on all hubs. If it returns options out of range, or a Retain that
	// the adapter cannot keep, every use of the room fails with
	// ErrInvalidOption. A panic reaches the caller of the method that uses the
	// room.
	Room func(name string) RoomOptions

	// Admit decides whether a member may join a room. The goroutine that joins
	// calls it, for each Join and Resume of a member that is not in the room, also
	// if another hub asked for the Join. If Admit returns an error the Join fails
	// with that error, wrapped. A nil Admit admits all.
	//
	// It is called last, after everything that may take time, and without locks.
	// So a Join cannot race a ban: record the ban where Admit looks for it, then
	// take the member out of the room. A Join that Admit allowed before that
	// either is undone or fails. Admit may be called concurrently, and more than
	// once for a Join. A panic reaches the caller of Join; in [Selection.Join] it
	// is an error of the hub ([PartialError].Failed).
	//
	// The context is that of the Join, or in Selection.Join one that ends when the
	// hub that asks no longer waits. It also ends when the member leaves the room,
	// is closed, by whatever means, or has come into the room by another Join, and
	// when Close is called for the hub. What Admit returns after that has no
	// effect. Close does not return before an Admit that Selection.Join has
	// called, so Admit must not call [Hub.Close].
	Admit func(ctx context.Context, room string, m *Member) error

	// OnJoin and OnLeave are called after a member has joined or left a room of
	// this hub: for each member in order, also when it ends. One goroutine
	// makes all calls, without locks, so a call that takes long delays the
	// others. Calls that wait for their turn take memory. The functions may call
	// the hub, except Close, which waits for them until its ctx ends. While one of
	// them calls Drain, which waits for members to read what is left for them, no
	// other call is made.
	OnJoin, OnLeave func(room string, m *Member)

	// MaxMessage is the greatest length of a message, in bytes: from 1 byte to
	// 256 MiB, default 1 MiB. Publishing a longer one fails with ErrTooLarge.
	//
	// The backend may take less. A Redis server disconnects subscribers whose
	// output buffer exceeds client-output-buffer-limit. By default that is 32
	// MiB, which allows messages of just under 28 MiB, since the server rounds
	// up. The adapters of this module ask the servers for the limit (CONFIG
	// GET), assume the default if they may not ask, and refuse longer messages
	// before they are sent (ErrRefused). Several long messages at once can
	// still exceed the limit. Then links break, and what is missing is
	// reported.
	MaxMessage int

	// Linger is how long a room stays subscribed after its last member on this
	// hub has left, so that a page that is reloaded costs the backend nothing.
	// Default 5 s; a negative Linger unsubscribes at once.
	Linger time.Duration

	// PublishTimeout bounds a publish whose context has no deadline, including
	// its retries. Such a publish may fail up to an eighth of that time earlier.
	// PublishTimeout also bounds PublishAsync, except that an attempt that has
	// begun is completed. Default 10 s.
	PublishTimeout time.Duration

	// PublishBuffer bounds the messages that PublishAsync has accepted and not
	// finished, in bytes. Each counts its data and 256 bytes more. PublishAsync
	// waits while the buffer is full; a message that is longer than the buffer
	// waits until it is empty. Default 16 MiB.
	PublishBuffer int

	// LocalFallback delivers a message to the members of this hub if it could not
	// be published to the backend. The publish then fails with ErrLocalOnly. If
	// its context ends while the message is being sent in one frame with others,
	// the error does not say what became of the message.
	//
	// The order of a room may then differ between hubs, and a message published
	// by Publish may overtake messages handed to PublishAsync before it. In a
	// room with a history the backend may have kept the message although its
	// answer was lost. A member of this hub that later reads that part of the
	// history, because it fell out of the window, then gets the message again.
	LocalFallback bool

	// Prefix begins the names of all channels, so that several applications
	// can share a backend: 1 to 64 bytes without braces. Default "fanout".
	Prefix string

	// Logger receives what operators may want to know, such as interruptions
	// and malformed frames. Default slog.Default().
	//
	// A goroutine of its own calls it, so a Logger that is slow or blocks
	// delays only Hub.Close, by up to a second. Meanwhile the hub keeps 64
	// lines for it and counts the others. A line that makes the Logger panic is
	// dropped.
	Logger *slog.Logger
}

// RoomOptions configure one room. See [Options.Room].
type RoomOptions struct {
	// Retain is how much history the room keeps. The zero Retention is none.
	// All adapters of this module keep histories; some servers refuse what that
	// needs (docs/services.md), and then uses of the room fail with ErrRefused.
	Retain Retention

	// Window bounds what the room keeps for members that lag. A field that is
	// zero is that of Options.Window.
	Window Window

	// Overflow says what happens to a member that falls out of the window.
	// Zero is Options.Overflow.
	Overflow Overflow

	// Presence makes the hub tell members who is in the room, on all hubs, and who
	// comes and goes: see [Message.Presence].
	//
	// Changes that come together are told together. A member gets a change at once
	// in a quiet room, and at most some 17 changes a second, however many people
	// there are. In a room that spans more than 33 hubs that number grows to half
	// the number of hubs. These numbers hold as long as what a hub tells at a time
	// fits into 48 KiB. More is told in several changes, one right after the
	// other: some 20 if 1,000 people with 1 KB of Info each join one hub at once.
	// A hub that was killed takes its members with it in one step, when the others
	// know that it is gone: see [Hub.Hubs].
	Presence bool

	// Grace is how long a person counts as here after its last connection on a
	// hub has ended, even by [Selection.Close]. So a page that is reloaded within
	// that time causes no change. Members without a user go at once, since nobody
	// can recognise them. Default 5 s; a negative Grace is none.
	Grace time.Duration

	// PresenceList is the most connections in the room, on all hubs, whose
	// persons are listed: 1 to 16,384, default 1,000. In a larger room members
	// are told the number of connections and a sample.
	PresenceList int
}

// An Adapter joins a hub with others: it carries their frames. Packages sharded
// and adapter/redis, nats, partition, migrate and memory have adapters. Authors
// of backends find the contract, with its optional capabilities, in package
// adapter.
type Adapter = adapter.Adapter

// A Receiver gets what an Adapter carries; a Hub has one.
type Receiver = adapter.Receiver

// Retention is how much history a room keeps: its latest messages, as long as
// they are not too old.
type Retention = adapter.Retention

// A Window bounds what a room keeps for members that lag, in each process. A
// member that falls further behind has missed what is no longer kept; see
// [Overflow]. The newest message is kept even if it is longer than Bytes. In a
// room without a history memory is used only while a member lags: some 200
// bytes for each message, besides what Bytes counts.
//
// A room with a history also keeps up to two windows of the latest messages,
// for members that resume. It keeps more while the hub reads the history, which
// it does after an interruption and for members that resume or have fallen
// behind, and for about a second after that: up to 16,384 messages and 4 MiB of
// what arrives, and up to 4 MiB of what is read for members. So members that
// keep up lose nothing while the hub catches up, and members that come from
// behind can catch up with the others.
//
// The window should hold the messages that may arrive while the goroutine of a
// member waits to be scheduled. Where 300 people may speak at the same moment
// that is more than the default: 1,024 messages hold three such moments.
type Window struct {
	Messages int // at least 1, default 256
	// Bytes bounds the data of the messages, and 8 bytes for each member and
	// room that a message leaves out: at least 1, default 1 MiB.
	Bytes int
}

// Overflow says what happens to a member that falls out of the window of a room
// or, by [Options.Overflow], of its direct messages.
type Overflow int

const (
	// Skip reports a [GapError] and continues with the oldest message in the
	// window. In a room with a history the member first gets from the history
	// what it missed, and the gap is only what the history no longer has.
	Skip Overflow = iota + 1
	// Latest reports a [GapError] and continues with the newest message.
	Latest
	// Disconnect closes the member with [ErrSlow]. The member need not read for
	// that: it is closed by the time it is one and a half windows behind.
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
	orDefault(&c.Overflow, Skip)
	orDefault(&c.MaxMessage, 1<<20)
	orDefault(&c.Linger, 5*time.Second)
	orDefault(&c.PublishTimeout, 10*time.Second)
	orDefault(&c.PublishBuffer, 16<<20)
	orDefault(&c.Prefix, wire.DefaultPrefix)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if err := checkWindow(c.Window, c.Overflow); err != nil {
		return c, fmt.Errorf("%w: %w", ErrInvalidOption, err)
	}
	bad := func(format string, args ...any) (Options, error) {
		return c, fmt.Errorf("%w: %s", ErrInvalidOption, fmt.Sprintf(format, args...))
	}
	switch {
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

// checkWindow says what is wrong with a window and a policy, defaults filled
// in.
func checkWindow(w Window, v Overflow) error {
	switch {
	case w.Messages < 1:
		return fmt.Errorf("Window.Messages is %d, it must be at least 1", w.Messages)
	case w.Bytes < 1:
		return fmt.Errorf("Window.Bytes is %d, it must be at least 1", w.Bytes)
	case v < Skip || v > Disconnect:
		return fmt.Errorf("Overflow is %d, it must be Skip, Latest or Disconnect", v)
	}
	return nil
}

// maxPresenceList is the most that RoomOptions.PresenceList may be.
const maxPresenceList = 16384

// The most that a Retention may be.
const (
	maxRetained = 1_000_000
	maxAge      = 366 * 24 * time.Hour
)

// checkRetention says what is wrong with a retention, defaults filled in.
func checkRetention(r Retention) error {
	switch {
	case r.Messages < 1 || r.Messages > maxRetained:
		return fmt.Errorf("Retain.Messages is %d, it must be 1 to %d", r.Messages, maxRetained)
	case r.Age < time.Second || r.Age > maxAge:
		return fmt.Errorf("Retain.Age is %v, it must be 1s to %v", r.Age, maxAge)
	}
	return nil
}

// withDefaults returns the options of a room with defaults filled in, those of
// the hub among them, or says what is wrong with them.
func (r RoomOptions) withDefaults(o *Options) (RoomOptions, error) {
	orDefault(&r.Window.Messages, o.Window.Messages)
	orDefault(&r.Window.Bytes, o.Window.Bytes)
	orDefault(&r.Overflow, o.Overflow)
	orDefault(&r.Grace, 5*time.Second)
	orDefault(&r.PresenceList, 1000)
	if r.PresenceList < 1 || r.PresenceList > maxPresenceList {
		return r, fmt.Errorf("PresenceList is %d, it must be 1 to %d", r.PresenceList, maxPresenceList)
	}
	if err := checkWindow(r.Window, r.Overflow); err != nil {
		return r, err
	}
	if r.Retain == (Retention{}) {
		return r, nil
	}
	orDefault(&r.Retain.Age, 24*time.Hour)
	return r, checkRetention(r.Retain)
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// roomOptions asks Options.Room about a room. It returns the limits of the
// room's log, the room's history if it is to have one, and what few rooms have.
func (h *Hub) roomOptions(room, channel string) (*roomHistory, *limits, *rare) {
	if h.opts.Room == nil || room == "" { // that of a user has no name
		return nil, h.standard, nil
	}
	o, err := h.opts.Room(room).withDefaults(&h.opts)
	keeps := o.Retain != (Retention{})
	switch {
	case err != nil:
		err = fmt.Errorf("%w: Room(%q): %w", ErrInvalidOption, room, err)
	case keeps && h.historian == nil:
		err = fmt.Errorf("%w: Room(%q): Retain is set, but the adapter (%T) keeps no history", ErrInvalidOption, room, h.adapter)
	}
	if err != nil {
		return nil, h.standard, &rare{invalid: err}
	}
	var kept *roomHistory
	if keeps {
		kept = &roomHistory{mark: roomMark(channel)}
		kept.Keep = o.Retain
	}
	var special *rare
	if o.Presence {
		special = &rare{presence: &announcer.Room{Params: presence.Params{Grace: o.Grace, Limit: o.PresenceList}}}
	}
	return kept, h.limitsOf(o.Window, o.Overflow), special
}

// There are many rooms: what few of them have is apart. It does not change.
type rare struct {
	invalid  error           // why no use can be made of what Options.Room has returned
	presence *announcer.Room // nil: the room has none
}

// invalid is why no use can be made of the room; nil: it can be used.
func (r *room) invalid() error {
	if r.rare == nil {
		return nil
	}
	return r.rare.invalid
}

// presence is who is in the room; nil: its members are not told.
func (r *room) presence() *announcer.Room {
	if r.rare == nil {
		return nil
	}
	return r.rare.presence
}

// limits are the window and the overflow policy of a room's log.
type limits = roomlog.Limits[item.Entry]

// limitsOf returns the limits of a window and a policy, which are valid.
func (h *Hub) limitsOf(w Window, v Overflow) *limits {
	return h.limits.Of(w.Messages, w.Bytes, policies[v])
}

// policies are what the overflow policies mean to a log.
var policies = [...]roomlog.Policy{Skip: roomlog.Oldest, Latest: roomlog.Newest, Disconnect: roomlog.Track}

// window returns the window of the room.
func (r *room) window() Window {
	messages, bytes := r.log.Limits().Window()
	return Window{Messages: messages, Bytes: bytes}
}

// overflow returns what happens to a member that falls out of the window.
func (r *room) overflow() Overflow {
	switch r.log.Limits().Policy() {
	case roomlog.Newest:
		return Latest
	case roomlog.Track:
		return Disconnect
	}
	return Skip
}
