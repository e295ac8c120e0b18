package partition_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/partition"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/stretchr/testify/require"
)

// A room moves to and fro, used or not, while hubs and servers are restarted
// and copies end halfway. Its history stays whole.
func TestWander(t *testing.T) {
	for seed := range uint64(redistest.Rounds(60, 1000)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { wander(t, seed) })
		})
	}
}

func wander(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 1))
	all := []string{"p0", "p1", "p2"}
	w := &restarts{t: t, buses: make(map[string]*memory.Bus)}
	subset := func() (in, out []string) {
		for len(in) == 0 {
			in, out = nil, nil
			for _, name := range all {
				if random.IntN(2) == 0 {
					in = append(in, name)
				} else {
					out = append(out, name)
				}
			}
		}
		return in, out
	}
	set, rest := subset()
	w.start(set, rest...)
	for step := range 30 {
		what := ""
		switch random.IntN(7) {
		case 0, 1:
			w.said++
			at, _, err := w.a.Append(t.Context(), movedChannel, adapter.Record{
				Frame: fmt.Append(nil, w.said), Messages: 1, Keep: movedKeep, Time: time.Now(),
			})
			require.NoError(t, err)
			w.at = append(w.at, at)
			what = fmt.Sprint("say at ", partition.Pick(set, "room"), " ", at)
		case 2, 3:
			set, rest = subset()
			to := w.buses[partition.Pick(set, "room")]
			if random.IntN(3) == 0 {
				n := random.IntN(4)
				what = fmt.Sprint("stopped after ", n, " ")
				to.Intercept(func(_ context.Context, f memory.Frame) (fate memory.Fate) {
					if f.Channel == movedChannel {
						if n--; n < 0 {
							fate.Refuse, fate.Err = true, adapter.Unsent(fmt.Errorf("full"))
						}
					}
					return fate
				})
			}
			w.change(set, rest...)
			to.Intercept(nil)
			what = fmt.Sprint(what, "change ", set, " home ", partition.Pick(set, "room"))
		case 4:
			w.stop()
			w.start(set, rest...)
			what = "restart"
		case 5:
			name := all[random.IntN(3)]
			w.buses[name].Failover(0, true) // a loss would take records that are long there
			what = fmt.Sprint("failover ", name)
		case 6:
			time.Sleep(time.Duration(random.IntN(5000)) * time.Millisecond)
			since := adapter.Position{}
			from := 0
			if len(w.at) > 0 {
				from = random.IntN(len(w.at) + 1)
				if from > 0 {
					since = w.at[from-1]
				}
			}
			page, err := w.a.History(t.Context(), movedChannel, adapter.Query{Since: since, Limit: 100, Keep: movedKeep, Time: time.Now()})
			require.NoError(t, err)
			var got []string
			for _, f := range page.Frames {
				got = append(got, string(f.Frame))
			}
			var want []string
			for i := from; i < w.said; i++ {
				want = append(want, fmt.Sprint(i+1))
			}
			t.Log("read", since, page.Head, page.Before)
			require.Equal(t, want, got, "step %d", step)
			for i, f := range page.Frames {
				require.Equal(t, w.at[from+i], f.At)
			}
			require.False(t, slices.ContainsFunc(page.Before, func(p adapter.PastEpoch) bool { return !p.Whole }))
			what = "read"
		}
		t.Log(step, what)
		for i := range len(w.at) - 1 {
			require.True(t, w.at[i].Before(w.at[i+1]), "%v %v", w.at[i], w.at[i+1])
		}
	}
}
