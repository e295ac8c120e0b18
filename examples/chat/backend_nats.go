package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/fanoutgo/fanout"
	fanoutnats "github.com/fanoutgo/fanout/adapter/nats"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func openNATS(ctx context.Context, c config, log *slog.Logger) (fanout.Adapter, func(), error) {
	var servers []string
	for _, addr := range c.servers {
		servers = append(servers, "nats://"+addr)
	}
	where, options := strings.Join(servers, ","), natsOptions(c)
	if err := checkNATS(ctx, where, c, options, log); err != nil {
		return nil, nil, err
	}
	a, err := fanoutnats.New(where, &fanoutnats.Options{Connect: options, Logger: log})
	if err != nil {
		return nil, nil, fmt.Errorf("adapter %s: %w", c.adapter, err)
	}
	return a, func() {}, nil // the adapter closes its connection
}

func natsOptions(c config) []nats.Option {
	options := []nats.Option{nats.Name("fanout-chat")}
	switch {
	case c.user != "":
		options = append(options, nats.UserInfo(c.user, c.secret))
	case c.secret != "":
		options = append(options, nats.Token(c.secret))
	}
	if c.tls != nil {
		options = append(options, nats.Secure(c.tls))
	}
	return options
}

// checkNATS connects once, since the adapter would keep trying, and looks
// whether the servers can keep a history if there is to be one.
func checkNATS(ctx context.Context, where string, c config, options []nats.Option, log *slog.Logger) error {
	nc, err := nats.Connect(where, append([]nats.Option{nats.Timeout(5 * time.Second), nats.NoReconnect()}, options...)...)
	if err != nil {
		return fmt.Errorf("no NATS at %s: %w", where, err)
	}
	defer nc.Close()
	log.Info("connected", "server", "nats", "version", nc.ConnectedServerVersion(), "cluster", nc.ConnectedClusterName(), "nats", where)
	if !c.history {
		return nil
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := js.AccountInfo(ctx); err != nil {
		return fmt.Errorf("-history needs JetStream of NATS at %s: %w", where, err)
	}
	return nil
}
