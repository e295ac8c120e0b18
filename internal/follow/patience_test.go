package follow

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPatience(t *testing.T) {
	now := time.Unix(1000, 0)
	t.Run("doubles up to a bound, and ends", func(t *testing.T) {
		var p patience
		var waits []time.Duration
		at := now
		for {
			wait, giveUp := p.noProgress(at)
			if giveUp {
				break
			}
			waits = append(waits, wait)
			at = at.Add(wait)
		}
		ms := time.Millisecond
		require.Equal(t, []time.Duration{50 * ms, 100 * ms, 200 * ms, 400 * ms, 800 * ms, 800 * ms}, waits)
		require.LessOrEqual(t, at.Sub(now), waitTime+lastWait)

		// From then on a frame costs one reading, and those are apart.
		require.Equal(t, waitPause-ms, p.pause(at.Add(ms)))
		require.Zero(t, p.pause(at.Add(waitPause)))
		_, giveUp := p.noProgress(at.Add(time.Second))
		require.True(t, giveUp)
		_, giveUp = p.noProgress(at.Add(time.Second + waitMemory))
		require.False(t, giveUp, "it has forgotten")
	})
	t.Run("begins anew after progress", func(t *testing.T) {
		var p patience
		require.Zero(t, p.pause(now))
		for range 4 {
			p.noProgress(now)
		}
		p.progress()
		wait, giveUp := p.noProgress(now.Add(time.Hour))
		require.False(t, giveUp)
		require.Equal(t, firstWait, wait)
	})
}
