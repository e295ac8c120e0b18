package ask

import (
	"testing"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/stretchr/testify/require"
)

var start = time.Unix(1_700_000_000, 0)

func last(attempt uint64, covers ...uint64) *control.Answer {
	return &control.Answer{Attempt: attempt, Status: control.StatusLast, Covers: covers}
}

func there(ids ...uint64) (list []Known) {
	for _, id := range ids {
		list = append(list, Known{id, start})
	}
	return list
}

func TestQuestion(t *testing.T) {
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	t.Run("is complete at once if nobody listens", func(t *testing.T) {
		q := New(2, 1, there(1, 2, 3))
		require.Equal(t, []int{0, 1}, q.Start(start).Send)
		require.False(t, q.Done())
		q.Sent(0, 0, 0)
		require.False(t, q.Done())
		q.Sent(1, 0, 0)
		require.True(t, q.Done())
		require.Empty(t, q.Tick(at(1000)))
	})
	t.Run("is complete when all that got it have answered", func(t *testing.T) {
		q := New(1, 1, nil)
		q.Start(start)
		require.True(t, q.Answer(1, last(0, 0), start), "it may be faster than the count")
		q.Sent(0, 0, 2)
		require.False(t, q.Done())
		require.True(t, q.Answer(2, &control.Answer{Status: control.StatusMore, Covers: []uint64{0}}, start))
		require.False(t, q.Done(), "there is more")
		require.False(t, q.Answer(2, &control.Answer{Status: control.StatusLast}, start), "a page that has come")
		require.True(t, q.Answer(2, &control.Answer{Status: control.StatusLast, Page: 1}, start))
		require.True(t, q.Done())
		require.False(t, q.Answer(2, &control.Answer{Status: control.StatusLast, Page: 2}, start))
	})
	t.Run("is sent again with a new count, so a hub that was killed costs 200 ms", func(t *testing.T) {
		q := New(1, 1, nil)
		q.Start(start)
		q.Sent(0, 0, 2)
		q.Answer(1, last(0, 0), start)
		require.Equal(t, at(200), q.Next())
		a := q.Tick(q.Next())
		require.Equal(t, []int{0}, a.Send)
		require.Equal(t, uint64(1), a.Attempt)
		q.Sent(0, 1, 1)
		require.False(t, q.Done(), "another hub may be the one that got it")
		q.Sent(0, 0, 2) // late
		require.False(t, q.Answer(1, last(1, 0), start), "nothing new")
		require.True(t, q.Done())
	})
	t.Run("waits ever longer", func(t *testing.T) {
		q := New(1, 1, nil)
		q.Start(start)
		now := start
		for _, ms := range []int{200, 400, 800, 1600, 2000, 2000} {
			require.Equal(t, now.Add(time.Duration(ms)*time.Millisecond), q.Next())
			now = q.Next()
			require.Equal(t, []int{0}, q.Tick(now).Send, "it was not published yet")
		}
	})
	t.Run("asks which hubs listen where the backend does not count", func(t *testing.T) {
		q := New(1, 1, there(1, 2, 3))
		q.Start(start)
		require.True(t, q.Sent(0, 0, -1).Roll)
		require.False(t, q.Sent(0, 0, -1).Roll, "once")
		q.Rolled(1, []uint64{0}, start)
		q.Rolled(2, nil, start)
		require.False(t, q.Done())
		q.Answer(1, last(0, 0), start)
		require.False(t, q.Done(), "the third may listen")
		require.True(t, q.Tick(at(200)).Roll)
		silent, unknown := q.Missing()
		require.Equal(t, there(3), silent)
		require.Zero(t, unknown)
		q.Gone(3, start)
		require.True(t, q.Done())
	})
	t.Run("does not wait for a hub that is gone", func(t *testing.T) {
		q := New(1, 1, there(1, 2))
		q.Start(start)
		q.Sent(0, 0, 2)
		q.Answer(1, last(0, 0), start)
		q.Answer(2, &control.Answer{Status: control.StatusMore, Covers: []uint64{0}}, start)
		require.Empty(t, q.Gone(2, start), "it has been counted")
		require.True(t, q.Done())
		require.False(t, q.Answer(2, &control.Answer{Status: control.StatusLast, Page: 1}, start))
		require.Empty(t, q.Gone(2, start))
		require.Empty(t, q.Gone(9, start))

		q = New(1, 1, there(1, 2))
		q.Start(start)
		q.Sent(0, 0, 1)
		require.Equal(t, []int{0}, q.Gone(2, start).Send, "the count may have been with it")
	})
	t.Run("does not wait for a hub whose answers come after the news that it is gone", func(t *testing.T) {
		for what, late := range map[string]func(q *Question){
			"where it listens": func(q *Question) { q.Rolled(2, []uint64{0}, start) },
			"that it works on it": func(q *Question) {
				require.False(t, q.Answer(2, &control.Answer{Status: control.StatusWorking}, start))
			},
			"a page": func(q *Question) {
				require.False(t, q.Answer(2, &control.Answer{Status: control.StatusMore}, start))
			},
		} {
			q := New(1, 1, there(1))
			q.Thorough()
			q.Start(start)
			q.Sent(0, 0, 1)
			q.Gone(2, start) // it was not known
			late(q)
			q.Answer(1, last(0, 0), start)
			q.Rolled(1, []uint64{0}, start)
			require.True(t, q.Done(), what)
		}
	})
	t.Run("a hub that is gone, and got the question, has been counted", func(t *testing.T) {
		q := New(1, 1, nil)
		q.Start(start)
		q.Gone(2, start)
		require.False(t, q.Answer(2, last(0, 0), start))
		q.Answer(1, last(0, 0), start)
		q.Sent(0, 0, 2)
		require.True(t, q.Done())
	})
	t.Run("is soon sent again when a hub has ended, which may still be counted", func(t *testing.T) {
		q := New(1, 1, there(1, 2))
		q.Start(start)
		q.Tick(at(200))
		q.Tick(at(600))
		require.Equal(t, []int{0}, q.Gone(2, at(700)).Send)
		require.Equal(t, at(710), q.Next())
		q.Tick(q.Next())
		require.Equal(t, at(730), q.Next())
	})
	t.Run("does not wait for a hub that is no longer there", func(t *testing.T) {
		thorough := func() *Question {
			q := New(1, 1, there(1, 2))
			q.Thorough()
			q.Start(start)
			q.Sent(0, 0, 1)
			q.Answer(1, last(0, 0), start)
			q.Rolled(1, []uint64{0}, start)
			return q
		}
		q := thorough()
		q.There(there(1, 2), at(200))
		require.False(t, q.Done())
		q.There(there(1), at(400))
		require.True(t, q.Done())

		t.Log("one that has begun to answer gets some time")
		q = thorough()
		q.Rolled(2, []uint64{0}, start)
		q.Answer(2, &control.Answer{Status: control.StatusMore, Covers: []uint64{0}}, at(100))
		q.There(there(1), at(5000))
		require.False(t, q.Done())
		q.There(there(1), at(5100))
		require.True(t, q.Done())
	})
	t.Run("a thorough one waits for a hub that is known and was not counted", func(t *testing.T) {
		q := New(1, 1, there(1, 2, 3))
		q.Thorough()
		require.True(t, q.Start(start).Roll)
		q.Sent(0, 0, 1) // the link of 2 is down, and 3 does not listen
		q.Answer(1, last(0, 0), start)
		q.Rolled(1, []uint64{0}, start)
		q.Rolled(3, nil, start)
		require.False(t, q.Done())
		silent, unknown := q.Missing()
		require.Equal(t, there(2), silent)
		require.Zero(t, unknown)
		a := q.Tick(q.Next())
		require.Equal(t, []int{0}, a.Send)
		require.True(t, a.Roll)
		q.Sent(0, 1, 2)
		q.Answer(1, last(1, 0), start)
		q.Answer(2, last(1, 0), start)
		require.True(t, q.Done())
	})
	t.Run("a thorough one does not wait for a hub that is gone", func(t *testing.T) {
		q := New(1, 1, there(1, 2))
		q.Thorough()
		q.Start(start)
		q.Sent(0, 0, 1)
		q.Answer(1, last(0, 0), start)
		q.Rolled(1, []uint64{0}, start)
		require.False(t, q.Done())
		q.Gone(2, start)
		require.True(t, q.Done())
	})
	t.Run("waits for a hub that is expected and was not counted", func(t *testing.T) {
		asked := func() *Question {
			q := New(2, 1, there(1, 2, 3))
			q.Expect(2, 1)
			q.Expect(4, 0, 1) // it is not known
			require.False(t, q.Start(start).Roll)
			q.Sent(0, 0, 1)
			q.Sent(1, 0, 1)
			q.Answer(1, last(0, 0, 1), start)
			require.False(t, q.Done())
			silent, unknown := q.Missing()
			require.Equal(t, there(2), silent)
			require.Zero(t, unknown)
			require.True(t, q.WaitsOnlyFor(2))
			require.False(t, q.WaitsOnlyFor(1))
			require.False(t, q.WaitsOnlyFor(9))
			return q
		}
		q := asked()
		require.Equal(t, []int{1}, q.Tick(q.Next()).Send)
		q.Sent(1, 1, 2)
		q.Answer(1, last(1, 1), start)
		q.Answer(2, last(1, 1), start)
		require.True(t, q.Done())
		t.Log("until it is gone")
		q = asked()
		q.Gone(2, start)
		require.True(t, q.Done())
		t.Log("or no longer expected")
		q = asked()
		q.Expect(2)
		require.True(t, q.Done())
	})
	ofTwoRooms := func() *Question { // of hub 1, which is in both
		q := New(2, 1, there(1, 2, 3))
		q.Expect(1, 0, 1)
		q.Start(start)
		return q
	}
	t.Run("waits only for a hub that got it in some of the channels", func(t *testing.T) {
		q := ofTwoRooms()
		q.Sent(0, 0, 1) // 2
		q.Sent(1, 0, 2)
		require.False(t, q.WaitsOnlyFor(1))
		q.Tick(at(200))
		q.Sent(1, 1, 2)
		q.Answer(2, last(1, 0, 1), start)
		require.False(t, q.WaitsOnlyFor(1), "another one may have been counted")
		q.Arrived(1, 1, 0)
		require.False(t, q.WaitsOnlyFor(1), "another one may be counted now")
		q.Arrived(1, 1, 1)
		q.Arrived(1, 7, 1)
		q.Arrived(1, 0, 9)
		require.True(t, q.WaitsOnlyFor(1))
		require.False(t, q.Done())
		silent, _ := q.Missing()
		require.Equal(t, there(1), silent)
		q.Here(1)
		require.True(t, q.Done())
	})
	t.Run("does not take a hub that answers itself for one that is missing", func(t *testing.T) {
		q := ofTwoRooms()
		q.Sent(0, 0, 0)
		q.Sent(1, 0, 2) // and 2, which is deaf
		q.Arrived(1, 1, 0)
		q.Here(1)
		silent, unknown := q.Missing()
		require.Empty(t, silent)
		require.Equal(t, 1, unknown)
		t.Log("nor another one for it")
		q = New(1, 1, there(1, 2, 3))
		q.Expect(1, 0)
		q.Start(start)
		q.Sent(0, 0, 2) // a server counts what it believes to be there
		q.Answer(2, last(0, 0), start)
		q.Here(1)
		silent, unknown = q.Missing()
		require.Empty(t, silent)
		require.Equal(t, 1, unknown)
	})
	t.Run("waits for a hub that has it, and works on it", func(t *testing.T) {
		q := New(1, 1, there(1))
		q.Expect(1, 0)
		q.Start(start)
		q.Sent(0, 0, 1)
		q.Arrived(1, 0, 0)
		require.False(t, q.WaitsOnlyFor(1))
	})
	t.Run("names those that are silent", func(t *testing.T) {
		q := New(1, 1, there(1, 2, 3))
		q.Start(start)
		q.Sent(0, 0, 3)
		q.Answer(1, last(0, 0), start)
		silent, unknown := q.Missing()
		require.Equal(t, there(2, 3), silent, "it can only be these")
		require.Zero(t, unknown)

		q = New(1, 1, there(1, 2, 3))
		q.Start(start)
		q.Sent(0, 0, 2)
		q.Answer(1, last(0, 0), start)
		silent, unknown = q.Missing()
		require.Empty(t, silent, "it may be any of two")
		require.Equal(t, 1, unknown)
		q.Tick(at(200))
		require.True(t, q.Tick(at(600)).Roll)
		q.Sent(0, 2, 2)
		q.Answer(1, last(2, 0), start)
		q.Rolled(3, nil, start)
		q.Rolled(1, []uint64{0}, start)
		silent, unknown = q.Missing()
		require.Equal(t, there(2), silent)
		require.Zero(t, unknown)
	})
	t.Run("a busy hub is asked again", func(t *testing.T) {
		q := New(1, 1, nil)
		q.Start(start)
		q.Sent(0, 0, 1)
		require.False(t, q.Answer(1, &control.Answer{Status: control.StatusBusy, Covers: []uint64{0}}, start))
		require.Equal(t, []int{0}, q.Tick(at(200)).Send)
	})
	t.Run("an answer to an attempt that was never made does not count", func(t *testing.T) {
		q := New(1, 1, nil)
		q.Start(start)
		q.Sent(0, 0, 1)
		require.False(t, q.Answer(1, last(9, 0), start))
		require.False(t, q.Done())
	})
	t.Run("gives credit for what was consumed, and repeats it to a hub that is silent", func(t *testing.T) {
		q := New(1, 4, nil)
		q.Start(start)
		q.Sent(0, 0, 1)
		for page := range uint64(2) {
			q.Answer(1, &control.Answer{Status: control.StatusMore, Page: page, Covers: []uint64{0, 99}}, start)
		}
		require.Equal(t, []HubCredit{{1, 2, 5}}, q.Consumed(1, 1).Credit)
		require.Empty(t, q.Consumed(1, 1).Credit)
		require.Empty(t, q.Consumed(1, 9).Credit)
		require.Empty(t, q.Consumed(2, 1).Credit)
		a := q.Tick(at(200))
		require.Empty(t, a.Send)
		require.Equal(t, []HubCredit{{1, 2, 5}}, a.Credit)
		require.Equal(t, at(600), q.Next())
		q.Answer(1, &control.Answer{Status: control.StatusLast, Page: 2}, start)
		require.Equal(t, []HubCredit{{1, 3, 5}}, q.Consumed(1, 3).Credit, "it need not keep them")
	})
}

