package partition_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

// A process of the next deploy starts while no other hub can be reached. The
// others keep their set.
func TestHubStartsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a", "b")
		first := hubOn(t, w.add(t, quiet, "a", "b"))
		room := roomOn(abc, "c")
		m := member(t, first, "ann")
		require.NoError(t, first.Room(room).Join(t.Context(), m))
		require.NoError(t, first.Room(room).Publish(t.Context(), []byte("1")))
		require.Equal(t, "1", next(t, m))
		time.Sleep(time.Minute)
		w.each(0, (*memory.Adapter).Cut) // both servers were restarted, and this hub is not back yet
		second := hubOn(t, w.add(t, quiet, abc...))
		time.Sleep(5 * time.Second)
		w.each(0, (*memory.Adapter).Heal)
		time.Sleep(5 * time.Second)
		require.NoError(t, first.Health(t.Context()))
		require.NoError(t, first.Room(room).Publish(t.Context(), []byte("2")))
		require.NoError(t, second.Room(room).Publish(t.Context(), []byte("3")))
	})
}
