package redispubsub

import (
	"testing"

	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

func TestMode(t *testing.T) {
	for _, test := range []struct {
		mode    mode
		sharded bool
		client  rueidis.ClientMode

		hasSlots, redirects, countsAll, onlyHomeHears, zeroNeedsPrimary, addressMatters, replicasDeliver, mayHideShards bool
	}{
		{classicServer, false, rueidis.ClientModeStandalone, false, true, true, false, false, false, false, false},
		{classicServer, false, rueidis.ClientModeSentinel, false, true, true, false, false, false, false, false},
		{classicCluster, false, rueidis.ClientModeCluster, true, false, false, false, false, true, false, false},
		{shardedServer, true, rueidis.ClientModeStandalone, false, true, true, true, false, true, false, true},
		{shardedServer, true, rueidis.ClientModeSentinel, false, true, true, true, false, true, false, true},
		{shardedCluster, true, rueidis.ClientModeCluster, true, true, true, true, true, true, true, false},
	} {
		t.Run(test.mode.String(), func(t *testing.T) {
			m := modeOf(test.sharded, test.client)
			require.Equal(t, test.mode, m)
			require.Equal(t, test.sharded, m.sharded())
			require.Equal(t, test.hasSlots, m.hasSlots(), "hasSlots")
			require.Equal(t, test.redirects, m.redirects(), "redirects")
			require.Equal(t, test.countsAll, m.countsAll(), "countsAll")
			require.Equal(t, test.onlyHomeHears, m.onlyHomeHears(), "onlyHomeHears")
			require.Equal(t, test.zeroNeedsPrimary, m.zeroNeedsPrimary(), "zeroNeedsPrimary")
			require.Equal(t, test.addressMatters, m.addressMatters(), "addressMatters")
			require.Equal(t, test.replicasDeliver, m.replicasDeliver(), "replicasDeliver")
			require.Equal(t, test.mayHideShards, m.mayHideShards(), "mayHideShards")
			require.Equal(t, test.sharded, m.requirement() != "")

			const channel = "fanout:r:{lobby}"
			if test.hasSlots {
				require.Equal(t, wire.Slot(channel), m.slot(channel))
			} else {
				require.Zero(t, m.slot(channel))
			}
			if test.countsAll {
				require.Equal(t, 3, m.receivers(3))
			} else {
				require.Equal(t, -1, m.receivers(3))
			}
		})
	}
}

func TestModeCommands(t *testing.T) {
	const a, b = "{" + slotZero + "}a", "{" + slotZero + "}b" // the zero Builder builds for slot 0
	var build rueidis.Builder
	for _, test := range []struct {
		modes                           []mode
		publish, subscribe, unsubscribe string
	}{
		{[]mode{classicServer, classicCluster}, "PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE"},
		{[]mode{shardedServer, shardedCluster}, "SPUBLISH", "SSUBSCRIBE", "SUNSUBSCRIBE"},
	} {
		for _, m := range test.modes {
			t.Run(m.String(), func(t *testing.T) {
				require.Equal(t, test.publish, m.publishName())
				publish := m.publish(build, a, []byte("hello"))
				require.Equal(t, []string{test.publish, a, "hello"}, publish.Commands())
				subscribe := m.subscribe(build, []string{a, b})
				require.Equal(t, []string{test.subscribe, a, b}, subscribe.Commands())
				unsubscribe := m.unsubscribe(build, []string{a, b})
				require.Equal(t, []string{test.unsubscribe, a, b}, unsubscribe.Commands())
			})
		}
	}
}
