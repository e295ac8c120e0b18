package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/migrate"
)

// A target is the backend to which the chat goes while people talk.
type target struct {
	migration string // its name, the same for all processes
	adapter   string
	servers   []string
}

// addMigration adds the flags of a migration.
func (t *texts) addMigration(fs *flag.FlagSet) {
	fs.StringVar(&t.to, "migrate-to", "", "`adapter` to which the chat goes while people talk: "+joined(goals())+"; see docs/migrating.md")
	fs.StringVar(&t.toServers, "migrate-servers", "", "where the servers of -migrate-to are: `host:port[,host:port…]`")
	fs.StringVar(&t.migration, "migration", "", "`name` of the migration, the same for all processes and another one for each migration (default: as in redis-to-sharded)")
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
	case t.to == "" && (t.toServers != "" || t.migration != ""):
		return errors.New("-migrate-servers and -migration have no effect without -migrate-to")
	case t.to == "":
		return nil
	case b == nil || b.name == memory:
		return fmt.Errorf("-migrate-to %q is unknown: choose %s", t.to, joined(goals()))
	case c.adapter == memory:
		return fmt.Errorf("-migrate-to has no effect with -adapter %s: choose %s", memory, joined(goals()))
	}
	servers, err := listed("migrate-servers", t.toServers)
	switch {
	case err != nil:
		return err
	case len(servers) == 0:
		return fmt.Errorf("-migrate-to %s needs -migrate-servers host:port", t.to)
	}
	name := t.migration
	if name == "" {
		name = c.adapter + "-to-" + t.to
	}
	c.target = &target{name, t.to, servers}
	return nil
}

// openBackend returns the adapter of the chat: that of one backend, or of two of
// which one counts. The second result ends what the adapter uses.
func openBackend(ctx context.Context, c config, log *slog.Logger) (fanout.Adapter, func(), error) {
	from, endFrom, err := backendNamed(c.adapter).open(ctx, c, log)
	if err != nil || c.target == nil {
		return from, endFrom, err
	}
	there := c
	there.adapter, there.servers = c.target.adapter, c.target.servers
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