func TestCommands(t *testing.T) {
	key := Key{1, 2}
	t.Run("a question runs when all copies have come, and once", func(t *testing.T) {
		var c Commands
		both := []uint64{3, 5}
		require.Equal(t, Wait, c.Arrive(key, 5, both, time.Second, start))
		require.Equal(t, Wait, c.Arrive(key, 5, both, time.Second, start))
		require.Equal(t, Run, c.Arrive(key, 3, both, time.Second, start))
		require.Equal(t, both, c.Copies(key))
		require.Equal(t, Working, c.Arrive(key, 3, both, time.Second, start))
		c.Cancel(key)
		c.Tick(start.Add(time.Hour))
		require.Equal(t, 1, c.Len(), "it is running")
		c.Finished(key, []byte("done"))
		require.Equal(t, Again, c.Arrive(key, 3, both, time.Second, start))
		require.Equal(t, "done", string(c.Result(key)))
		c.Tick(start.Add(time.Second + remember - 1))
		require.Equal(t, 1, c.Len())
		c.Tick(start.Add(time.Second + remember))
		require.Zero(t, c.Len())
		require.Empty(t, c.Result(key))
		require.Empty(t, c.Copies(key))
		c.Finished(key, nil)
		c.Cancel(key)
	})
	t.Run("a copy that will not come is not waited for", func(t *testing.T) {
		var c Commands
		require.Equal(t, Wait, c.Arrive(key, 0, []uint64{0, 1}, 0, start))
		require.Equal(t, Run, c.Arrive(key, 0, []uint64{0}, 0, start))
	})
	t.Run("one that is cancelled is forgotten", func(t *testing.T) {
		var c Commands
		c.Arrive(key, 0, nil, 0, start)
		c.Finished(key, nil)
		c.Cancel(key)
		c.Tick(start)
		require.Zero(t, c.Len())
	})
	t.Run("are bounded", func(t *testing.T) {
		var c Commands
		for id := range uint64(maxCommands) {
			require.Equal(t, Run, c.Arrive(Key{1, id}, 0, nil, 0, start))
		}
		require.Equal(t, Busy, c.Arrive(Key{2, 0}, 0, nil, 0, start))
		c.Finished(Key{1, 7}, nil)
		require.Equal(t, Run, c.Arrive(Key{2, 0}, 0, nil, 0, start))
		require.Equal(t, maxCommands, c.Len())
	})
}

