package questions

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/ask"
	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/gate"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/notices"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

// A net is some hubs, numbered from 1, that reach each other at once.
type net struct {
	t         *testing.T
	hubs      []*hub
	uncounted bool         // it does not say how many hubs a notice has reached
	held      atomic.Int64 // channels
}

type hub struct {
	Switchboard
	ops     *gate.Gate
	closing chan struct{}
	perform func(ctx context.Context, q *control.Question, t Taker) (uint64, error)
	deaf    bool        // nothing arrives, though it counts
	gone    atomic.Bool // it does not count

	isNew     bool        // it may not know all others
	unwatched bool        // it would not notice the end of others
	known     []int       // the hubs that it knows; nil: all
	ended     atomic.Bool // others know that it has ended
	uncounted int         // how often it was told that the backend does not count
	listens   error       // why it does not hear what is sent to it
}

// A channel sends to some hubs.
type channel struct {
	net *net
	to  []*hub
}

func (c channel) Hold()    { c.net.held.Add(1) }
func (c channel) Release() { c.net.held.Add(-1) }

// inbox returns the inbox of a hub, held. One that is not there hears nothing.
func (n *net) inbox(hub uint64) notices.Channel {
	c := channel{net: n}
	if hub <= uint64(len(n.hubs)) {
		c.to = n.hubs[hub-1 : hub]
	}
	c.Hold()
	return c
}

// everyone returns the channel that all hubs listen to.
func (n *net) everyone() notices.Channel { return channel{n, n.hubs} }

func (c channel) Notify(_ context.Context, notice []byte) (receivers int, err error) {
	from, payload, err := wire.DecodeControl(notice)
	for _, h := range c.to {
		if !h.gone.Load() {
			receivers++
		}
		if !h.gone.Load() && !h.deaf {
			h.Put(from, payload, nil)
		}
	}
	if c.net.uncounted {
		receivers = -1
	}
	return receivers, err
}

// in runs a test with n hubs. When it ends nothing of a question may be left.
func in(t *testing.T, n int, test func(t *testing.T, n *net)) {
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(context.Background())
		all := &net{t: t}
		for i := range n {
			h := &hub{ops: gate.New(), closing: make(chan struct{})}
			h.perform = func(context.Context, *control.Question, Taker) (uint64, error) { return uint64(i + 1), nil }
			all.hubs = append(all.hubs, h)
		}
		for i, h := range all.hubs {
			h.Init(&Env{
				Notices: &notices.Sender{
					Hub: uint64(i + 1), Context: ctx, Go: wg.Go,
					Everyone: all.everyone, Inbox: all.inbox,
				},
				Ops: h.ops, Closing: h.closing,
				Bound: func(ctx context.Context) (context.Context, func()) {
					return context.WithTimeout(ctx, time.Minute)
				},
				Timeout:  10 * time.Second,
				AwaitOwn: func(context.Context) error { return h.listens },
				Explain: func(ctx context.Context, err error) error {
					if ctx.Err() == nil || err == nil {
						return err
					}
					return fmt.Errorf("%w (the link is down)", err)
				},
				Known: func() (known []ask.Known) {
					for i := range all.hubs {
						if h.known == nil || slices.Contains(h.known, i+1) {
							known = append(known, ask.Known{Hub: uint64(i + 1), Heard: time.Now()})
						}
					}
					return known
				},
				IsNew:     func() bool { return h.isNew },
				IsWatched: func(hub uint64) bool { return !h.unwatched },
				IsGone: func(hub uint64) bool {
					return hub <= uint64(len(all.hubs)) && all.hubs[hub-1].ended.Load()
				},
				NoteUncounted: func() { h.uncounted++ },
				Listens:       func(q *control.Question) []uint64 { return []uint64{q.Which} },
				Perform: func(ctx context.Context, _ uint64, q *control.Question, _ any, t Taker) (uint64, error) {
					return h.perform(ctx, q, t)
				},
				Presence: func(*control.Question) *control.Answer {
					return &control.Answer{Status: control.StatusLast, Life: 9, Entries: []control.Entry{{Number: 1}}}
				},
				Received:  func(uint64, control.Payload) {},
				Malformed: func(err error) { require.NoError(t, err) }, SweepLater: func() {},
			})
		}
		test(t, all)
		cancel()
		wg.Wait()
		require.Zero(t, all.held.Load())
		for _, h := range all.hubs {
			require.Zero(t, h.Pending())
			require.True(t, h.Sweep(time.Now().Add(time.Hour)).IsZero())
		}
	})
}

