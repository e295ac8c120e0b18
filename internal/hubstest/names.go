package hubstest

import (
	"strings"
	"testing"

	"github.com/fanoutgo/fanout"
	"github.com/stretchr/testify/require"
)

// names uses the same odd names for rooms and users, in two applications. A
// message to one of them reaches no other.
func names(t *testing.T, x *hubs) {
	stranger := &hubs{backend: x.backend, prefix: x.prefix + ":r:"}
	stranger.open(t, nil)
	plain := x.enter(t, 2, "")
	for _, name := range []string{
		"{a}", "[a]*?%#", "%7Ba%7D", "*", " ", "a b", "🎲", "}{", "everyone", strings.Repeat("x", 255),
		x.all[0].ID(), x.all[1].ID(), plain.ID(), "ann",
		x.prefix, x.prefix + ":r:{a}", x.prefix + ":a:{everyone}", x.prefix + ":u:{ann}", x.prefix + ":i:{" + x.all[1].ID() + "}",
	} {
		inRoom, ofUser := x.enter(t, 1, "", name), x.enter(t, 2, name)
		other := stranger.enter(t, 0, name, name)
		h := x.all[0]
		requireMembers(t, h.In(name), ids(inRoom), name)
		requireMembers(t, h.User(name), ids(ofUser), name)
		requireMembers(t, h.To(inRoom.ID()), ids(inRoom), name)
		require.NoError(t, h.In(name).Join(within(t), "joined"), name)
		requireMembers(t, h.In("joined"), ids(inRoom), name)
		requireMembers(t, stranger.all[0].In(name), ids(other), name)
		require.NoError(t, h.In(name).Publish(within(t), []byte("room")))
		require.NoError(t, h.User(name).Publish(within(t), []byte("user")))
		require.NoError(t, h.To(plain.ID()).Publish(within(t), []byte("direct")))
		requireReceived(t, inRoom, "room")
		requireReceived(t, ofUser, "user")
		requireReceived(t, plain, "direct")
		require.NoError(t, h.User(name).Close(within(t), "end"))
		require.NoError(t, h.In(name).Close(within(t), "end"))
		for _, m := range []*fanout.Member{inRoom, ofUser} { // and nothing else has come
			_, err := m.Receive(within(t))
			require.ErrorIs(t, err, fanout.ErrClosed)
		}
		require.NoError(t, stranger.all[0].Everyone().Publish(within(t), []byte("nothing else")))
		requireReceived(t, other, "nothing else")
		require.NoError(t, other.Close())
	}
	require.NoError(t, x.all[1].Everyone().Publish(within(t), []byte("nothing else")))
	requireReceived(t, plain, "nothing else")
}
