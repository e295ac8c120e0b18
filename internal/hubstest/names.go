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
	type called struct{ inRoom, ofUser, other *fanout.Member }
	there := make(map[string]called)
	for _, name := range []string{
		"{a}", "[a]*?%#", "%7Ba%7D", "*", " ", "a b", "🎲", "}{", "everyone", strings.Repeat("x", 255), strings.Repeat("x", 254) + "y",
		x.all[0].ID(), x.all[1].ID(), plain.ID(), "ann",
		x.prefix, x.prefix + ":r:{a}", x.prefix + ":a:{everyone}", x.prefix + ":u:{ann}", x.prefix + ":i:{" + x.all[1].ID() + "}",
	} {
		there[name] = called{x.enter(t, 1, "", name), x.enter(t, 2, name), stranger.enter(t, 0, name, name)}
	}
	for name, c := range there {
		t.Logf("a room and a user called %q", name)
		inRoom, ofUser, other := c.inRoom, c.ofUser, c.other
		h := x.all[0]
		requireMembers(t, h.In(name), ids(inRoom), "the room")
		requireMembers(t, h.User(name), ids(ofUser), "the user")
		requireMembers(t, h.To(inRoom.ID()), ids(inRoom), "the member of the room")
		require.NoError(t, h.In(name).Join(within(t), "joined"))
		requireMembers(t, h.In("joined"), ids(inRoom), "the room that the members of the room were told to join")
		requireMembers(t, stranger.all[0].In(name), ids(other), "the room in the other application")
		requireMembers(t, stranger.all[0].User(name), ids(other), "the user in the other application")
		require.NoError(t, h.In(name).Publish(within(t), []byte("room")))
		require.NoError(t, h.User(name).Publish(within(t), []byte("user")))
		require.NoError(t, h.To(plain.ID()).Publish(within(t), []byte("direct")))
		requireReceived(t, inRoom, "room")
		requireReceived(t, ofUser, "user")
		requireReceived(t, plain, "direct")
		require.NoError(t, h.User(name).Close(within(t), "end"))
		require.NoError(t, h.In(name).Close(within(t), "end"))
		for _, m := range []*fanout.Member{inRoom, ofUser} { // and nothing else has come
			msg, err := m.Receive(within(t))
			require.ErrorIs(t, err, fanout.ErrClosed, "%q has come", msg.Data)
		}
	}
	t.Log("nothing else has come")
	require.NoError(t, stranger.all[0].Everyone().Publish(within(t), []byte("nothing else")))
	for _, c := range there {
		requireReceived(t, c.other, "nothing else")
	}
	require.NoError(t, x.all[1].Everyone().Publish(within(t), []byte("nothing else")))
	requireReceived(t, plain, "nothing else")
}
