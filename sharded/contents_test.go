package sharded_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// Whatever the keys of a history contain, its functions do not fail by
// accident, and one that fails has written nothing.
func TestHistoryOfAnyContents(t *testing.T) {
	c := cluster(t)
	t.Run("functions", func(t *testing.T) { ofAnyContents(t, c, c.Client(t)) })
	t.Run("scripts", func(t *testing.T) {
		for _, n := range c.Nodes() {
			require.NoError(t, n.Do(within(t), "ACL", "SETUSER", "scripts", "on", ">secret", "~*", "&*", "+@all", "-fcall").Error())
		}
		ofAnyContents(t, c, c.Client(t, func(o *rueidis.ClientOption) { o.Username, o.Password = "scripts", "secret" }))
	})
}

func ofAnyContents(t *testing.T, c *redistest.Cluster, client rueidis.Client) {
	rounds := redistest.Rounds(100, 300)
	a, err := newAdapter(client)
	require.NoError(t, err)
	require.NoError(t, a.Attach(heedless{}))
	defer a.Close(within(t))
	h := a.(adapter.Historian)
	random := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	const channel, stream, note = "fanout:r:{contents}", "fanout:h:{contents}", "fanout:h:{contents}:at"
	n := c.Owner(redistest.Slot(channel))
	seq := uint64(1)
	keep := func() error {
		seq++
		_, _, err := h.Append(within(t), channel, adapter.Record{
			Frame: []byte("x"), Messages: 1, Keep: fanout.Retention{Messages: 8, Age: time.Minute}, Publisher: "me", Stream: 1, Seq: seq,
		})
		return err
	}
	dump := func() string {
		all, err := n.Do(within(t), "DUMP", note).ToString()
		more, err2 := n.Do(within(t), "DUMP", stream).ToString()
		if err != nil || err2 != nil {
			return fmt.Sprint("gone ", err, err2)
		}
		return all + more
	}
	failures := 0
	for range rounds {
		require.NoError(t, n.Do(within(t), "DEL", stream, note).Error())
		for range 10 {
			require.NoError(t, keep())
		}
		var commands []string
		for range 1 + random.IntN(2) {
			command := anyDamage(t, random, n, stream, note)
			commands = append(commands, fmt.Sprintf("%q", command))
			n.Do(within(t), command...) // which Redis may refuse
		}
		for range 2 {
			before := dump()
			err := keep()
			if err != nil {
				failures++
				require.ErrorIs(t, err, fanout.ErrBrokenHistory, commands)
				require.Equal(t, before, dump(), commands)
			}
			_, err = h.History(within(t), channel, adapter.Query{
				Since: adapter.Position{Epoch: random.Uint64(), Offset: random.Uint64()},
				Limit: 100, Keep: fanout.Retention{Messages: 8, Age: time.Minute},
			})
			if err != nil {
				failures++
				require.ErrorIs(t, err, fanout.ErrBrokenHistory, commands)
			}
		}
	}
	require.Greater(t, failures, rounds/4)
}

// anyDamage returns a command that changes something of a history.
func anyDamage(t *testing.T, random *rand.Rand, n *redistest.Node, stream, note string) []string {
	t.Helper()
	fields, err := n.Do(within(t), "HGETALL", note).AsStrMap()
	if err != nil || len(fields) == 0 {
		return []string{"DEL", note}
	}
	var names []string
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	name := names[random.IntN(len(names))]
	switch random.IntN(8) {
	case 0:
		return []string{"HDEL", note, name}
	case 1:
		return []string{"DEL", stream}
	case 2:
		return []string{"XADD", stream, fmt.Sprintf("%d-%d", random.Uint64(), random.Uint64()), anyText(random), anyText(random)}
	}
	value := fields[name]
	parts := strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(" :,", r) })
	if len(parts) == 0 || random.IntN(4) == 0 {
		return []string{"HSET", note, name, anyText(random)}
	}
	return []string{"HSET", note, name, strings.Replace(value, parts[random.IntN(len(parts))], anyText(random), 1)}
}

func anyText(random *rand.Rand) string {
	texts := []string{
		"", " ", ",", ":", "x", "-1", "0", "1", "1.5", "1e3", "0x10", "nan", "inf", "-inf", "1 1", "1:1:1,", "1:1:1,x", ",,",
		"9007199254740991", "9007199254740992", "9223372036854775807", "18446744073709551615", "18446744073709551616",
		strings.Repeat("9", 400), strings.Repeat("1:1:1,", 400), "\x00\xff", "%d+", "1795633881048", "17956338810480",
	}
	if random.IntN(4) == 0 {
		return fmt.Sprint(random.Uint64() >> random.IntN(64))
	}
	return texts[random.IntN(len(texts))]
}
