package redispubsub

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// reading returns an engine that has no connections and knows of replicas.
func reading(id string, from ReadFrom, replicas map[string][]string) *Engine {
	e := &Engine{id: id, mode: shardedCluster, cfg: Config{ReadFrom: from}}
	e.readers.init(e)
	tab := soleOwner("p:1")
	tab.replicas = replicas
	e.topology.current.Store(tab)
	return e
}

func TestReaders(t *testing.T) {
	room, other := &sub{spread: true}, &sub{}
	three := map[string][]string{"p:1": {"a:1", "b:1", "c:1"}}
	count := func(from ReadFrom, replicas map[string][]string) (homes map[string]int) {
		homes = make(map[string]int)
		for i := range 3000 {
			key := reading(fmt.Sprintf("%016x", i), from, replicas).readers.home(room, "p:1")
			require.Equal(t, "p:1", key.owner())
			homes[key.addr]++
		}
		return homes
	}
	t.Run("spreads engines evenly", func(t *testing.T) {
		for from, nodes := range map[ReadFrom]int{ReadReplicas: 3, ReadAllNodes: 4} {
			homes := count(from, three)
			require.Len(t, homes, nodes)
			for addr, n := range homes {
				require.InDelta(t, 3000/nodes, n, 150, addr)
			}
		}
	})
	t.Run("moves few engines when a replica goes", func(t *testing.T) {
		for i := range 300 {
			id := fmt.Sprintf("%016x", i)
			before := reading(id, ReadReplicas, three).readers.home(room, "p:1")
			after := reading(id, ReadReplicas, map[string][]string{"p:1": {"c:1", "a:1"}}).readers.home(room, "p:1")
			if before.addr != "b:1" {
				require.Equal(t, before, after)
			}
		}
	})
	t.Run("leaves other channels, and shards without replicas, at the primary", func(t *testing.T) {
		e := reading("x", ReadReplicas, three)
		require.Equal(t, linkKey{addr: "p:1"}, e.readers.home(other, "p:1"))
		require.Equal(t, linkKey{addr: "q:1"}, e.readers.home(room, "q:1"))
		require.Equal(t, linkKey{}, e.readers.home(room, ""))
	})
	t.Run("avoids a replica until it works", func(t *testing.T) {
		e := reading("x", ReadReplicas, map[string][]string{"p:1": {"a:1", "b:1"}})
		r := &e.readers
		first := r.home(room, "p:1")
		r.avoid(first)
		second := r.home(room, "p:1")
		require.NotEqual(t, first, second)
		require.Equal(t, "p:1", second.primary)
		r.avoid(second)
		require.Equal(t, linkKey{addr: "p:1"}, r.home(room, "p:1"))
		require.Empty(t, r.due("p:1"))

		r.avoided[second].until = time.Now().Add(-time.Second)
		require.Equal(t, []linkKey{second}, r.due("p:1"))
		require.Equal(t, linkKey{addr: "p:1"}, r.home(room, "p:1"), "it has not shown that it works")
		r.works(second)
		require.Equal(t, second, r.home(room, "p:1"))
		require.Empty(t, r.due("p:1"))

		was := r.avoided[second].pause.Bound()
		r.avoid(second)
		require.Greater(t, r.avoided[second].pause.Bound(), was, "it is avoided for longer")
		r.forget(soleOwner("p:1"))
		require.Empty(t, r.avoided)
	})
	t.Run("knows the replicas of a new primary from the latest answer", func(t *testing.T) {
		e := reading("x", ReadReplicas, three)
		latest := soleOwner("n:1")
		latest.addReplica("n:1", "a:1")
		e.topology.latest.Store(latest)
		require.Equal(t, linkKey{"a:1", "n:1"}, e.readers.home(room, "n:1"))
	})
}

func TestRepliesOfReplicas(t *testing.T) {
	t.Run("ROLE has the primary of a replica", func(t *testing.T) {
		for reply, want := range map[string]string{
			`["slave", "10.0.0.1", 6379, "connected", 28]`: "10.0.0.1:6379",
			`["slave", "::1", "6379", "connect", 28]`:      "[::1]:6379",
			`["master", 28, []]`:                           "",
			`["slave"]`:                                    "",
			`"slave"`:                                      "",
			`null`:                                         "",
		} {
			require.Equal(t, want, parsePrimary(fromJSON(reply)), reply)
		}
	})
	t.Run("CLUSTER LINKS has the connection from the primary", func(t *testing.T) {
		for reply, want := range map[string]int64{
			`[{"direction": "to", "node": "id", "create-time": 5}, {"direction": "from", "node": "id", "create-time": 7},
			  {"direction": "from", "node": "other", "create-time": 9}]`: 7,
			`[{"direction": "from", "node": "other", "create-time": 9}]`: 0,
			`[{"direction": "from", "node": "id"}]`:                      0,
			`[7, null]`:                                                  0,
			`[]`:                                                         0,
			`null`:                                                       0,
		} {
			require.Equal(t, want, parseLinks(fromJSON(reply), "id"), reply)
		}
	})
	t.Run("CLUSTER SLOTS has IDs and replicas", func(t *testing.T) {
		tab, err := parseSlots("10.0.0.9:6379", fromJSON(`[
			[0, 5, ["10.0.0.1", 6379, "id1"], ["10.0.0.4", 6379, "id4"], ["", 7000, "id5"], ["?", 1, "id6"], "none"],
			[7, 8, ["10.0.0.1", 6379, "id1"], ["10.0.0.4", 6379, "id4"]],
			[9, 9, ["10.0.0.2", 6379]]]`))
		require.NoError(t, err)
		require.Equal(t, map[string]string{"10.0.0.1:6379": "id1", "10.0.0.2:6379": ""}, tab.ids)
		require.Equal(t, map[string][]string{"10.0.0.1:6379": {"10.0.0.4:6379", "10.0.0.9:7000"}}, tab.replicas)

		var p poll
		other := soleOwner("10.0.0.1:6379")
		other.addReplica("10.0.0.1:6379", "10.0.0.7:6379")
		p.add(tab)
		p.add(other)
		none := func(string) bool { return false }
		require.ElementsMatch(t, []string{"10.0.0.4:6379", "10.0.0.9:7000", "10.0.0.7:6379"}, p.result(nil, none, none).replicas["10.0.0.1:6379"])
	})
}
