package nats

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/adapter/nats/internal/numbers"
	"github.com/stretchr/testify/require"
)

func TestClaims(t *testing.T) {
	for name, test := range map[string]struct {
		happens func(claimed func(id numbers.ID, wait time.Duration))
		want    time.Duration
	}{
		"nobody has claimed": {func(func(numbers.ID, time.Duration)) {}, 0},
		"ends":               {func(claimed func(numbers.ID, time.Duration)) { claimed(1, 300*time.Millisecond) }, 300 * time.Millisecond},
		"is over": {func(claimed func(numbers.ID, time.Duration)) {
			claimed(1, 300*time.Millisecond)
			time.Sleep(300 * time.Millisecond)
		}, 0},
		"ends when the claimant has appended, and no other": {func(claimed func(numbers.ID, time.Duration)) {
			claimed(1, 300*time.Millisecond)
			time.AfterFunc(2*time.Millisecond, func() { claimed(2, 0) })
			time.AfterFunc(3*time.Millisecond, func() { claimed(1, 0) })
		}, 3 * time.Millisecond},
		"the one that ends last stands for all": {func(claimed func(numbers.ID, time.Duration)) {
			claimed(1, 300*time.Millisecond)
			claimed(2, 400*time.Millisecond)
			claimed(3, time.Millisecond)
			claimed(1, 0)
		}, 400 * time.Millisecond},
		"a later one counts for those that wait": {func(claimed func(numbers.ID, time.Duration)) {
			claimed(1, 300*time.Millisecond)
			time.AfterFunc(200*time.Millisecond, func() { claimed(2, 200*time.Millisecond) })
		}, 400 * time.Millisecond},
		"claims without an end": {func(claimed func(numbers.ID, time.Duration)) {
			for i := range 10 {
				time.AfterFunc(time.Duration(i)*100*time.Millisecond, func() { claimed(1, 300*time.Millisecond) })
			}
			time.Sleep(time.Nanosecond)
		}, maxClaim},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c claims
				test.happens(func(id numbers.ID, wait time.Duration) {
					c.note(claim{id: id, wait: wait, channel: "a"}, time.Now())
				})
				began := time.Now()
				c.yield(t.Context(), "b")
				require.Zero(t, time.Since(began), "it is another channel's")
				c.yield(t.Context(), "a")
				require.Equal(t, test.want, time.Since(began))
				time.Sleep(2 * time.Second)
				c.yield(t.Context(), "a")
				require.Empty(t, c.stand, "it is forgotten")
			})
		})
	}
}

func TestClaimsObeyTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c claims
		c.note(claim{id: 1, wait: maxClaim, channel: "a"}, time.Now())
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		began := time.Now()
		c.yield(ctx, "a")
		require.Equal(t, time.Millisecond, time.Since(began))
	})
}

func TestClaimsAreBounded(t *testing.T) {
	var c claims
	now := time.Now()
	for i := range maxClaims + 1 {
		c.note(claim{id: 1, wait: maxClaim, channel: fmt.Sprint(i)}, now)
	}
	require.Len(t, c.stand, maxClaims)
	c.note(claim{id: 1, wait: maxClaim, channel: "later"}, now.Add(maxClaim))
	require.Len(t, c.stand, 1, "those that have ended make room")
}

func TestClaimTime(t *testing.T) {
	for answer, want := range map[time.Duration]time.Duration{
		0: minClaim, 10 * time.Millisecond: 50 * time.Millisecond, time.Second: maxClaim,
	} {
		require.Equal(t, want, claimTime(answer))
	}
}
