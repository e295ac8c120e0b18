package outbox

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRemembered(t *testing.T) {
	now := time.Unix(1000, 0)
	t.Run("gives numbers back once", func(t *testing.T) {
		var r Remembered
		r.Keep("a", 3, 7, now)
		r.Keep("nothing was published", 0, 1, now)
		stream, next := r.Take("a")
		require.Equal(t, [2]uint64{3, 7}, [2]uint64{stream, next})
		for _, channel := range []string{"a", "nothing was published"} {
			stream, next = r.Take(channel)
			require.Zero(t, stream+next)
		}
	})
	t.Run("forgets numbers that are too old", func(t *testing.T) {
		var r Remembered
		r.Keep("a", 1, 1, now)
		r.Keep("b", 2, 2, now.Add(time.Minute))
		require.Equal(t, now.Add(RememberedFor), r.Forget(now))
		require.Equal(t, now.Add(RememberedFor+time.Minute), r.Forget(now.Add(RememberedFor)))
		stream, _ := r.Take("a")
		require.Zero(t, stream)
		stream, _ = r.Take("b")
		require.EqualValues(t, 2, stream)
		require.Zero(t, r.Forget(now.Add(time.Hour)))
		require.Equal(t, Remembered{}, r, "nothing is held")
	})
	t.Run("keeps numbers that were kept again since", func(t *testing.T) {
		var r Remembered
		r.Keep("a", 1, 1, now)
		r.Take("a")
		r.Keep("a", 1, 5, now.Add(time.Minute))
		r.Forget(now.Add(RememberedFor))
		_, next := r.Take("a")
		require.EqualValues(t, 5, next)
	})
	t.Run("is bounded", func(t *testing.T) {
		var r Remembered
		for n := range maxRemembered + 10 {
			r.Keep(fmt.Sprint(n), 1, uint64(n), now.Add(time.Duration(n)))
		}
		require.Len(t, r.kept, maxRemembered)
		require.Len(t, r.queue, maxRemembered)
		stream, _ := r.Take("9")
		require.Zero(t, stream, "the oldest go")
		stream, _ = r.Take("10")
		require.EqualValues(t, 1, stream)
	})
}
