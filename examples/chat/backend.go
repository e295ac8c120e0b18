package main

import (
	"context"
	"log/slog"
	"strings"

	"github.com/fanoutgo/fanout"
)

// A backend is a value of -adapter.
type backend struct {
	name, about string
	where       string // the flag with its addresses; "" if it has none
	// open returns the adapter, nil for this process alone, and a function that
	// ends what the adapter uses, after the hub has been closed. If the servers
	// cannot be reached when the chat starts it returns an error: most likely
	// the address is wrong. Later the chat waits for them to come back.
	open func(context.Context, config, *slog.Logger) (fanout.Adapter, func(), error)
}

// memory is the -adapter that connects to nothing.
const memory = "memory"

var backends = []backend{
	{memory, "this one alone", "", openMemory},
	{"redis", "classic Pub/Sub", "redis", openClassic},
	{"sharded", "sharded Pub/Sub, Redis 7 or newer", "redis", openSharded},
	{"partition", "several Redis 7 that don't know each other", "redis", openPartition},
	{"nats", "NATS", "nats", openNATS},
}

func openMemory(context.Context, config, *slog.Logger) (fanout.Adapter, func(), error) {
	return nil, func() {}, nil
}

// backendNamed returns a backend, nil if there is none of that name.
func backendNamed(name string) *backend {
	for i := range backends {
		if backends[i].name == name {
			return &backends[i]
		}
	}
	return nil
}

// names has the names of all backends, for a sentence.
func names() string { return enumerate(func(*backend) bool { return true }) }

// namesAt has those whose addresses are in a flag.
func namesAt(flag string) string { return enumerate(func(b *backend) bool { return b.where == flag }) }

func enumerate(these func(*backend) bool) string {
	var list []string
	for i := range backends {
		if these(&backends[i]) {
			list = append(list, backends[i].name)
		}
	}
	return joined(list)
}

// described has all backends with what they are, for the usage.
func described() string {
	var list []string
	for _, b := range backends {
		list = append(list, b.name+" ("+b.about+")")
	}
	return joined(list)
}

func joined(list []string) string {
	last := len(list) - 1
	if last < 1 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:last], ", ") + " or " + list[last]
}
