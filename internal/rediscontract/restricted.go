package rediscontract

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter/adaptertest"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/redis/rueidis"
)

// A Restriction imitates services by an ACL user that may call everything but
// what they refuse.
type Restriction struct {
	Services string // as in docs/services.md
	Commands []string
	Rights   []string // that are parts of a command
	Allows   Allows
	Whole    bool     // outages are tried, too: those of others are alike
	Says     []string // the errors where a history is refused have one of these
	// WaiveMoves are cases that are not run where slots move.
	WaiveMoves []string
}

// Allows is what a service is good for.
type Allows uint8

const (
	// Histories means that everything works.
	Histories Allows = iota
	// Plain means that rooms cannot have a history.
	Plain
	// Classic means that only classic Pub/Sub works, and histories.
	Classic
	// PlainClassic means that only classic Pub/Sub works, without histories.
	PlainClassic
)

// Sharded reports whether sharded Pub/Sub works.
func (a Allows) Sharded() bool { return a == Histories || a == Plain }

// Histories reports whether rooms can have a history.
func (a Allows) Histories() bool { return a == Histories || a == Classic }

var (
	functions     = []string{"FUNCTION", "FCALL", "FCALL_RO"}
	scripts       = []string{"EVAL", "EVAL_RO", "EVALSHA", "EVALSHA_RO", "SCRIPT"}
	shardedPubSub = []string{"SSUBSCRIBE", "SUNSUBSCRIBE", "SPUBLISH"}
	streams       = []string{"XADD", "XDEL", "XINFO", "XLEN", "XRANGE", "XREAD", "XREVRANGE", "XSETID", "XTRIM"}
)

// Restrictions are the services of docs/services.md that refuse something.
var Restrictions = []Restriction{
	{Services: "any without ROLE and CLUSTER MYID", Commands: []string{"ROLE"}, Rights: []string{"-cluster|myid"}, Whole: true},
	{Services: "ElastiCache Serverless, MemoryDB Multi-Region", Commands: functions, Rights: []string{"-client|tracking"}, Whole: true},
	// Scripts ask for the section replication. The hub may ask for the section
	// server, which has a run_id, and does not tell whether the server ever was
	// a replica. So hubs cannot be sure that a history that has moved is complete.
	{
		Services: "Redis Enterprise, Redis Cloud, Azure Managed Redis", Commands: []string{"ROLE"},
		Rights: []string{"-cluster|myid", "-info", "+info|server"}, Whole: true, WaiveMoves: []string{"history-survives-move"},
	},
	{Services: "Dragonfly", Commands: functions, Rights: []string{"-cluster|myid"}},
	{Services: "OCI Cache", Commands: slices.Concat(functions, scripts), Allows: Plain, Says: []string{"'EVALSHA'"}},
	{
		Services: "Upstash", Commands: slices.Concat(shardedPubSub, functions, []string{"ROLE"}),
		Rights: []string{"-info", "+info|server"}, Allows: Classic,
	},
	{Services: "Garnet", Commands: slices.Concat(shardedPubSub, streams, functions), Allows: PlainClassic, Says: []string{"'XREVRANGE'", "'XADD'", "Check says which"}},
	// Their histories are refused for what their XADD lacks: see RunOldServer.
	{Services: "KeyDB, Azure Cache for Redis 6", Commands: slices.Concat(shardedPubSub, functions), Allows: Classic},
}

// rights are those of an ACL user, beside all.
func (r *Restriction) rights() (rights []string) {
	for _, c := range r.Commands {
		rights = append(rights, "-"+strings.ToLower(c))
	}
	return append(rights, r.Rights...)
}

// Row is the restriction in the table of docs/services.md.
func (r *Restriction) Row() string {
	return "| " + r.Services + " | `" + strings.ReplaceAll(strings.Join(r.rights(), " "), "|", `\|`) + "` |"
}

// RestrictedArgs are arguments of servers that know the users of Restrictions,
// also after they have started again.
func RestrictedArgs() (args []string) {
	for i := range Restrictions {
		args = append(args, "--user", userName(i), "on", ">secret", "~*", "&*", "+@all")
		args = append(args, Restrictions[i].rights()...)
	}
	return args
}

func userName(i int) string { return fmt.Sprint("restricted", i) }

// A user is servers as one ACL user sees them.
type user struct {
	servers
	name string
}

func (u user) Client(t testing.TB, options ...func(*rueidis.ClientOption)) rueidis.Client {
	return u.servers.Client(t, append(slices.Clone(options), u.logIn)...)
}

func (u user) ClientOption() rueidis.ClientOption {
	o := u.servers.ClientOption()
	u.logIn(&o)
	return o
}

func (u user) logIn(o *rueidis.ClientOption) { o.Username, o.Password = u.name, "secret" }

