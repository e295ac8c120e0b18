package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/migrate"
	"github.com/fanoutgo/fanout/sharded"
)

// A target is the backend to which the chat goes while people talk.
type target struct {
	migration string // its name, the same for all processes
	adapter   string
	servers   []string
	read      sharded.ReadFrom
}

// addMigration adds the flags of a migration.
func (t *texts) addMigration(fs *flag.FlagSet) {
	fs.StringVar(&t.to, "migrate-to", "", "`adapter` to which the chat goes while people talk: "+joined(goals())+"; see docs/migrating.md")
	fs.StringVar(&t.toServers, "migrate-servers", "", "where the servers of -migrate-to are: `host:port[,host:port…]`")
	fs.StringVar(&t.toRead, "migrate-read-from", "", "what -read-from says, for -migrate-to sharded: `nodes` of the new cluster")
	fs.StringVar(&t.migration, "migration", "", "`name` of the migration, such as to-nats-2026: the same for all processes, and one that was never used before")
}

// goals are the adapters that a chat can go to.
func goals() (list []string) {
	for _, b := range backends {
		if b.name != memory {
			list = append(list, b.name)
		}
	}
	return list
}

// setTarget finds out where the chat goes.
func (c *config) setTarget(t texts) error {
	b := backendNamed(t.to)
	switch {
	case t.to == "" && (t.toServers != "" || t.toRead != "" || t.migration != ""):
		return errors.New("-migrate-servers, -migrate-read-from and -migration have no effect without -migrate-to")
	case t.to == "":
		return nil
	case b == nil || b.name == memory:
		return fmt.Errorf("-migrate-to %q is unknown: choose %s", t.to, joined(goals()))
	case c.adapter == memory:
		return fmt.Errorf("-migrate-to has no effect with -adapter %s: choose %s", memory, joined(goals()))
	}
	servers, err := listed("migrate-servers", t.toServers)
	if err != nil {
		return err
	}
	read, err := readFrom("migrate-read-from", t.toRead, "migrate-to", t.to)
	switch {
	case err != nil:
		return err
	case len(servers) == 0:
		return fmt.Errorf("-migrate-to %s needs -migrate-servers host:port", t.to)
	case t.migration == "":
		return fmt.Errorf("-migrate-to %s needs -migration name, the same for all processes, and one that was never used before", t.to)
	case len(t.migration) > 100 || strings.ContainsAny(t.migration, "%{}"):
		return fmt.Errorf("-migration %q is longer than 100 bytes, or has one of %%{}", t.migration)
	}
	if addr := c.shares(b, servers); addr != "" {
		return fmt.Errorf("-migrate-servers: %s is in -%s too, and %s and %s would both use it: name other servers", addr, b.where, c.adapter, t.to)
	}
	c.target = &target{t.migration, t.to, servers, read}
	return nil
}

// shares returns a server that both backends of a migration would use in the
// same way; "" if there is none. From classic to sharded Pub/Sub a chat may go
// on the same servers.
func (c *config) shares(to *backend, servers []string) string {
	from := backendNamed(c.adapter)
	if from.where != to.where || (from.name == "redis") != (to.name == "redis") {
		return ""
	}
	for _, addr := range servers {
		if slices.Contains(c.servers, addr) {
			return addr
		}
	}
	return ""
}

// there returns the configuration of the backend to which the chat goes.
func (c config) there() config {
	c.adapter, c.servers, c.read = c.target.adapter, c.target.servers, c.target.read
	return c
}

// openBackend returns the adapter of the chat: that of one backend, or of two
// of which one counts. The second result ends what the adapter uses.
func openBackend(ctx context.Context, c config, log *slog.Logger) (fanout.Adapter, func(), error) {
	from, endFrom, err := backendNamed(c.adapter).open(ctx, c, log)
	if err != nil || c.target == nil {
		return from, endFrom, err
	}
	there := c.there()
	to, endTo, err := backendNamed(there.adapter).open(ctx, there, log)
	if err != nil {
		return nil, nil, errors.Join(err, abandon(ctx, from, endFrom))
	}
	a, err := migrate.New(c.target.migration, from, to, &migrate.Options{Logger: log})
	if err != nil {
		return nil, nil, errors.Join(err, abandon(ctx, from, endFrom), abandon(ctx, to, endTo))
	}
	return a, func() { endFrom(); endTo() }, nil
}

// abandon closes an adapter that no hub has.
func abandon(ctx context.Context, a fanout.Adapter, end func()) error {
	defer end()
	return a.Close(ctx)
}
