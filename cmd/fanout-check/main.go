// Command fanout-check prints what works on a Redis server, cluster or service,
// and what to do about the rest.
//
//	go run github.com/fanoutgo/fanout/cmd/fanout-check@latest redis://user:password@10.0.0.1:6379
//	go run github.com/fanoutgo/fanout/cmd/fanout-check@latest rediss://cache.example.com:6380
//
// With rediss:// it uses TLS. Flag -classic checks for package adapter/redis
// instead of package sharded. -single treats the server as a single one though
// it says that it is a part of a cluster. It exits with status 1 if something
// that rooms or histories need does not work, and with 2 if the server cannot
// be asked.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/fanoutgo/fanout/adapter/redis"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/redis/rueidis"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is the command. It returns the exit status.
func run(args []string, out, complain io.Writer) int {
	flags := flag.NewFlagSet("fanout-check", flag.ContinueOnError)
	flags.SetOutput(complain)
	classic := flags.Bool("classic", false, "check for adapter/redis (classic Pub/Sub) instead of sharded")
	single := flags.Bool("single", false, "treat the server as a single one, though it says that it is a part of a cluster")
	timeout := flags.Duration("timeout", 20*time.Second, "how long all of it may take, connecting included")
	flags.Usage = func() {
		fmt.Fprintln(complain, "usage: fanout-check [flags] redis[s]://[user:password@]host:port")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if flags.NArg() != 1 {
		flags.Usage()
		return 2
	}
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	report, err := check(ctx, flags.Arg(0), *timeout, *classic, *single)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w (-timeout is %v)", err, *timeout)
	}
	if err != nil {
		fmt.Fprintln(complain, "fanout-check:", err)
		return 2
	}
	fmt.Fprint(out, report)
	if !report.OK() {
		return 1
	}
	return 0
}

func check(ctx context.Context, url string, timeout time.Duration, classic, single bool) (*sharded.Report, error) {
	option, err := rueidis.ParseURL(url)
	if err != nil {
		// The error may quote the password.
		return nil, errors.New("the address must be redis://user:password@host:port, or rediss:// for TLS")
	}
	option.DisableCache = true
	option.ForceSingleClient = option.ForceSingleClient || single
	if d := option.Dialer.Timeout; d == 0 || d > timeout {
		option.Dialer.Timeout = min(timeout, rueidis.DefaultDialTimeout)
	}
	address := strings.Join(option.InitAddress, ", ")
	client, err := connect(ctx, option)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	defer client.Close()
	ask := sharded.Check
	if classic {
		ask = redis.Check
	}
	report, err := ask(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	return report, nil
}

// connect is rueidis.NewClient until ctx ends. NewClient has no context, and
// has the time of Dialer for each connection that it tries; a client that comes
// later is closed.
func connect(ctx context.Context, option rueidis.ClientOption) (rueidis.Client, error) {
	type result struct {
		client rueidis.Client
		err    error
	}
	made := make(chan result)
	go func() {
		client, err := rueidis.NewClient(option)
		select {
		case made <- result{client, err}:
		case <-ctx.Done():
			if err == nil {
				client.Close()
			}
		}
	}()
	select {
	case r := <-made:
		return r.client, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