// Concerned chooses the cases that depend on the refused commands: those of
// histories, those in which a channel's home moves or fails, and, where all
// tests are asked for, outages, which take long.
func Concerned(c adaptertest.Case) bool {
	return c.MovesHome() || strings.HasPrefix(c.Name, "history-") ||
		redistest.All() && strings.HasPrefix(c.Name, "outage-")
}

// cases chooses those that depend on the refused commands. Where all tests are
// asked for it chooses all that the services allow on the default server, and
// outages, which take long, only if the whole contract is to be run.
func (r *Restriction) cases(image string) func(adaptertest.Case) bool {
	all := redistest.All() && image == redistest.DefaultImage
	return func(c adaptertest.Case) bool {
		switch {
		case c.NeedsHistory() && !r.Allows.Histories():
			return false
		case all:
			return r.Whole || !strings.HasPrefix(c.Name, "outage-")
		case r.Allows.Histories():
			return c.NeedsHistory()
		}
		return strings.Contains(c.Name, "subscribe") || strings.HasPrefix(c.Name, "broken-link-")
	}
}

// Most returns nil, for all cases, if all tests are asked for and the servers
// are of [redistest.DefaultImage], and Concerned otherwise.
func Most(image string) func(adaptertest.Case) bool {
	if redistest.All() && image == redistest.DefaultImage {
		return nil
	}
	return Concerned
}

// An Adapters makes the adapters under test.
type Adapters struct {
	Sharded bool
	New     NewAdapter
	Open    OpenLogged
}

// RunRestricted runs the contract on a single server of an image, as users that
// imitate services, as far as these allow it. What they do not allow has to be
// refused clearly. The server has RestrictedArgs.
func (a *Adapters) RunRestricted(t *testing.T, image string, server func(testing.TB) *redistest.Server) {
	for i := range Restrictions {
		r := &Restrictions[i]
		t.Run(r.Services, func(t *testing.T) {
			t.Run("refuses", func(t *testing.T) {
				t.Parallel()
				a.runRefused(t, r, user{server(t), userName(i)}.ClientOption())
			})
			if a.Sharded && !r.Allows.Sharded() {
				return
			}
			adaptertest.Run(t, func(t testing.TB, n int) adaptertest.Nodes {
				return nodes(t, user{server(t), userName(i)}, n, a.New)
			}, &adaptertest.Options{Parallel: true, Only: r.cases(image)})
		})
	}
}

// RunRenamed imitates services by a server on which the commands that they
// refuse do not exist, so that it answers with another error than an ACL.
func (a *Adapters) RunRenamed(t *testing.T, image string) {
	for i := range Restrictions {
		r := &Restrictions[i]
		t.Run(r.Services, func(t *testing.T) {
			t.Parallel()
			o := redistest.Options{Image: image, Args: append([]string{"--user", "renamed", "on", ">secret", "~*", "&*", "+@all"}, r.Rights...)}
			for _, c := range r.Commands {
				o.Args = append(o.Args, "--rename-command", c, "")
			}
			a.runRefused(t, r, user{redistest.NewServer(t, o), "renamed"}.ClientOption())
		})
	}
}

// runRefused checks that what a service allows works, and that the rest is
// refused, with an error that names one of the commands that are missing.
func (a *Adapters) runRefused(t *testing.T, r *Restriction, o rueidis.ClientOption) {
	h := Open(t, a.Open, o)
	if a.Sharded && !r.Allows.Sharded() {
		h.refuses("x", "'SSUBSCRIBE'", "'SPUBLISH'")
		return
	}
	h.Speaks("x")
	if r.Allows.Histories() {
		h.Speaks("kept")
		h.healthy()
		return
	}
	h.healthy()
	h.refuses("kept", r.Says...)
	h.Speaks("y")
}

// RunRestrictedCluster runs the cases of Concerned on a cluster, as users that
// imitate services with histories. Its slots move, or its
// primaries fail, but not both: where a server that was a replica gets a slot,
// scripts cannot know whether it was one when the history's last frame was
// kept. They cannot be sure that the history is complete, as the contract
// demands.
func RunRestrictedCluster(t *testing.T, cluster func(testing.TB) *redistest.Cluster, moves bool, newAdapter NewAdapter) {
	for i := range Restrictions {
		r := &Restrictions[i]
		if r.Allows != Histories || !r.Whole {
			continue
		}
		t.Run(r.Services, func(t *testing.T) {
			o := &adaptertest.Options{Timeout: 2 * time.Minute, Parallel: true, Only: Concerned}
			if moves {
				o.Waive = r.WaiveMoves
			}
			adaptertest.Run(t, func(t testing.TB, n int) adaptertest.Nodes {
				c := cluster(t)
				ns := nodes(t, user{c, userName(i)}, n, newAdapter)
				if moves {
					ns.Faults.Move = func(ctx context.Context, channel string) error { return move(ctx, c, channel) }
				} else {
					ns.Faults.Fail = func(ctx context.Context, channel string) error { return fail(ctx, c, channel) }
				}
				return ns
			}, o)
		})
	}
}
