package work

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// start returns a pool, and what ends it and waits for its tasks.
func start(t *testing.T) (p *Pool, end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	p = new(Pool)
	p.Init(ctx, wg.Go)
	return p, func() {
		p.Stop()
		cancel()
		wg.Wait()
	}
}

// hang is a task that a silent server does not answer.
func hang(task *Task) { <-task.Context().Done() }

func (p *Pool) running() (fast, slow int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fast.running, p.slow.running
}

func TestPool(t *testing.T) {
	test := func(name string, f func(t *testing.T, p *Pool)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, end := start(t)
				f(t, p)
				end()
			})
		})
	}
	test("runs tasks in the order of asking, a bounded number at a time", func(t *testing.T, p *Pool) {
		var mu sync.Mutex
		var order []int
		release := make(chan struct{})
		for n := range 3 * maxFast {
			p.Add(func(*Task) {
				mu.Lock()
				order = append(order, n)
				mu.Unlock()
				<-release
			})
		}
		synctest.Wait()
		fast, _ := p.running()
		require.Equal(t, maxFast, fast)
		require.Len(t, order, maxFast)
		for _, n := range order {
			require.Less(t, n, maxFast)
		}
		close(release)
		synctest.Wait()
		require.Len(t, order, 3*maxFast)
		fast, slow := p.running()
		require.Zero(t, fast+slow, "goroutines end when nothing is left to do")
	})
	test("does not have others wait for slow tasks", func(t *testing.T, p *Pool) {
		for range maxFast {
			p.Add(hang)
		}
		var ran atomic.Bool
		p.Add(func(*Task) { ran.Store(true) })
		synctest.Wait()
		require.False(t, ran.Load())
		time.Sleep(slowAfter)
		synctest.Wait()
		require.True(t, ran.Load())
		fast, slow := p.running()
		require.Equal(t, []int{0, maxFast}, []int{fast, slow})
	})
	test("breaks slow tasks off when there are too many, and they begin again among those", func(t *testing.T, p *Pool) {
		release := make(chan struct{})
		for range maxSlow {
			p.Add(func(*Task) { <-release })
		}
		synctest.Wait()
		time.Sleep(maxSlow / maxFast * slowAfter)
		synctest.Wait()
		_, slow := p.running()
		require.Equal(t, maxSlow, slow)
		var cause error
		tries := 0
		var task func(*Task)
		task = func(one *Task) {
			if tries++; tries == 1 {
				hang(one)
				cause = context.Cause(one.Context())
				p.Again(one, time.Millisecond, task)
			}
		}
		p.Add(task)
		time.Sleep(2 * slowAfter)
		synctest.Wait()
		require.Equal(t, errCrowded, cause)
		require.Equal(t, 1, tries, "the slow lane is full")
		close(release)
		synctest.Wait()
		require.Equal(t, 2, tries)
	})
	test("has what failed begin again after a while, in its turn", func(t *testing.T, p *Pool) {
		began := time.Now()
		var at []time.Duration
		var task func(*Task)
		task = func(one *Task) {
			if at = append(at, time.Since(began)); len(at) < 3 {
				p.Again(one, time.Second, task)
			}
		}
		p.AddAfter(time.Minute, task)
		p.AddAfter(0, func(*Task) {})
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Equal(t, []time.Duration{time.Minute, time.Minute + time.Second, time.Minute + 2*time.Second}, at)
	})
	test("takes what failed slowly to be slow again", func(t *testing.T, p *Pool) {
		slow := false
		p.Add(func(one *Task) {
			time.Sleep(time.Second)
			p.Again(one, time.Second, func(one *Task) { slow = one.slow })
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		require.True(t, slow)
	})
}

func TestPoolStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, end := start(t)
		var ended error
		p.Add(func(one *Task) {
			hang(one)
			ended = one.Context().Err()
		})
		for range maxFast {
			p.Add(hang)
		}
		ran := false
		late := func() { ran = true }
		p.Add(func(*Task) { late() }) // waits for a place
		p.AddAfter(time.Hour, func(*Task) { late() })
		p.Aside(func() { time.Sleep(time.Second) })
		synctest.Wait()
		end()
		require.ErrorIs(t, ended, context.Canceled, "the context ends what is under way")
		p.Add(func(*Task) { late() })
		p.Aside(late)
		time.Sleep(2 * time.Hour)
		require.False(t, ran, "nothing begins after Stop")
	})
}
