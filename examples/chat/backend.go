package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/redis"
	"github.com/fanoutgo/fanout/sharded"
)

// The values of -adapter.
const (
	memory   = "memory"
	classic  = "redis"
	sharding = "sharded"
)

// openBackend returns the adapter that the flags ask for, nil for memory, and a
// function that closes the client that the adapter uses. The hub does not close
// it, since it is ours.
func openBackend(ctx context.Context, c config, log *slog.Logger) (a fanout.Adapter, disconnect func(), err error) {
	if c.adapter == memory {
		return nil, func() {}, nil
	}
	client, err := connect(ctx, c, log)
	if err != nil {
		return nil, nil, err
	}
	// An interface that holds a nil *Adapter would not be nil, hence the two
	// steps.
	switch c.adapter {
	case classic:
		var r *redis.Adapter
		if r, err = redis.New(client, &redis.Options{Logger: log}); err == nil {
			a = r
		}
	case sharding:
		var s *sharded.Adapter
		if s, err = sharded.New(client, &sharded.Options{Logger: log}); err == nil {
			a = s
		}
	}
	if err != nil {
		client.Close()
		return nil, nil, fmt.Errorf("adapter %s: %w", c.adapter, err)
	}
	return a, client.Close, nil
}

// connect connects to Redis. If it cannot reach Redis when the chat starts it
// returns an error: most likely the address is wrong. Later the chat waits for
// Redis to come back.
func connect(ctx context.Context, c config, log *slog.Logger) (rueidis.Client, error) {
	where := strings.Join(c.redis, ",")
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress:  c.redis,
		ClientName:   "fanout-chat",
		DisableCache: true, // publishing and subscribing need no cache
	})
	if err != nil {
		return nil, fmt.Errorf("no Redis at %s: %w", where, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	info, err := client.Do(ctx, client.B().Info().Section("server").Build()).ToString()
	if rerr := (*rueidis.RedisError)(nil); errors.As(err, &rerr) {
		// An ACL may forbid INFO to a user that may publish and subscribe.
		log.Warn("connected to Redis, which does not tell its version", "redis", where, "error", err)
		return client, nil
	}
	if err != nil {
		client.Close()
		return nil, fmt.Errorf("no answer from Redis at %s: %w", where, err)
	}
	name, version := serverOf(info)
	if major, err := strconv.Atoi(strings.Split(version, ".")[0]); err == nil && major < 7 && c.adapter == sharding {
		client.Close()
		return nil, fmt.Errorf("-adapter sharded needs Redis 7 or newer, but %s is %s %s: choose -adapter redis", where, name, version)
	}
	log.Info("connected", "server", name, "version", version, "mode", string(client.Mode()), "nodes", len(client.Nodes()), "redis", where)
	return client, nil
}

// serverOf finds the server's name and version in its INFO. For compatibility
// Valkey calls itself redis 7.2, and has its own version in another field.
func serverOf(info string) (name, version string) {
	fields := make(map[string]string)
	for line := range strings.Lines(info) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[k] = v
		}
	}
	if v := fields["valkey_version"]; v != "" {
		return "valkey", v
	}
	return "redis", fields["redis_version"]
}
