package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/sharded"
)

// passwordVariable is where the password may be, so that no list of processes
// shows it.
const passwordVariable = "CHAT_PASSWORD"

// config is what the flags say.
type config struct {
	addr    string
	adapter string
	servers []string // of the adapter
	read    sharded.ReadFrom
	user    string
	secret  string      // the password
	tls     *tls.Config // nil: without TLS
	target  *target     // nil: the chat stays where it is
	history bool
	gather  time.Duration
	pages   int
}

// room returns the options of rooms, which are the same for all: pages are told
// who is there, and with -history what was said before. Not all backends
// support histories.
func (c config) room() func(name string) fanout.RoomOptions {
	o := fanout.RoomOptions{Presence: true}
	if c.history {
		o.Retain = fanout.Retention{Messages: 200, Age: 24 * time.Hour}
	}
	return func(string) fanout.RoomOptions { return o }
}

// texts are flags that are looked at together, when all are known.
type texts struct {
	servers              map[string]*string // by the flag's name
	read                 string
	to, toServers        string // of a migration
	toRead               string
	migration            string
	tls                  bool
	authority, cert, key string // files
}

// parseFlags reads the command line. It does not print its error, so that the
// caller can print one sentence instead of the whole usage.
func parseFlags(args []string, stderr io.Writer) (config, error) {
	c, t := config{}, texts{servers: make(map[string]*string)}
	fs := flag.NewFlagSet("chat", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&c.addr, "addr", ":8080", "`address` to listen on")
	fs.StringVar(&c.adapter, "adapter", memory, "what joins the processes: "+described())
	t.servers["redis"] = fs.String("redis", "", "where Redis is, for redis, sharded and partition: `host:port[,host:port…]`, some nodes of a cluster or one server, or for partition all of them")
	t.servers["nats"] = fs.String("nats", "", "where NATS is, for nats: `host:port[,host:port…]`, some servers of a cluster or one")
	fs.StringVar(&t.read, "read-from", "", "for sharded, at which `nodes` of a cluster rooms are read: primaries, primaries-uncounted, replicas or all")
	t.addMigration(fs)
	fs.StringVar(&c.user, "user", "", "`name` to log in to the backend with")
	fs.StringVar(&c.secret, "password", "", "`password` to log in to the backend with; lists of processes show it, so better set "+passwordVariable)
	fs.BoolVar(&t.tls, "tls", false, "connect to the backend by TLS")
	fs.StringVar(&t.authority, "tls-ca", "", "`file` with the certificates (PEM) that the backend's must be signed by, instead of the system's")
	fs.StringVar(&t.cert, "tls-cert", "", "`file` with the certificate (PEM) that the chat shows to the backend")
	fs.StringVar(&t.key, "tls-key", "", "`file` with the key (PEM) of -tls-cert")
	fs.BoolVar(&c.history, "history", false, "keep the latest 200 messages of each room for 24 hours: in the backend, or with memory in this process")
	fs.DurationVar(&c.gather, "gather", 0, "how `long` to gather messages for a page after a write to it, before they are written together; 50ms makes a busy room cheaper")
	fs.IntVar(&c.pages, "pages", usual.pages, "how `many` pages may be open at a time")
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(stderr, "usage: chat [flags]")
		fs.SetOutput(stderr)
		fs.PrintDefaults()
	}
	switch {
	case err != nil:
		return c, err
	case fs.NArg() > 0:
		return c, fmt.Errorf("unexpected argument %q: only flags are allowed, see -help", fs.Arg(0))
	case c.gather < 0:
		return c, fmt.Errorf("-gather is %v, it must not be negative", c.gather)
	case c.pages < 1:
		return c, fmt.Errorf("-pages is %d, it must be at least 1", c.pages)
	}
	for _, set := range []func(texts) error{c.setServers, c.setRead, c.setTarget, c.setAccess} {
		if err := set(t); err != nil {
			return c, err
		}
	}
	return c, nil
}

// setServers finds out where the servers of the adapter are.
func (c *config) setServers(t texts) error {
	b := backendNamed(c.adapter)
	if b == nil {
		return fmt.Errorf("-adapter %q is unknown: choose %s", c.adapter, names())
	}
	for name, list := range t.servers {
		servers, err := listed(name, *list)
		switch {
		case err != nil:
			return err
		case name == b.where && len(servers) == 0:
			return fmt.Errorf("-adapter %s needs -%s host:port", c.adapter, name)
		case name == b.where:
			c.servers = servers
		case len(servers) > 0:
			return fmt.Errorf("-%s has no effect with -adapter %s: choose %s", name, c.adapter, namesAt(name))
		}
	}
	return nil
}

// setRead finds out at which nodes rooms are read.
func (c *config) setRead(t texts) (err error) {
	c.read, err = readFrom("read-from", t.read, "adapter", c.adapter)
	return err
}

// readFrom reads a flag that says at which nodes an adapter reads rooms. The
// adapter is that of another flag.
func readFrom(flag, value, of, adapter string) (sharded.ReadFrom, error) {
	read, ok := map[string]sharded.ReadFrom{
		"": sharded.Primaries, "primaries": sharded.Primaries, "primaries-uncounted": sharded.PrimariesUncounted,
		"replicas": sharded.Replicas, "all": sharded.AllNodes,
	}[value]
	switch {
	case !ok:
		return read, fmt.Errorf("-%s %q is unknown: choose primaries, primaries-uncounted, replicas or all", flag, value)
	case value != "" && adapter != "sharded":
		return read, fmt.Errorf("-%s has no effect with -%s %s: choose sharded", flag, of, adapter)
	}
	return read, nil
}

// listed reads the value of a flag, which is separated by commas.
func listed(flag, value string) (list []string, err error) {
	for addr := range strings.SplitSeq(value, ",") {
		if addr = strings.TrimSpace(addr); addr == "" {
			continue
		}
		if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" {
			return nil, fmt.Errorf("-%s: %q is not host:port", flag, addr)
		}
		list = append(list, addr)
	}
	return list, nil
}

// setAccess finds out how to log in, and reads the files for TLS.
func (c *config) setAccess(t texts) error {
	if c.secret == "" && c.adapter != memory {
		c.secret = os.Getenv(passwordVariable)
	}
	files := t.authority != "" || t.cert != "" || t.key != ""
	switch {
	case c.adapter == memory && (c.user != "" || c.secret != "" || t.tls || files):
		return fmt.Errorf("-user, -password and -tls have no effect with -adapter %s: it connects to nothing", memory)
	case c.user != "" && c.secret == "":
		return fmt.Errorf("-user needs a password: set %s, or give -password", passwordVariable)
	case files && !t.tls:
		return errors.New("-tls-ca, -tls-cert and -tls-key have no effect without -tls")
	case (t.cert == "") != (t.key == ""):
		return errors.New("-tls-cert and -tls-key belong together: give both")
	case !t.tls:
		return nil
	}
	c.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	if t.authority != "" {
		text, err := os.ReadFile(t.authority)
		if err != nil {
			return fmt.Errorf("-tls-ca: %w", err)
		}
		c.tls.RootCAs = x509.NewCertPool()
		if !c.tls.RootCAs.AppendCertsFromPEM(text) {
			return fmt.Errorf("-tls-ca: %s has no certificate in PEM", t.authority)
		}
	}
	if t.cert != "" {
		pair, err := tls.LoadX509KeyPair(t.cert, t.key)
		if err != nil {
			return fmt.Errorf("-tls-cert %s and -tls-key %s: %w", t.cert, t.key, err)
		}
		c.tls.Certificates = []tls.Certificate{pair}
	}
	return nil
}
