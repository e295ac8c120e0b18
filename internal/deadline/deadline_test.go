package deadline

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var errLate = errors.New("late")

func TestContextsEndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, cancel := context.WithCancel(t.Context())
		defer cancel()
		g := NewGroup(parent, 8*time.Second, errLate)
		for range 50 {
			begun := time.Now()
			ctx, hold := g.Bound(context.Background())
			time.Sleep(700 * time.Millisecond)
			other, _ := g.Bound(context.Background())
			require.NoError(t, other.Err())
			<-ctx.Done()
			took := time.Since(begun)
			require.GreaterOrEqual(t, took, 7*time.Second)
			require.LessOrEqual(t, took, 8*time.Second)
			require.Equal(t, errLate, context.Cause(ctx))
			hold.Release()
		}
	})
}

func TestContextsAreShared(t *testing.T) {
	g := NewGroup(t.Context(), time.Hour, errLate)
	a, _ := g.Bound(context.Background())
	b, hold := g.Bound(context.Background())
	hold.Release() // does not concern other callers
	require.Same(t, a, b)
	require.NoError(t, a.Err())
	require.Zero(t, testing.AllocsPerRun(100, func() {
		_, hold := g.Bound(context.Background())
		hold.Release()
	}))
}

func TestContextsEndWithTheParent(t *testing.T) {
	parent, cancel := context.WithCancel(t.Context())
	g := NewGroup(parent, time.Hour, errLate)
	own, stop := context.WithCancel(t.Context())
	defer stop()
	for _, ctx := range []context.Context{context.Background(), own} {
		ctx, hold := g.Bound(ctx)
		defer hold.Release()
		require.NoError(t, ctx.Err())
		defer func() { <-ctx.Done() }()
	}
	cancel()
	ctx, _ := g.Bound(context.Background())
	require.Error(t, ctx.Err())
}

func TestACallersContextIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup(t.Context(), time.Minute, errLate)
		own, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		ctx, hold := g.Bound(own)
		defer hold.Release()
		begun := time.Now()
		<-ctx.Done()
		require.Equal(t, time.Second, time.Since(begun))

		// With two groups the shorter time counts.
		shorter := NewGroup(t.Context(), time.Second, errLate)
		for _, ctx := range []context.Context{first(shorter.Bound(g.Context())), first(g.Bound(shorter.Context()))} {
			require.Same(t, shorter.Context(), ctx)
		}
	})
}

func TestAContextWithoutATimerIsLikeOne(t *testing.T) {
	type key struct{}
	for name, end := range map[string]func(caller, group context.CancelFunc){
		"its time":   func(context.CancelFunc, context.CancelFunc) { time.Sleep(time.Minute) },
		"its caller": func(caller, _ context.CancelFunc) { caller() },
		"its group":  func(_, group context.CancelFunc) { group() },
	} {
		for _, asked := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				parent, endGroup := context.WithCancel(t.Context())
				defer endGroup()
				own, endCaller := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
				defer endCaller()
				ctx, hold := NewGroup(parent, time.Minute, errLate).Bound(own)
				defer hold.Release()
				child := ctx
				if asked {
					var stop func()
					child, stop = context.WithCancel(ctx)
					defer stop()
					require.Equal(t, "value", ctx.Value(key{}))
				}
				deadline, ok := ctx.Deadline()
				require.True(t, ok)
				require.Equal(t, time.Minute, time.Until(deadline))
				require.NoError(t, ctx.Err())
				require.NoError(t, child.Err())
				end(endCaller, endGroup)
				synctest.Wait()
				require.Error(t, ctx.Err(), name)
				<-ctx.Done()
				<-child.Done()
				require.Error(t, context.Cause(child))
			})
		}
	}
}

func TestATimeCanBeWaived(t *testing.T) {
	g := NewGroup(t.Context(), time.Minute, errLate)
	own, cancel := context.WithCancel(t.Context())
	defer cancel()
	ctx, hold := g.Bound(own)
	defer hold.Release()
	require.Equal(t, own, Waive(ctx, time.Minute))
	require.Equal(t, ctx, Waive(ctx, 2*time.Minute), "it is shorter")
	require.Equal(t, own, Waive(own, 0))
}

func TestATimeThatIsNearlyOverIsNotWaived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own, cancel := context.WithCancel(t.Context())
		defer cancel()
		ctx, hold := NewGroup(t.Context(), time.Minute, errLate).Bound(own)
		defer hold.Release()
		time.Sleep(10 * time.Second)
		require.Equal(t, ctx, Waive(ctx, time.Minute))
	})
}

func TestTheCauseIsTheGroups(t *testing.T) {
	parent, cancel := context.WithCancelCause(t.Context())
	g := NewGroup(parent, time.Minute, errLate)
	own, stop := context.WithCancel(t.Context())
	defer stop()
	for _, ctx := range []context.Context{context.Background(), own} {
		ctx, hold := g.Bound(ctx)
		defer hold.Release()
		ctx.Done()
		defer func() {
			<-ctx.Done()
			require.Equal(t, errLate, context.Cause(ctx))
		}()
	}
	cancel(errLate)
}

func first(ctx context.Context, _ Hold) context.Context { return ctx }