// ask makes the first hub ask everyone, and returns the sum of the counts.
func (n *net) ask(ctx context.Context, q control.Question) (sum uint64, err error) {
	return n.askLanes(ctx, q, func(q *control.Question) []Lane {
		q.Scope = control.ScopeEveryone
		c := n.everyone()
		c.Hold()
		return []Lane{{Out: c}}
	})
}

// command makes the first hub give everyone a command.
func (n *net) command(ctx context.Context) error {
	_, err := n.ask(ctx, control.Question{Op: control.OpJoin})
	return err
}

// askMembers is ask for a question to some members, each of another hub.
func (n *net) askMembers(ctx context.Context, op control.Op, hubs ...uint64) (sum uint64, err error) {
	q := control.Question{Op: op, Scope: control.ScopeMembers}
	return n.askLanes(ctx, q, func(*control.Question) []Lane {
		var ids []string
		for _, hub := range hubs {
			ids = append(ids, item.MemberID(fmt.Sprintf("%016x", hub), 7))
		}
		return InboxLanes(n.hubs[0].env.Notices, ids)
	})
}

func (n *net) askLanes(ctx context.Context, q control.Question, lanes Lanes) (sum uint64, err error) {
	err = n.hubs[0].Ask(ctx, &q, func(_ uint64, a *control.Answer) bool {
		if a.Status.Final() {
			sum += a.Count
		}
		return true
	}, lanes)
	return sum, err
}

