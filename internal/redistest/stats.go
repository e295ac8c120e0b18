package redistest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// BusSent is the number of messages that the nodes have sent each other over
// the cluster's bus since they started, for PUBLISH and for SPUBLISH.
type BusSent struct{ Publish, PublishShard int64 }

// Sub returns what has been sent since before.
func (b BusSent) Sub(before BusSent) BusSent {
	return BusSent{b.Publish - before.Publish, b.PublishShard - before.PublishShard}
}

// BusSent returns the sum over the nodes that can be reached.
func (c *Cluster) BusSent(ctx context.Context) (BusSent, error) {
	var sum BusSent
	for _, n := range c.nodes {
		if !n.reachable() {
			continue
		}
		info, err := n.Do(ctx, "CLUSTER", "INFO").ToString()
		if err != nil {
			return BusSent{}, fmt.Errorf("ask node %s what it has sent: %w", n.Addr(), err)
		}
		sum.Publish += number(info, "cluster_stats_messages_publish_sent")
		sum.PublishShard += number(info, "cluster_stats_messages_publishshard_sent")
	}
	return sum, nil
}

// number reads a field that is missing as long as it is zero.
func number(info, name string) int64 {
	n, _ := strconv.ParseInt(field(info, name), 10, 64)
	return n
}

// CPU is the processor time that the server has used since it started.
func (n *Node) CPU(ctx context.Context) (time.Duration, error) {
	info, err := n.Do(ctx, "INFO", "cpu").ToString()
	if err != nil {
		return 0, err
	}
	user, err := strconv.ParseFloat(field(info, "used_cpu_user"), 64)
	if err != nil {
		return 0, err
	}
	sys, err := strconv.ParseFloat(field(info, "used_cpu_sys"), 64)
	return time.Duration((user + sys) * float64(time.Second)), err
}

// CommandStat says how often a server has executed a command.
type CommandStat struct {
	Calls int64
	Time  time.Duration // of all calls
}

// CommandStats returns the statistics of all commands since the server started,
// by the command's name in lower case, such as "spublish" or "cluster|nodes".
func (n *Node) CommandStats(ctx context.Context) (map[string]CommandStat, error) {
	info, err := n.Do(ctx, "INFO", "commandstats").ToString()
	if err != nil {
		return nil, err
	}
	stats := make(map[string]CommandStat)
	for line := range strings.Lines(info) {
		name, values, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":")
		if !ok {
			continue
		}
		var s CommandStat
		for pair := range strings.SplitSeq(values, ",") {
			key, value, _ := strings.Cut(pair, "=")
			v, _ := strconv.ParseInt(value, 10, 64)
			switch key {
			case "calls":
				s.Calls = v
			case "usec":
				s.Time = time.Duration(v) * time.Microsecond
			}
		}
		stats[name] = s
	}
	return stats, nil
}
