package fanout_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/hubstest"
	"github.com/stretchr/testify/require"
)

// releases runs a test on a backend that counts and on one that does not, with
// three hubs: two of this release, and one of another, which is last.
func releases(t *testing.T, name string, other hubstest.Release, test func(t *testing.T, hubs []*fanout.Hub)) {
	for _, counts := range []bool{true, false} {
		t.Run(fmt.Sprintf("%s, counts=%v", name, counts), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := memory.NewBus()
				var hubs []*fanout.Hub
				for i := range 3 {
					var a adapter.Adapter = bus.NewAdapter()
					if !counts {
						a = uncounted{a.(*memory.Adapter)}
					}
					if i == 2 {
						other.Adapter = a
						a = other
					}
					hubs = append(hubs, newHubOn(t, a, watched(fanout.RoomOptions{})))
				}
				time.Sleep(3 * time.Second) // they know of each other
				test(t, hubs)
				for _, h := range hubs {
					require.Zero(t, h.Stats().Malformed)
				}
			})
		})
	}
}

// Hubs of two releases ask and command each other. What one of them cannot
// answer is an error that names it: see WIRE.md.
func TestTwoReleasesAskEachOther(t *testing.T) {
	releases(t, "answer each other, whatever fields a later one adds", hubstest.Release{Fields: laterFields("skip"), Payload: hubstest.Longer},
		func(t *testing.T, hubs []*fanout.Hub) {
			for _, h := range hubs {
				hubstest.AskEverything(t, h, hubs)
			}
		})
	releases(t, "a question that this one does not know is not understood", hubstest.Release{Payload: hubstest.UnknownOp},
		func(t *testing.T, hubs []*fanout.Hub) {
			connect(t, hubs[0], "x")
			began := time.Now()
			_, err := hubs[2].In("x").Count(within(t))
			var partial *fanout.PartialError
			require.ErrorAs(t, err, &partial)
			require.Contains(t, partial.Failed, fanout.FailedHub{ID: hubs[0].ID(), Reason: "its release does not know what it was asked"})
			require.Empty(t, partial.Silent)
			require.NoError(t, partial.Err)
			require.Zero(t, time.Since(began), "nobody is waited for")
		})
	for what, other := range map[string]hubstest.Release{
		"a field that must be understood": {Fields: laterFields("must")},
		"a payload of another version":    {Payload: func(p []byte) []byte { return append([]byte{control.Version + 1}, p[1:]...) }},
		"another kind of payload":         {Payload: func(p []byte) []byte { return append([]byte{control.Version, 200}, p[2:]...) }},
	} {
		releases(t, what+" is dropped, and the hub named", other, func(t *testing.T, hubs []*fanout.Hub) {
			connect(t, hubs[0], "x")
			_, err := hubs[2].In("x").Count(briefly(t))
			requireSilent(t, err, hubs[0].ID())
		})
	}
}

// briefly returns a context for a question that is not answered completely.
func briefly(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// requireSilent checks that an error names a hub as one that has not answered.
func requireSilent(t testing.TB, err error, hub string) (since time.Time) {
	t.Helper()
	var partial *fanout.PartialError
	require.ErrorAs(t, err, &partial)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	for _, silent := range partial.Silent {
		if silent.ID == hub {
			return silent.Since
		}
	}
	t.Fatalf("hub %s is not named: %v", hub, err)
	return since
}

// A hub of the oldest format that is supported knows nothing of questions. It
// is named by those that ask it, and the others' answers come. What it reads of
// it does it no harm.
func TestTheOldestReleaseDoesNotAnswer(t *testing.T) {
	const room = "plain"
	for _, counts := range []bool{true, false} {
		t.Run(fmt.Sprintf("counts=%v", counts), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 2, counts, watched(fanout.RoomOptions{}))
				old := newOldHub(t, f.bus, 5)
				said := time.Now()
				old.hello()
				time.Sleep(time.Second)
				oldID := fmt.Sprintf("%016x", old.id)
				a, b := f.hubs[0], f.hubs[1]
				ann, bob := connect(t, a, room), connect(t, b, room)
				answers(t, ann, bob)
				asks := map[string]func(s fanout.Selection) (int, error){
					"Count": func(s fanout.Selection) (int, error) { return s.Count(briefly(t)) },
					"Members": func(s fanout.Selection) (n int, err error) {
						for _, err = range s.Members(briefly(t)) {
							n++
						}
						return n - 1, err // the last is the error
					},
					"Ask": func(s fanout.Selection) (int, error) {
						got, err := replies(briefly(t), s, "well?")
						return len(got), err
					},
					"Join": func(s fanout.Selection) (int, error) {
						err := s.Join(briefly(t), "joined")
						return len(ann.Rooms()) + len(bob.Rooms()) - 2, err
					},
				}
				for what, ask := range asks {
					n, err := ask(a.In(room))
					require.Equal(t, said, requireSilent(t, err, oldID), what)
					require.Equal(t, 2, n, what)
				}
				t.Log("where it is not subscribed it is not waited for, if the backend counts, but for a command")
				connect(t, b, "elsewhere")
				n, err := a.In("elsewhere").Count(briefly(t))
				require.Equal(t, 1, n)
				if counts {
					require.NoError(t, err)
				} else {
					requireSilent(t, err, oldID)
				}
				requireSilent(t, a.In("elsewhere").Join(briefly(t), "joined"), oldID)
				require.Empty(t, old.got("fanout:r:{plain}"), "it has heard nothing that it takes for a message")
				t.Log("the first list of a room with presence does not wait for it for long")
				w := watchRoom(t, connect(t, a, room))
				time.Sleep(6 * time.Second)
				w.require(t, idsOf(ann, bob, w.m)...)
			})
		})
	}
}

func decoded(payload []byte) control.Payload {
	p, _ := control.Decode(payload)
	return p
}