func TestAsk(t *testing.T) {
	count := control.Question{Op: control.OpCount}
	t.Run("returns when all have answered", func(t *testing.T) {
		in(t, 4, func(t *testing.T, n *net) {
			sum, err := n.ask(t.Context(), count)
			require.NoError(t, err)
			require.EqualValues(t, 1+2+3+4, sum)
		})
	})
	t.Run("names hubs that fail, and says why", func(t *testing.T) {
		in(t, 3, func(t *testing.T, n *net) {
			n.hubs[1].perform = func(context.Context, *control.Question, Taker) (uint64, error) { return 0, errors.New("out of order") }
			n.hubs[2].perform = func(context.Context, *control.Question, Taker) (uint64, error) { return 0, ErrNotUnderstood }
			sum, err := n.ask(t.Context(), count)
			incomplete, is := errors.AsType[*Incomplete](err)
			require.True(t, is)
			require.NoError(t, incomplete.Err)
			require.ElementsMatch(t, []Failure{{2, "out of order"}, {3, "its release does not know what it was asked"}}, incomplete.Failed)
			require.EqualValues(t, 1, sum)
		})
	})
	t.Run("names hubs that are silent when its time is over", func(t *testing.T) {
		in(t, 3, func(t *testing.T, n *net) {
			n.hubs[2].deaf = true
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			sum, err := n.ask(ctx, count)
			incomplete, is := errors.AsType[*Incomplete](err)
			require.True(t, is)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Len(t, incomplete.Silent, 1)
			require.EqualValues(t, 3, incomplete.Silent[0].Hub)
			require.EqualValues(t, 1+2, sum)
		})
	})
	t.Run("names hubs that are there, and have not got it", func(t *testing.T) {
		in(t, 3, func(t *testing.T, n *net) {
			n.hubs[2].gone.Store(true)
			for name, ask := range map[string]func(context.Context) (uint64, error){
				"everyone": func(ctx context.Context) (uint64, error) { return n.ask(ctx, count) },
				"members":  func(ctx context.Context) (uint64, error) { return n.askMembers(ctx, control.OpCount, 1, 2, 3) },
			} {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				sum, err := ask(ctx)
				incomplete, is := errors.AsType[*Incomplete](err)
				require.True(t, is, name)
				require.ErrorIs(t, err, context.DeadlineExceeded, name)
				require.Len(t, incomplete.Silent, 1, name)
				require.EqualValues(t, 3, incomplete.Silent[0].Hub, name)
				require.EqualValues(t, 1+2, sum, name)
			}
			t.Log("they may get it later")
			time.AfterFunc(time.Second, func() { n.hubs[2].gone.Store(false) })
			sum, err := n.ask(t.Context(), count)
			require.NoError(t, err)
			require.EqualValues(t, 1+2+3, sum)
			t.Log("or be gone")
			n.hubs[2].gone.Store(true)
			time.AfterFunc(time.Second, func() { n.hubs[0].HubGone(3) })
			sum, err = n.ask(t.Context(), count)
			require.NoError(t, err)
			require.EqualValues(t, 1+2, sum)
		})
	})
	t.Run("does not wait for a hub whose end would not be noticed", func(t *testing.T) {
		in(t, 3, func(t *testing.T, n *net) {
			n.hubs[0].unwatched = true
			n.hubs[2].gone.Store(true)
			require.Zero(t, took(func() {
				sum, err := n.ask(t.Context(), count)
				require.NoError(t, err)
				require.EqualValues(t, 1+2, sum)
			}))
		})
	})
	// lanes are channels that the own hub's subscription is missing from, and
	// others.
	lanes := func(n *net, scope control.Scope, missing, others int) Lanes {
		return func(q *control.Question) (list []Lane) {
			q.Scope, q.Names = scope, make([]string, missing+others)
			for i := range q.Names {
				c := channel{n, n.hubs}
				if i < missing {
					c.to = n.hubs[1:]
				}
				c.Hold()
				list = append(list, Lane{Out: c, Which: uint64(i)})
			}
			return list
		}
	}
	all := func(q *control.Question) (which []uint64) {
		for i := range q.Names {
			which = append(which, uint64(i))
		}
		return which
	}
	t.Run("has the own hub answer if it has not got it", func(t *testing.T) {
		in(t, 3, func(t *testing.T, n *net) {
			for _, h := range n.hubs {
				h.env.Listens = all
			}
			for name, ask := range map[string]Lanes{
				"everyone": lanes(n, control.ScopeEveryone, 1, 0), "a room": lanes(n, control.ScopeRooms, 1, 0),
				"one of two rooms": lanes(n, control.ScopeRooms, 1, 1),
			} {
				for _, short := range []bool{false, true} {
					limit := time.Minute
					if short {
						limit = 100 * time.Millisecond
					}
					ctx, cancel := context.WithTimeout(t.Context(), limit)
					defer cancel()
					sum, err := n.askLanes(ctx, count, ask)
					require.NoError(t, err, name)
					require.EqualValues(t, 1+2+3, sum, name)
				}
			}
			t.Log("as soon as others have answered that take their time")
			n.hubs[2].perform = func(context.Context, *control.Question, Taker) (uint64, error) {
				time.Sleep(3100 * time.Millisecond)
				return 3, nil
			}
			began := time.Now()
			sum, err := n.askLanes(t.Context(), count, lanes(n, control.ScopeRooms, 1, 0))
			require.NoError(t, err)
			require.EqualValues(t, 1+2+3, sum)
			require.Equal(t, 3100*time.Millisecond, time.Since(began))
			t.Log("unless it has left the room")
			left := false
			n.hubs[0].env.Listens = func(*control.Question) []uint64 {
				defer func() { left = true }()
				if left {
					return nil
				}
				return []uint64{0}
			}
			sum, err = n.askLanes(t.Context(), count, lanes(n, control.ScopeRooms, 1, 0))
			require.NoError(t, err)
			require.EqualValues(t, 2+3, sum)
		})
	})
	t.Run("says that another hub is missing beside the own one", func(t *testing.T) {
		in(t, 3, func(t *testing.T, n *net) {
			n.hubs[2].deaf = true
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			sum, err := n.askLanes(ctx, count, lanes(n, control.ScopeRooms, 1, 0))
			incomplete, is := errors.AsType[*Incomplete](err)
			require.True(t, is)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, 1, incomplete.Unknown+len(incomplete.Silent))
			require.EqualValues(t, 1+2, sum)
		})
	})
	t.Run("does not wait for a hub that is gone", func(t *testing.T) {
		in(t, 3, func(t *testing.T, n *net) {
			n.hubs[2].deaf = true
			time.AfterFunc(time.Second, func() {
				n.hubs[2].gone.Store(true)
				n.hubs[0].HubGone(3)
			})
			sum, err := n.ask(t.Context(), count)
			require.NoError(t, err)
			require.EqualValues(t, 1+2, sum)
		})
	})
	t.Run("does not wait for a hub that goes while the question is prepared", func(t *testing.T) {
		in(t, 3, func(t *testing.T, n *net) {
			a := n.hubs[0]
			n.hubs[2].deaf = true
			n.hubs[2].gone.Store(true)
			known := a.env.Known
			a.env.Known = sync.OnceValue(func() []ask.Known {
				there := known()
				a.HubGone(3)
				return there
			})
			began := time.Now()
			require.NoError(t, n.command(t.Context()))
			require.Zero(t, time.Since(began))
		})
	})
	t.Run("does not wait for a hub that had ended before, and still says something", func(t *testing.T) {
		in(t, 3, func(t *testing.T, n *net) {
			a, c := n.hubs[0], n.hubs[2]
			a.known = []int{1, 2}
			c.ended.Store(true)
			c.perform = func(ctx context.Context, _ *control.Question, _ Taker) (uint64, error) {
				<-ctx.Done()
				return 0, context.Cause(ctx)
			}
			time.AfterFunc(100*time.Millisecond, func() { c.gone.Store(true) })
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			require.NoError(t, n.command(ctx))
			require.LessOrEqual(t, time.Since(began), 500*time.Millisecond)
		})
	})
	t.Run("does not wait for a hub that is no longer known", func(t *testing.T) {
		for _, uncounted := range []bool{false, true} {
			in(t, 3, func(t *testing.T, n *net) {
				n.uncounted = uncounted
				n.hubs[2].deaf = true
				n.hubs[2].gone.Store(true)
				a := n.hubs[0]
				began, known := time.Now(), a.env.Known
				a.env.Known = func() []ask.Known {
					there := known()
					if time.Since(began) >= 2*time.Second {
						return there[:2]
					}
					return there
				}
				require.NoError(t, n.command(t.Context()))
				require.LessOrEqual(t, time.Since(began), 4*time.Second)
				if !uncounted {
					return
				}
				_, err := n.askMembers(t.Context(), control.OpJoin, 2, 3)
				require.NoError(t, err)
			})
		}
	})
	t.Run("ends when the hub closes", func(t *testing.T) {
		in(t, 2, func(t *testing.T, n *net) {
			n.hubs[1].deaf = true
			time.AfterFunc(time.Second, func() { close(n.hubs[0].closing) })
			_, err := n.ask(t.Context(), count)
			require.ErrorIs(t, err, adapter.ErrClosed)
		})
	})
	t.Run("gets long answers in pages, as the caller takes them", func(t *testing.T) {
		in(t, 2, func(t *testing.T, n *net) {
			const entries = 20_000
			for _, h := range n.hubs {
				h.perform = func(_ context.Context, _ *control.Question, taker Taker) (uint64, error) {
					for i := range uint64(entries) {
						if err := taker.Put(&control.Entry{Number: i, Name: make([]byte, 50)}); err != nil {
							return i, err
						}
					}
					return entries, nil
				}
			}
			everyone := func(q *control.Question) []Lane {
				c := n.everyone()
				c.Hold()
				return []Lane{{Out: c}}
			}
			q := control.Question{Op: control.OpMembers, Scope: control.ScopeEveryone}
			next := make(map[uint64]uint64) // by hub
			require.NoError(t, n.hubs[0].Ask(t.Context(), &q, func(hub uint64, a *control.Answer) bool {
				for _, e := range a.Entries {
					require.Equal(t, next[hub], e.Number)
					next[hub]++
				}
				return true
			}, everyone))
			require.Equal(t, map[uint64]uint64{1: entries, 2: entries}, next)
			pages := 0
			require.NoError(t, n.hubs[0].Ask(t.Context(), &q, func(uint64, *control.Answer) bool {
				pages++
				return pages < 3
			}, everyone))
			require.Equal(t, 3, pages)
			synctest.Wait() // the hubs learn that nobody waits
		})
	})
	t.Run("gets the lists of rooms with presence", func(t *testing.T) {
		in(t, 2, func(t *testing.T, n *net) {
			var lives []uint64
			q := control.Question{Op: control.OpPresence, Scope: control.ScopeEveryone}
			require.NoError(t, n.hubs[0].Ask(t.Context(), &q, func(hub uint64, a *control.Answer) bool {
				require.Len(t, a.Entries, 1)
				lives = append(lives, a.Life)
				return true
			}, func(*control.Question) []Lane {
				c := n.everyone()
				c.Hold()
				return []Lane{{Out: c}}
			}))
			require.Equal(t, []uint64{9, 9}, lives)
		})
	})
	t.Run("fails while the hub's own channels are not subscribed", func(t *testing.T) {
		in(t, 1, func(t *testing.T, n *net) {
			n.hubs[0].listens = adapter.ErrRefused
			_, err := n.ask(t.Context(), count)
			require.ErrorIs(t, err, adapter.ErrRefused)
		})
	})
	t.Run("fails when the hub is closed", func(t *testing.T) {
		in(t, 1, func(t *testing.T, n *net) {
			n.hubs[0].ops.Close()
			_, err := n.ask(t.Context(), count)
			require.ErrorIs(t, err, adapter.ErrClosed)
			require.ErrorIs(t, n.hubs[0].AskHere(t.Context(), &count, nil), adapter.ErrClosed)
		})
	})
	t.Run("says what is known of the backend when its time is over", func(t *testing.T) {
		in(t, 2, func(t *testing.T, n *net) {
			n.hubs[1].deaf = true
			_, err := n.ask(t.Context(), count)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorContains(t, errors.Unwrap(err), "the link is down")
		})
	})
	t.Run("ends its operation when user code panics", func(t *testing.T) {
		in(t, 1, func(t *testing.T, n *net) {
			require.Panics(t, func() {
				_, _ = n.askLanes(t.Context(), count, func(*control.Question) []Lane { panic("Options.Room") })
			})
			n.hubs[0].ops.Close()
			<-n.hubs[0].ops.Empty()
		})
	})
}

