package redispubsub

import (
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/redis/rueidis"
)

// A mode says which Pub/Sub the engine uses, and whether with one server or a
// cluster. All differences between the four combinations are methods here,
// named for what they decide.
type mode uint8

const (
	// classicServer is SUBSCRIBE and PUBLISH on one server, or one primary with
	// replicas.
	classicServer mode = iota
	// classicCluster is SUBSCRIBE and PUBLISH in a cluster. Each node passes
	// messages on to all others, and none redirects.
	classicCluster
	// shardedServer is SSUBSCRIBE and SPUBLISH on one server.
	shardedServer
	// shardedCluster is SSUBSCRIBE and SPUBLISH in a cluster. A channel lives
	// at the owner of its slot, and nodes redirect to it.
	shardedCluster
)

// modeOf returns the mode of a configuration and a client.
func modeOf(sharded bool, client rueidis.ClientMode) mode {
	cluster := client == rueidis.ClientModeCluster
	switch {
	case sharded && cluster:
		return shardedCluster
	case sharded:
		return shardedServer
	case cluster:
		return classicCluster
	}
	return classicServer
}

func (m mode) String() string {
	return [...]string{"classic, one server", "classic, cluster", "sharded, one server", "sharded, cluster"}[m]
}

func (m mode) sharded() bool { return m == shardedServer || m == shardedCluster }

// hasSlots reports whether different nodes own different slots. Otherwise there
// is one primary, and it owns everything.
func (m mode) hasSlots() bool { return m == classicCluster || m == shardedCluster }

// slot returns a channel's hash slot. Without a cluster there is only slot 0.
func (m mode) slot(channel string) uint16 {
	if !m.hasSlots() {
		return 0
	}
	return wire.Slot(channel)
}

// redirects reports whether a server redirects clients that publish or
// subscribe to a channel for which it is not responsible. Otherwise the nodes
// are asked periodically which slots they own, and our own table decides where
// a message is published.
func (m mode) redirects() bool { return m != classicCluster }

// countsAll reports whether the reply to a publish counts all subscribers.
// Otherwise it counts those at one node.
func (m mode) countsAll() bool { return m != classicCluster }

// receivers returns the result of Publish when a node has counted n
// subscribers: -1 if the node does not know of all.
func (m mode) receivers(n int) int {
	if !m.countsAll() {
		return -1
	}
	return n
}

// onlyHomeHears reports whether a message reaches only the subscribers at the
// node where it was published. If a frame went to another node than the one
// where we are subscribed, our table is out of date.
func (m mode) onlyHomeHears() bool { return m.sharded() }

// zeroNeedsPrimary reports whether a count of zero is reliable only from a
// primary: a replica in a cluster accepts messages for the slots of its
// primary, and does not count the primary's subscribers.
func (m mode) zeroNeedsPrimary() bool { return m == shardedCluster }

// addressMatters reports whether a publish through one address may count other
// subscribers than a publish through another.
func (m mode) addressMatters() bool { return m != classicServer }

// replicasDeliver reports whether a channel may be subscribed at replicas of
// its slot's primary, which get its messages over cluster links.
func (m mode) replicasDeliver() bool { return m == shardedCluster }

// mayHideShards reports whether what looks like one server may be a proxy
// before many shards, which takes one slot at a time.
func (m mode) mayHideShards() bool { return m == shardedServer }

// requirement says which servers support the mode; "" if all do.
func (m mode) requirement() string {
	if m.sharded() {
		return "sharded Pub/Sub needs Redis 7.0 or later, or Valkey"
	}
	return ""
}

// publishName is the name of the command that publishes.
func (m mode) publishName() string {
	if m.sharded() {
		return "SPUBLISH"
	}
	return "PUBLISH"
}

// publish returns the command that publishes a frame.
func (m mode) publish(b rueidis.Builder, channel string, frame []byte) rueidis.Completed {
	if m.sharded() {
		return b.Spublish().Channel(channel).Message(rueidis.BinaryString(frame)).Build()
	}
	return b.Publish().Channel(channel).Message(rueidis.BinaryString(frame)).Build()
}

// subscribe returns the command that subscribes to channels of one slot.
func (m mode) subscribe(b rueidis.Builder, channels []string) rueidis.Completed {
	if m.sharded() {
		return b.Ssubscribe().Channel(channels...).Build()
	}
	return b.Subscribe().Channel(channels...).Build()
}

// unsubscribe returns the command that ends subscriptions to channels of one
// slot.
func (m mode) unsubscribe(b rueidis.Builder, channels []string) rueidis.Completed {
	if m.sharded() {
		return b.Sunsubscribe().Channel(channels...).Build()
	}
	return b.Unsubscribe().Channel(channels...).Build()
}
