package fanout_test

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// An operation is a method that can fail, with what its errors begin with.
type operation struct {
	begins string
	call   func(ctx context.Context) error
}

// last returns the error that comes last, if one comes.
func last[T any](seq iter.Seq2[T, error]) (err error) {
	for _, err = range seq {
		_ = err
	}
	return err
}

// operationsOf returns the methods of a hub, a room, a selection and a member.
func operationsOf(h *fanout.Hub, m *fanout.Member, room string, s fanout.Selection) []operation {
	r := h.Room(room)
	in := " room " + strconv.Quote(room) + ": "
	return []operation{
		{"connect: ", func(context.Context) error { _, err := h.Connect(nil); return err }},
		{"health: ", h.Health},
		{"ready: ", h.Ready},
		{"drain: ", h.Drain},
		{"hubs: ", func(ctx context.Context) error { return last(h.Hubs(ctx)) }},
		{"join" + in, func(ctx context.Context) error { return r.Join(ctx, m) }},
		{"resume" + in, func(ctx context.Context) error { return r.Resume(ctx, m, fanout.Position{}) }},
		{"leave" + in, func(ctx context.Context) error { return r.Leave(ctx, m) }},
		{"history of" + in, func(ctx context.Context) error { _, err := r.History(ctx, fanout.Position{}, 0); return err }},
		{"publish to" + in, func(ctx context.Context) error { return r.Publish(ctx, nil) }},
		{"publish to" + in, func(ctx context.Context) error { return r.PublishAsync(ctx, nil, nil) }},
		{"publish", func(ctx context.Context) error { return s.Publish(ctx, nil) }},
		{"publish", func(ctx context.Context) error { return s.PublishAsync(ctx, nil, nil) }},
		{"count: ", func(ctx context.Context) error { _, err := s.Count(ctx); return err }},
		{"members: ", func(ctx context.Context) error { return last(s.Members(ctx)) }},
		{"users: ", func(ctx context.Context) error { return last(s.Users(ctx)) }},
		{"ask: ", func(ctx context.Context) error { return last(s.Ask(ctx, nil)) }},
		{"join: ", func(ctx context.Context) error { return s.Join(ctx, "elsewhere") }},
		{"leave: ", func(ctx context.Context) error { return s.Leave(ctx, "elsewhere") }},
		{"close: ", func(ctx context.Context) error { return s.Close(ctx, "") }},
		{"receive: ", func(ctx context.Context) error { _, err := m.Receive(ctx); return err }},
		{"receive: ", func(ctx context.Context) error { return last(m.Messages(ctx)) }},
		{"receive: ", func(ctx context.Context) error { _, err := m.ReceiveBatch(ctx, nil); return err }},
		{"receive: ", func(context.Context) error { _, err := m.TryReceiveBatch(nil); return err }},
		{"set info: ", func(context.Context) error { return m.SetInfo(make([]byte, fanout.MaxInfo+1)) }},
		{"reply: ", func(ctx context.Context) error { return m.Reply(ctx, fanout.Message{}, nil) }},
	}
}

// Whatever goes wrong, an error has one prefix and names the operation that was
// called.
func TestErrorsNameTheirOperation(t *testing.T) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	roomOption := func(name string) fanout.RoomOptions {
		if name == "bad" {
			return fanout.RoomOptions{Window: fanout.Window{Messages: -1}}
		}
		return fanout.RoomOptions{Retain: fanout.Retention{Messages: 10}}
	}
	type trouble struct {
		room  string
		ctx   context.Context
		cause func(t *testing.T, h *fanout.Hub, a fanout.Adapter, m *fanout.Member)
	}
	nothing := func(*testing.T, *fanout.Hub, fanout.Adapter, *fanout.Member) {}
	troubles := map[string]trouble{
		"options of a room": {room: "bad", cause: nothing},
		"a closed adapter": {room: "x", cause: func(t *testing.T, _ *fanout.Hub, a fanout.Adapter, _ *fanout.Member) {
			require.NoError(t, a.Close(within(t)))
		}},
		"a closed hub": {room: "x", cause: func(t *testing.T, h *fanout.Hub, _ fanout.Adapter, _ *fanout.Member) {
			require.NoError(t, h.Close(within(t)))
		}},
		"a closed member":  {room: "x", cause: func(_ *testing.T, _ *fanout.Hub, _ fanout.Adapter, m *fanout.Member) { m.Close() }},
		"an ended context": {room: "x", ctx: ended, cause: nothing},
		"a name":           {room: "\xff", cause: nothing},
	}
	for _, name := range slices.Sorted(maps.Keys(troubles)) {
		c := troubles[name]
		for kind, pick := range map[string]func(h *fanout.Hub, m *fanout.Member) fanout.Selection{
			"In":   func(h *fanout.Hub, _ *fanout.Member) fanout.Selection { return h.In(c.room) },
			"In 2": func(h *fanout.Hub, _ *fanout.Member) fanout.Selection { return h.In(c.room, "y") },
			"User": func(h *fanout.Hub, _ *fanout.Member) fanout.Selection { return h.User("u") },
			"To":   func(h *fanout.Hub, m *fanout.Member) fanout.Selection { return h.To(m.ID()) },
			"All":  func(h *fanout.Hub, _ *fanout.Member) fanout.Selection { return h.Everyone() },
		} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				a := memory.NewBus().NewAdapter()
				h := newHubOn(t, a, &fanout.Options{Room: roomOption})
				require.NoError(t, h.Ready(within(t)))
				m, err := h.Connect(nil)
				require.NoError(t, err)
				c.cause(t, h, a, m)
				ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
				defer cancel()
				if c.ctx != nil {
					ctx = c.ctx
				}
				for _, op := range operationsOf(h, m, c.room, pick(h, m)) {
					err := op.call(ctx)
					if _, partial := errors.AsType[*fanout.PartialError](err); err == nil || partial {
						continue
					}
					for _, line := range strings.Split(err.Error(), "\n") {
						assert.Truef(t, strings.HasPrefix(line, "fanout: "+op.begins), "%q does not begin with %q", line, op.begins)
						assert.Equalf(t, 1, strings.Count(line, "fanout: "), "prefixes in %q", line)
					}
				}
			})
		}
	}
}