// took returns how long a call takes, in whole seconds.
func took(f func()) time.Duration {
	begun := time.Now()
	f()
	return time.Since(begun).Truncate(time.Second)
}

func TestAskMembers(t *testing.T) {
	for _, op := range []control.Op{control.OpCount, control.OpClose} {
		for _, uncounted := range []bool{false, true} {
			name := fmt.Sprintf("op %d, uncounted %v/", op, uncounted)
			t.Run(name+"asks the hubs that have them", func(t *testing.T) {
				in(t, 4, func(t *testing.T, n *net) {
					n.uncounted = uncounted
					sum, err := n.askMembers(t.Context(), op, 2, 4, 2)
					require.NoError(t, err)
					require.EqualValues(t, 2+4, sum)
					require.Equal(t, uncounted, n.hubs[0].uncounted == 1)
				})
			})
			t.Run(name+"asks a hub that has not been heard of yet", func(t *testing.T) {
				in(t, 2, func(t *testing.T, n *net) {
					n.uncounted, n.hubs[0].known = uncounted, []int{1}
					sum, err := n.askMembers(t.Context(), op, 2)
					require.NoError(t, err)
					require.EqualValues(t, 2, sum)
				})
			})
			t.Run(name+"does not wait for a hub that has ended", func(t *testing.T) {
				in(t, 2, func(t *testing.T, n *net) {
					n.uncounted, n.hubs[0].known = uncounted, []int{1}
					n.hubs[1].gone.Store(true)
					n.hubs[1].ended.Store(true)
					require.Zero(t, took(func() {
						sum, err := n.askMembers(t.Context(), op, 2)
						require.NoError(t, err)
						require.Zero(t, sum)
					}))
				})
			})
		}
		t.Run(fmt.Sprintf("op %d, uncounted true/waits a while for a hub that was never heard of", op), func(t *testing.T) {
			in(t, 2, func(t *testing.T, n *net) {
				n.uncounted = true
				require.Equal(t, 3*time.Second, took(func() {
					sum, err := n.askMembers(t.Context(), op, 5, 2, 6)
					require.NoError(t, err)
					require.EqualValues(t, 2, sum)
				}))
			})
		})
		t.Run(fmt.Sprintf("op %d, uncounted true/waits for it while the own hub is new", op), func(t *testing.T) {
			in(t, 1, func(t *testing.T, n *net) {
				n.uncounted, n.hubs[0].isNew = true, true
				require.Equal(t, time.Minute, took(func() {
					_, err := n.askMembers(t.Context(), op, 5)
					require.ErrorIs(t, err, context.DeadlineExceeded)
				}))
			})
		})
	}
}

