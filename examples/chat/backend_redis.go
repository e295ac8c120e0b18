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
	"github.com/fanoutgo/fanout/adapter/partition"
	"github.com/fanoutgo/fanout/adapter/redis"
	"github.com/fanoutgo/fanout/sharded"
)

func openClassic(ctx context.Context, c config, log *slog.Logger) (fanout.Adapter, func(), error) {
	return openRedis(ctx, c, log, func(client rueidis.Client) (fanout.Adapter, error) {
		return redis.New(client, &redis.Options{Logger: log})
	})
}

func openSharded(ctx context.Context, c config, log *slog.Logger) (fanout.Adapter, func(), error) {
	return openRedis(ctx, c, log, func(client rueidis.Client) (fanout.Adapter, error) {
		return sharded.New(client, shardedOptions(c, log))
	})
}

func shardedOptions(c config, log *slog.Logger) *sharded.Options {
	return &sharded.Options{ReadFrom: c.read, Logger: log}
}

// openPartition takes each address for a Redis of its own, which has its share
// of the rooms.
func openPartition(ctx context.Context, c config, log *slog.Logger) (_ fanout.Adapter, disconnect func(), err error) {
	var parts []partition.Partition
	var ends []func()
	disconnect = func() {
		for _, end := range ends {
			end()
		}
	}
	defer func() {
		if err != nil {
			disconnect()
		}
	}()
	for _, addr := range c.servers {
		one := c
		one.servers = []string{addr}
		a, end, err := openSharded(ctx, one, log)
		if err != nil {
			return nil, nil, err
		}
		parts, ends = append(parts, partition.Partition{Name: addr, Adapter: a}), append(ends, end)
	}
	a, err := partition.New(parts, &partition.Options{Logger: log})
	if err != nil {
		return nil, nil, fmt.Errorf("adapter %s: %w", c.adapter, err)
	}
	return a, disconnect, nil
}

// openRedis connects to Redis and makes an adapter of the client, which the hub
// does not close.
func openRedis(ctx context.Context, c config, log *slog.Logger, adapter func(rueidis.Client) (fanout.Adapter, error)) (fanout.Adapter, func(), error) {
	client, err := connect(ctx, c, log)
	if err != nil {
		return nil, nil, err
	}
	a, err := adapter(client)
	if err != nil {
		client.Close()
		return nil, nil, fmt.Errorf("adapter %s: %w", c.adapter, err)
	}
	return a, client.Close, nil
}

// connect connects to Redis, and asks which version it is.
func connect(ctx context.Context, c config, log *slog.Logger) (rueidis.Client, error) {
	where := strings.Join(c.servers, ",")
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress:  c.servers,
		Username:     c.user,
		Password:     c.secret,
		TLSConfig:    c.tls,
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
	if major, err := strconv.Atoi(strings.Split(version, ".")[0]); err == nil && major < 7 && c.adapter != "redis" {
		client.Close()
		return nil, fmt.Errorf("-adapter %s needs Redis 7 or newer, but %s is %s %s: choose -adapter redis", c.adapter, where, name, version)
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
