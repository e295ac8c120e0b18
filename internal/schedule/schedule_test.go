package schedule

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Schedule[string]
		s.Init()
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		type call struct {
			thing string
			after time.Duration
		}
		var calls []call
		at := func(thing string, after time.Duration) { s.At(thing, began.Add(after)) }
		at("at once", 0)
		at("late", time.Hour)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.Run(ctx, func(thing string, now time.Time) {
				calls = append(calls, call{thing, now.Sub(began)})
				if thing == "again" && now.Sub(began) < 3*time.Second {
					at("again", now.Sub(began)+time.Second)
				}
			})
		}()
		synctest.Wait()
		t.Log("the earlier of two times stands, and a call is made once")
		at("twice", 3*time.Second)
		at("twice", 2*time.Second)
		at("twice", 4*time.Second)
		at("again", time.Second)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Equal(t, []call{
			{"at once", 0},
			{"again", time.Second},
			{"twice", 2 * time.Second},
			{"again", 2 * time.Second},
			{"again", 3 * time.Second},
		}, calls)
		require.Len(t, s.due, 1)
		require.Len(t, s.queue, 1, "what is out of date is gone")
		cancel()
		<-ended
	})
}