func TestInboxLanes(t *testing.T) {
	in(t, 2, func(t *testing.T, n *net) {
		id := func(hub, member uint64) string { return item.MemberID(fmt.Sprintf("%016x", hub), member) }
		lanes := InboxLanes(n.hubs[0].env.Notices, []string{id(2, 1), id(1, 1), "nobody", id(2, 3)})
		require.Len(t, lanes, 2)
		for i, l := range lanes {
			require.EqualValues(t, i, l.Which)
			require.True(t, l.Inbox)
		}
		require.Equal(t, []string{id(2, 1), id(2, 3)}, lanes[0].Names)
		require.Equal(t, []string{id(1, 1)}, lanes[1].Names)
		require.EqualValues(t, 2, lanes[0].Hub)
		require.EqualValues(t, 2, n.held.Load())
		Release(lanes)
	})
}

func TestAskHere(t *testing.T) {
	entries := func(n int) func(context.Context, *control.Question, Taker) (uint64, error) {
		return func(_ context.Context, _ *control.Question, t Taker) (uint64, error) {
			for i := range n {
				if err := t.Put(&control.Entry{Number: uint64(i)}); err != nil {
					return 0, err
				}
			}
			return uint64(n), nil
		}
	}
	question := control.Question{Op: control.OpMembers}
	t.Run("passes on each entry, and the count", func(t *testing.T) {
		in(t, 2, func(t *testing.T, n *net) {
			h := n.hubs[0]
			h.perform = entries(3)
			var numbers []uint64
			count := uint64(0)
			require.NoError(t, h.AskHere(t.Context(), &question, func(hub uint64, a *control.Answer) bool {
				require.EqualValues(t, 1, hub)
				for _, e := range a.Entries {
					numbers = append(numbers, e.Number)
				}
				if a.Status.Final() {
					count = a.Count
				}
				return true
			}))
			require.Equal(t, []uint64{0, 1, 2}, numbers)
			require.EqualValues(t, 3, count)
		})
	})
	t.Run("stops when the caller wants no more", func(t *testing.T) {
		in(t, 1, func(t *testing.T, n *net) {
			h := n.hubs[0]
			for _, entry := range []int{0, 3} { // at the final page, at the first
				taken := 0
				h.perform = entries(entry)
				require.NoError(t, h.AskHere(t.Context(), &question, func(uint64, *control.Answer) bool {
					taken++
					return false
				}))
				require.Equal(t, 1, taken)
			}
		})
	})
	t.Run("lets the caller close the hub", func(t *testing.T) {
		in(t, 1, func(t *testing.T, n *net) {
			h := n.hubs[0]
			h.perform = entries(3)
			require.ErrorIs(t, h.AskHere(t.Context(), &question, func(uint64, *control.Answer) bool {
				h.ops.Close()
				<-h.ops.Empty()
				return true
			}), adapter.ErrClosed)
		})
	})
	t.Run("says that members have not answered", func(t *testing.T) {
		in(t, 1, func(t *testing.T, n *net) {
			h := n.hubs[0]
			h.perform = func(ctx context.Context, q *control.Question, taker Taker) (uint64, error) {
				p := h.Poll(q.Data)
				defer p.Close()
				p.Add(1)
				return 1, p.Collect(ctx, 1, taker)
			}
			count := uint64(0)
			err := h.AskHere(t.Context(), &control.Question{Op: control.OpAsk}, func(_ uint64, a *control.Answer) bool {
				count = a.Count
				return true
			})
			incomplete, is := errors.AsType[*Incomplete](err)
			require.True(t, is)
			require.ErrorIs(t, incomplete.Err, context.DeadlineExceeded)
			require.ErrorContains(t, incomplete.Err, "the link is down")
			require.EqualValues(t, 1, count, "the caller knows how many there are")
		})
	})
	t.Run("fails with the hub's error", func(t *testing.T) {
		in(t, 1, func(t *testing.T, n *net) {
			h := n.hubs[0]
			h.perform = func(context.Context, *control.Question, Taker) (uint64, error) { return 0, ErrNotUnderstood }
			require.Equal(t, ErrNotUnderstood, h.AskHere(t.Context(), &question, nil))
		})
	})
}

