package contracttest

import (
	"context"
	"errors"
	"strings"

	"github.com/fanoutgo/fanout/adapter/partition"
)

// Home returns the name of the partition that a channel of the contract, which
// has one room's name in braces, belongs to.
func Home(names []string, channel string) string {
	_, room, _ := strings.Cut(channel, "{")
	return partition.Pick(names, strings.TrimSuffix(room, "}"))
}

// Moves returns Faults.Move for hubs that have the same partitions: the
// partition that has the channel leaves the set, and with the next move it
// comes back. So histories move to a home that never had them, and to one that
// did.
func Moves(hubs []*partition.Adapter, names []string) func(ctx context.Context, channel string) error {
	left := ""
	return func(ctx context.Context, channel string) error {
		if left != "" {
			left = ""
		} else {
			left = Home(names, channel)
		}
		var set []partition.Partition
		for _, name := range names {
			set = append(set, partition.Partition{Name: name, Leaving: name == left})
		}
		return change(ctx, hubs, set)
	}
}

// change changes the partitions of all hubs to ones that all of them have.
func change(ctx context.Context, hubs []*partition.Adapter, set []partition.Partition) error {
	errs := make(chan error, len(hubs))
	for _, a := range hubs {
		go func() { errs <- a.Change(ctx, set) }()
	}
	var all []error
	for range hubs {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}
