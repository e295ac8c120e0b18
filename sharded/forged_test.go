package sharded_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/stretchr/testify/require"
)

// If another program writes into the keys of a history, members are told of a
// gap, the room continues to work, and its history begins anew when the keys
// are gone. Members that were there all the time need not join again.
func TestHistoryThatWasForged(t *testing.T) {
	t.Parallel()
	now := fmt.Sprint(time.Now().UnixMilli())
	for name, forge := range map[string]func(stream, note, epoch string) [][]string{
		"an offset near 2^63, and an entry of a later epoch": func(stream, note, epoch string) [][]string {
			return [][]string{
				{"HSET", note, "o", "9223372036854775806"},
				{"XADD", stream, epoch + "1-9223372036854775805", now + " 1", "forged"},
			}
		},
		"an offset near 2^64": func(_, note, _ string) [][]string {
			return [][]string{{"HSET", note, "o", "18446744073709551615"}}
		},
		"an epoch of the far future": func(stream, note, epoch string) [][]string {
			return [][]string{{"HSET", note, "s", "v1 99" + epoch + " 0 9999999999999 0123456789abcdef0123"}}
		},
		"an epoch beyond 2^63": func(stream, note, epoch string) [][]string {
			return [][]string{{"HSET", note, "s", "v1 18446744073709551614 0 9999999999999 0123456789abcdef0123"}}
		},
		"an epoch that is past": func(stream, note, epoch string) [][]string {
			return [][]string{{"DEL", stream}, {"HSET", note, "s", "v1 1 0 9999999999999 0123456789abcdef0123"}}
		},
		"a past epoch with the last offset": func(_, note, epoch string) [][]string {
			return [][]string{{"HSET", note, "c", "1:18446744073709551615:0,"}}
		},
	} {
		for _, empty := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, empty %v", name, empty), func(t *testing.T) {
				t.Parallel()
				s := redistest.NewServer(t, redistest.Options{})
				a, b := keeping(t, s.Client(t), 100), keeping(t, s.Client(t), 100)
				room := fmt.Sprintf("%.20s %v", name, empty)
				stream := "fanout:h:{" + room + "}"
				note := stream + ":at"
				m := member(t, b)
				require.NoError(t, b.Room(room).Join(within(t), m))
				epoch := fmt.Sprint(time.Now().UnixMilli())
				if !empty {
					say(t, a.Room(room), 1, 3)
					got, at := hear(t, m, 3)
					require.Equal(t, count(1, 3), got)
					epoch = fmt.Sprint(at.Epoch >> 20)
				}
				for _, command := range forge(stream, note, epoch) {
					require.NoError(t, s.Do(within(t), command...).Error())
				}
				// Whatever the server makes of it, whoever is told that a
				// publish arrived is right, and members are told what did not
				// reach them.
				told := 0
				for n := range 10 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					if a.Room(room).Publish(ctx, fmt.Append(nil, n)) == nil {
						told++
					}
					cancel()
				}
				for range 2 { // the second is read after whatever the first came to
					before := b.Stats().Reads
					require.NoError(t, s.Do(within(t), "CLIENT", "KILL", "TYPE", "pubsub").Error())
					require.Eventually(t, func() bool { return b.Stats().Reads > before }, 10*time.Second, 10*time.Millisecond)
				}
				require.NoError(t, s.Do(within(t), "DEL", stream, note).Error())
				healed := func() bool {
					say(t, a.Room(room), 1000, 1000)
					texts, _, _ := drain(m)
					return slices.Contains(texts, "1000")
				}
				require.Eventually(t, healed, 20*time.Second, 100*time.Millisecond)
				drain(m)
				say(t, a.Room(room), 2001, 2020)
				got := strings.Join(first(drain(m)), " ")
				require.Contains(t, got, strings.Join(count(2001, 2020), " "))
				late := member(t, b)
				require.NoError(t, b.Room(room).Join(within(t), late))
				t.Logf("%d of 10 publishes were acknowledged", told)
			})
		}
	}
}

func first(texts []string, _ int, _ bool) []string { return texts }

// drain receives until nothing comes for a while.
func drain(m *fanout.Member) (texts []string, missed int, unknown bool) {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		msg, err := m.Receive(ctx)
		cancel()
		gap := new(fanout.GapError)
		switch {
		case errors.As(err, &gap):
			missed += gap.Missed
			unknown = unknown || gap.Unknown
		case err != nil:
			return texts, missed, unknown
		default:
			texts = append(texts, string(msg.Data))
		}
	}
}
