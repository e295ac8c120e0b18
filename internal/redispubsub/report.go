package redispubsub

import (
	"fmt"
	"slices"
	"strings"
)

// A Report says what works on the servers that a client reaches.
type Report struct {
	// PubSub is "sharded Pub/Sub" or "classic Pub/Sub".
	PubSub string
	// Shape is "one server", "cluster", or "one endpoint before many shards".
	Shape string
	// Nodes are the primaries that own slots, by address.
	Nodes []NodeReport
	// Unreachable says why nodes could not be asked.
	Unreachable []string
}

// A NodeReport says what works on one node.
type NodeReport struct {
	Addr     string
	Version  string // such as "Redis 7.0.15"; "" if it does not tell
	Commands []CommandReport
	// Eviction is the memory policy; "" if it does not tell.
	Eviction string
	// OutputLimit is how many bytes may wait for a subscriber; 0 is no limit,
	// -1 if the node does not tell.
	OutputLimit int64
	// Counts is the number of subscribers that a publish to one subscriber was
	// said to reach; -1 if it failed.
	Counts int
	// Heard reports whether that message arrived.
	Heard bool
	// ManyShards reports whether the node is a proxy before many shards.
	ManyShards bool
	// Histories says how histories are kept; "none" if they cannot be kept.
	Histories string
	// Doubtful reports whether each new connection counts as a possible loss in
	// histories.
	Doubtful bool
	// Advice is what to do, a sentence each.
	Advice []string
}

// A Use is what a command is needed for.
type Use string

// The uses of commands.
const (
	ForRooms     Use = "rooms"
	ForHistories Use = "histories"
	// ForLeaving is to end a subscription when the last member has left.
	ForLeaving Use = "leaving rooms"
	// ForSafety is to notice that a server was replaced or became a replica.
	ForSafety Use = "safety"
	// Alternative is a command that another one can replace.
	Alternative Use = "histories, or EVALSHA"
	Optional    Use = "optional"
	// ForReplicas is to read rooms from replicas; see ReadFrom.
	ForReplicas Use = "reading from replicas"
)

// A CommandReport says whether a command works.
type CommandReport struct {
	Name string
	Use  Use
	Err  error // nil: it works
}

func (n *NodeReport) add(name string, use Use, err error) {
	n.Commands = append(n.Commands, CommandReport{name, use, err})
}

// refused returns the commands of a use that do not work.
func (n *NodeReport) refused(use Use) (names []string) {
	for _, c := range n.Commands {
		if c.Use == use && c.Err != nil {
			names = append(names, c.Name)
		}
	}
	return names
}

// advise fills in Advice.
func (n *NodeReport) advise(m mode) {
	say := func(format string, args ...any) { n.Advice = append(n.Advice, fmt.Sprintf(format, args...)) }
	if names := n.refused(ForRooms); len(names) > 0 {
		text := "Rooms do not work without %s: grant the rights"
		if m.sharded() {
			text += ", or use Redis 7.0 or later, or Valkey; adapter/redis needs no sharded Pub/Sub"
		}
		say(text+".", strings.Join(names, ", "))
	} else if !n.Heard {
		say("A message did not arrive within a second: the server accepts subscriptions and does not serve them. Do not use it.")
	} else if n.Counts != 1 && m.countsAll() {
		say("The server counted %d receivers where there was one: numbers of receivers cannot be trusted, and broken subscriptions are noticed late.", n.Counts)
	}
	if names := n.refused(ForLeaving); len(names) > 0 {
		say("Without %s, rooms that were left stay subscribed, and their messages continue to arrive: grant the right.", strings.Join(names, ", "))
	}
	switch safety := n.refused(ForSafety); {
	case slices.Contains(safety, "INFO") && slices.Contains(safety, "ROLE"):
		say("Without ROLE and INFO, a server that became a replica, or was replaced behind its address, is noticed only when connections break: grant the rights.")
	case slices.Contains(safety, "INFO"):
		say("Without INFO, a server that was replaced by another primary behind its address is noticed only when connections break: grant the right.")
	} // without ROLE, INFO tells the role; without CLUSTER MYID, the run_id does
	switch names := n.refused(ForHistories); {
	case n.Histories == "none":
		say("Histories (RoomOptions.Retain) cannot be kept: they need FCALL and FUNCTION LOAD, or EVALSHA and SCRIPT LOAD.")
	case len(names) > 0:
		say("Histories (RoomOptions.Retain) do not work without %s: grant the rights, or use Redis 7.0 or later, or Valkey.", strings.Join(names, ", "))
	case n.Doubtful:
		say("The server does not say which one it is: each new connection counts as a possible loss in histories. Grant INFO if you can.")
	}
	if strings.HasPrefix(n.Eviction, "allkeys") || strings.HasPrefix(n.Eviction, "volatile") {
		say("Under %s a full server evicts histories. Give it enough memory, or set maxmemory-policy to noeviction.", n.Eviction)
	}
	if n.OutputLimit > 0 && n.OutputLimit < defaultOutput {
		say("A subscriber for which more than %d bytes wait is disconnected: raise client-output-buffer-limit for pubsub to 32 MiB or more.", n.OutputLimit)
	}
	if n.ManyShards {
		say("The endpoint hides many shards, so rooms are subscribed slot by slot. Choose a cluster policy that shows the shards (the OSS Cluster API).")
	}
}

// OK reports whether rooms work on all nodes, and histories too.
func (r *Report) OK() bool {
	for i := range r.Nodes {
		n := &r.Nodes[i]
		if len(n.refused(ForRooms)) > 0 || len(n.refused(ForHistories)) > 0 || n.Histories == "none" || !n.Heard {
			return false
		}
	}
	return len(r.Unreachable) == 0
}

// String returns the report as lines of text.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s\n", r.PubSub, r.Shape)
	for i := range r.Nodes {
		r.Nodes[i].write(&b)
	}
	for _, u := range r.Unreachable {
		fmt.Fprintf(&b, "\nnot reached: %s\n", u)
	}
	return b.String()
}

func (n *NodeReport) write(b *strings.Builder) {
	fmt.Fprintf(b, "\n%s: %s\n", n.Addr, orElse(n.Version, "version not told"))
	for _, use := range []Use{ForRooms, ForLeaving, ForHistories, Alternative, ForSafety, ForReplicas, Optional} {
		var works []string
		for _, c := range n.Commands {
			if c.Use == use && c.Err == nil {
				works = append(works, c.Name)
			}
		}
		if len(works) > 0 {
			fmt.Fprintf(b, "  works (%s): %s\n", use, strings.Join(works, ", "))
		}
		for _, c := range n.Commands {
			if c.Use == use && c.Err != nil {
				fmt.Fprintf(b, "  refused (%s): %s: %v\n", use, c.Name, c.Err)
			}
		}
	}
	fmt.Fprintf(b, "  histories: %s\n", n.Histories)
	fmt.Fprintf(b, "  eviction policy: %s\n", orElse(n.Eviction, "not told"))
	switch n.OutputLimit {
	case -1:
		fmt.Fprintf(b, "  output limit of subscribers: not told\n")
	case 0:
		fmt.Fprintf(b, "  output limit of subscribers: none\n")
	default:
		fmt.Fprintf(b, "  output limit of subscribers: %d bytes\n", n.OutputLimit)
	}
	trusted := "no"
	if n.Heard && n.Counts == 1 {
		trusted = "yes"
	}
	fmt.Fprintf(b, "  counts of receivers can be trusted: %s\n", trusted)
	for _, a := range n.Advice {
		fmt.Fprintf(b, "  → %s\n", a)
	}
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
