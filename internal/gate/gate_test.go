package gate

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNobodyEntersAClosedGate(t *testing.T) {
	g := New()
	require.True(t, g.Enter(2))
	g.Close()
	require.False(t, g.Enter(1))
	select {
	case <-g.Empty():
		t.Fatal("two operations are in flight")
	default:
	}
	g.Leave(1)
	require.False(t, g.Enter(1))
	g.Leave(1)
	<-g.Empty()
}

func TestAGateThatNobodyHasEnteredIsEmptyWhenClosed(t *testing.T) {
	g := New()
	g.Close()
	<-g.Empty()
}

func TestEmptyIsAfterTheLastThatHasEntered(t *testing.T) {
	for range 200 {
		g, inside := New(), atomic.Int64{}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for g.Enter(1) {
					inside.Add(1)
					inside.Add(-1)
					g.Leave(1)
				}
			})
		}
		g.Close()
		<-g.Empty()
		require.Zero(t, inside.Load())
		wg.Wait()
	}
}

func TestWhoHasNotEnteredCannotLeave(t *testing.T) {
	require.Panics(t, func() { New().Leave(1) })
	g := New()
	require.True(t, g.Enter(1))
	g.Close()
	require.Panics(t, func() { g.Leave(2) })
}
