package hubstest

import (
	"context"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

// A Release is the adapter of a hub of another release: what the hub asks and
// answers is written as that release would.
type Release struct {
	adapter.Adapter
	Fields  wire.Fields         // of notices
	Payload func([]byte) []byte // nil: it stays as it is
}

// Publish implements adapter.Adapter.
func (r Release) Publish(ctx context.Context, channel string, frame []byte) (int, error) {
	return r.Adapter.Publish(ctx, channel, r.rewrite(frame))
}

func (r Release) rewrite(frame []byte) []byte {
	_, payload, err := wire.DecodeControl(frame)
	if err != nil {
		return frame
	}
	b := append([]byte(nil), frame[:len(frame)-len(payload)]...)
	if len(r.Fields) > 0 {
		b[5] |= 2 // the notice has fields
		b = append(append(b, byte(len(r.Fields))), r.Fields...)
	}
	if r.Payload != nil {
		payload = r.Payload(payload)
	}
	return append(b, payload...)
}

// Longer returns a payload with more at its end, as a later release may write
// it.
func Longer(payload []byte) []byte { return append(append([]byte(nil), payload...), "later"...) }

// UnknownOp makes a question ask for something that no release knows.
func UnknownOp(payload []byte) []byte {
	p, _ := control.Decode(payload)
	if q, ok := p.(*control.Question); ok && q.Op != control.OpRoll && q.Op != control.OpPresence {
		q.Op = 200
		return q.Append(nil)
	}
	return payload
}

// releases adds a hub of a later release, which asks the others and is asked,
// and one that asks for what they do not know.
func releases(t *testing.T, x *hubs) {
	field := wire.AppendField(nil, wire.Field{Number: 4000, Value: []byte("later")})
	x.open(t, func(a adapter.Adapter) adapter.Adapter { return Release{Adapter: a, Fields: field, Payload: Longer} })
	x.ready(t)
	for _, h := range x.all {
		AskEverything(t, h, x.all)
	}
	x.open(t, func(a adapter.Adapter) adapter.Adapter { return Release{Adapter: a, Payload: UnknownOp} })
	x.ready(t)
	x.enter(t, 0, "", "room")
	began := time.Now()
	_, err := x.all[4].In("room").Count(within(t))
	partial := new(fanout.PartialError)
	require.ErrorAs(t, err, &partial)
	require.Contains(t, partial.Failed, fanout.FailedHub{ID: x.all[0].ID(), Reason: "its release does not know what it was asked"})
	require.Empty(t, partial.Silent)
	require.Less(t, time.Since(began), 10*time.Second, "nobody is waited for")
	for _, h := range x.all {
		require.Zero(t, h.Stats().Malformed)
	}
}

// AskEverything makes a hub ask and command the members of all hubs in all
// ways.
func AskEverything(t testing.TB, h *fanout.Hub, all []*fanout.Hub) {
	t.Helper()
	var members []*fanout.Member
	for _, other := range all {
		members = append(members, enter(t, other, "ann", "x"))
	}
	Answer(t, members...)
	s, want := h.In("x"), ids(members...)
	requireMembers(t, s, want)
	requireMembers(t, h.User("ann"), want)
	for u, err := range s.Users(within(t)) {
		require.NoError(t, err)
		require.Equal(t, len(all), u.Connections)
	}
	there, err := length(h.Hubs(within(t)))
	require.NoError(t, err)
	require.Equal(t, len(all), there)
	got, err := replies(within(t), s)
	require.NoError(t, err)
	require.ElementsMatch(t, want, got)
	require.NoError(t, s.Join(within(t), "y"))
	requireMembers(t, h.In("y"), want)
	require.NoError(t, h.To(want...).Leave(within(t), "x"))
	requireMembers(t, s, nil)
	require.NoError(t, h.User("ann").Close(within(t), "end"))
	for _, m := range members {
		require.Empty(t, m.Rooms())
		<-m.Done()
		require.ErrorIs(t, m.Err(), fanout.ErrClosed)
	}
}