func TestPoll(t *testing.T) {
	question := control.Question{Op: control.OpAsk}
	t.Run("collects answers until all have answered or ended", func(t *testing.T) {
		in(t, 2, func(t *testing.T, n *net) {
			h := n.hubs[1]
			h.perform = func(ctx context.Context, q *control.Question, taker Taker) (uint64, error) {
				p := h.Poll(q.Data)
				defer p.Close()
				for m := range uint64(3) {
					p.Add(m)
				}
				require.Same(t, p, h.PollOf(p.Data))
				time.AfterFunc(time.Second, func() {
					open, err := p.Reply(ctx, control.Entry{Number: 0, Data: []byte("yes")})
					require.True(t, open)
					require.NoError(t, err)
					open, _ = p.Reply(ctx, control.Entry{Number: 0})
					require.False(t, open, "a second answer")
				})
				time.AfterFunc(2*time.Second, func() { h.MemberGone(1) })
				time.AfterFunc(3*time.Second, func() { p.Gone(2) })
				return 3, p.Collect(ctx, 3, taker)
			}
			begun := time.Now()
			sum, err := n.ask(t.Context(), question)
			require.NoError(t, err)
			require.EqualValues(t, 1+3, sum)
			require.Equal(t, 3*time.Second, time.Since(begun).Truncate(time.Second))
		})
	})
	t.Run("does not wait for a member that has left the rooms which it asks", func(t *testing.T) {
		in(t, 1, func(t *testing.T, n *net) {
			h := n.hubs[0]
			rooms, elsewhere := h.Poll(nil), h.Poll(nil)
			defer rooms.Close()
			defer elsewhere.Close()
			rooms.Within([]string{"a", "b"})
			rooms.Add(1)
			elsewhere.Add(1)
			isIn := func(rooms ...string) func(string) bool {
				return func(channel string) bool { return slices.Contains(rooms, channel) }
			}
			waits := func(p *Poll) bool {
				_, all := p.takeReplies()
				return !all
			}
			h.MemberLeft(2, isIn())
			h.MemberLeft(1, isIn("b", "c"))
			require.True(t, waits(rooms))
			h.MemberLeft(1, isIn("c"))
			require.False(t, waits(rooms))
			require.True(t, waits(elsewhere), "it does not go by rooms")
			open, err := rooms.Reply(t.Context(), control.Entry{Number: 1})
			require.False(t, open)
			require.NoError(t, err)
		})
	})
	t.Run("takes no answers after Close", func(t *testing.T) {
		in(t, 1, func(t *testing.T, n *net) {
			p := n.hubs[0].Poll(nil)
			p.Add(1)
			require.Same(t, p, n.hubs[0].PollOf(p.Data), "even without data it has an address")
			p.Close()
			open, err := p.Reply(t.Context(), control.Entry{Number: 1})
			require.False(t, open)
			require.NoError(t, err)
			require.Nil(t, n.hubs[0].PollOf(p.Data))
		})
	})
	t.Run("makes an answer wait until there is room", func(t *testing.T) {
		in(t, 1, func(t *testing.T, n *net) {
			p := n.hubs[0].Poll(nil)
			defer p.Close()
			p.Add(1)
			p.Add(2)
			open, err := p.Reply(t.Context(), control.Entry{Number: 1, Data: make([]byte, maxReplies)})
			require.True(t, open)
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err = p.Reply(ctx, control.Entry{Number: 2, Data: []byte("1")})
			require.ErrorIs(t, err, context.DeadlineExceeded)
		})
	})
}