func TestPages(t *testing.T) {
	p := NewPages(2)
	add := func(want uint64, last bool) {
		n, ok := p.Next()
		require.True(t, ok)
		require.Equal(t, want, n)
		p.Add([]byte{byte(n)}, last)
	}
	full := func() {
		_, ok := p.Next()
		require.False(t, ok)
	}
	credit := func(from, upto uint64) [][]byte {
		again, ok := p.Credit(&control.Credit{From: from, Upto: upto})
		require.True(t, ok)
		return again
	}
	add(0, false)
	add(1, false)
	full()
	require.Equal(t, [][]byte{{0}, {1}}, credit(0, 2), "the asker waits")
	require.Empty(t, credit(1, 3))
	add(2, false)
	full()
	require.Equal(t, [][]byte{{1}, {2}}, credit(1, 3))
	require.Empty(t, credit(3, 100))
	for n := range uint64(maxKept) {
		add(3+n, false)
	}
	full()
	_, ok := p.Credit(&control.Credit{From: 2})
	require.False(t, ok, "these are gone")
	_, ok = p.Credit(&control.Credit{From: 100})
	require.False(t, ok, "these were not sent")
	credit(11, 100)
	add(11, true)
	full()
	require.False(t, p.Done())
	credit(12, 100)
	require.True(t, p.Done())
}

func TestCreditFor(t *testing.T) {
	for hubs, want := range map[int]uint64{0: 8, 1: 8, 32: 8, 64: 4, 256: 1, 1000: 1} {
		require.Equal(t, want, CreditFor(hubs))
	}
}
