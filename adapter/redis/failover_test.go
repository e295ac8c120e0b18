package redis_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// After a failover while the old primary lives no hub stays there, though it
// still hears everything that is published: messages that reach the node
// itself would be in another order there.
func TestNoHubStaysAtADemotedNode(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"FORCE", "TAKEOVER"} {
		t.Run(how, func(t *testing.T) {
			c := redistest.NewCluster(t, redistest.Options{Primaries: 3, Replicas: 1})
			const room, channel = "room", "fanout:r:{room}"
			old := c.Owner(redistest.Slot(channel))
			replica := c.ReplicasOf(old)[0]
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var hubs []*fanout.Hub
			for range 3 {
				a, err := newAdapter(c.Client(t))
				require.NoError(t, err)
				h, err := fanout.New(a, nil)
				require.NoError(t, err)
				defer func() { assert.NoError(t, h.Close(context.Background())) }()
				m, err := h.Connect(nil)
				require.NoError(t, err)
				require.NoError(t, h.Room(room).Join(ctx, m))
				hubs = append(hubs, h)
			}
			busy, rest := context.WithCancel(ctx)
			var publishers sync.WaitGroup
			for i, h := range hubs { // a link that hears something is not probed
				publishers.Go(func() {
					for n := 0; busy.Err() == nil; n++ {
						h.Room(room).Publish(busy, fmt.Append(nil, i, n))
						time.Sleep(2 * time.Millisecond)
					}
				})
			}
			defer publishers.Wait()
			defer rest()
			require.NoError(t, replica.Do(ctx, "CLUSTER", "FAILOVER", how).Error())
			require.Eventually(t, func() bool {
				is, err := replica.Do(ctx, "ROLE").ToArray()
				if err != nil || len(is) == 0 {
					return false
				}
				role, _ := is[0].ToString()
				return role == "master"
			}, 10*time.Second, time.Millisecond)
			require.Eventually(t, func() bool {
				channels, err := old.Do(ctx, "PUBSUB", "CHANNELS").AsStrSlice()
				return err == nil && !slices.Contains(channels, channel)
			}, 5*time.Second, 5*time.Millisecond, "nobody is subscribed at the demoted node")
			require.Eventually(t, func() bool {
				counts, err := replica.Do(ctx, "PUBSUB", "NUMSUB", channel).AsIntMap()
				return err == nil && counts[channel] == 3
			}, 5*time.Second, 5*time.Millisecond, "all hubs are at the new primary")
		})
	}
}