// The first of two pages was lost, and the last one comes when nobody waits.
func TestLastPageOfAnAbandonedQuestion(t *testing.T) {
	in(t, 2, func(t *testing.T, n *net) {
		n.hubs[0].deaf = true
		answering, goOn := n.hubs[1], make(chan struct{})
		answering.perform = func(_ context.Context, _ *control.Question, to Taker) (uint64, error) {
			err := to.Flush(1)
			<-goOn
			return 2, err
		}
		q := control.Question{ID: 2, Op: control.OpCount, Scope: control.ScopeEveryone, Wait: 600_000, Credit: 4}
		answering.Put(1, q.Append(nil), nil)
		synctest.Wait()
		n.hubs[0].deaf = false
		close(goOn)
		synctest.Wait()
		require.Zero(t, answering.Pending(), "the hub that answers is told")
	})
}

// The page comes between the moments in which those that were heard are told,
// and in which the question is forgotten.
func TestPageOfAnAbandonedQuestion(t *testing.T) {
	in(t, 2, func(t *testing.T, n *net) {
		n.hubs[1].perform = func(_ context.Context, _ *control.Question, to Taker) (uint64, error) {
			return 2, to.Flush(1) // a second page follows, and waits to be consumed
		}
		asker := &n.hubs[0].Switchboard
		a := &asking{board: asker, kick: make(chan struct{}, 1), heard: make(map[uint64]bool), open: make(map[uint64]bool)}
		a.question = control.Question{Op: control.OpCount, Scope: control.ScopeEveryone, Wait: 600_000, Credit: 2}
		a.register()
		a.abandon()
		n.hubs[1].Put(1, a.question.Append(nil), nil)
		synctest.Wait()
		require.Zero(t, n.hubs[1].Pending(), "the hub that answers is told")
		a.forget()
	})
}
