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

// A Restriction imitates a service by an ACL user that may call everything but
// what the service refuses.
type Restriction struct {
	Name string
	// Rights are added to those of a user that may do everything.
	Rights []string
	// WaiveMoves are cases that are not run where slots move.
	WaiveMoves []string
}

// Restrictions are the services of docs/services.md that keep histories.
var Restrictions = []Restriction{
	{Name: "no ROLE and no CLUSTER MYID", Rights: []string{"-role", "-cluster|myid"}},
	{Name: "no functions", Rights: []string{"-function", "-fcall", "-fcall_ro"}},
	// Scripts ask for the section replication. The hub may ask for the section
	// server, which has a run_id, and does not tell whether the server ever was
	// a replica. So hubs cannot be sure that a history that has moved is complete.
	{
		Name: "no INFO in scripts", Rights: []string{"-role", "-cluster|myid", "-info", "+info|server"},
		WaiveMoves: []string{"history-survives-move"},
	},
}

// RestrictedArgs are arguments of servers that know the users of Restrictions,
// also after they have started again.
func RestrictedArgs() (args []string) {
	for i, r := range Restrictions {
		args = append(args, "--user", userName(i), "on", ">secret", "~*", "&*", "+@all")
		args = append(args, r.Rights...)
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
	return u.servers.Client(t, append(slices.Clone(options), func(o *rueidis.ClientOption) {
		o.Username, o.Password = u.name, "secret"
	})...)
}

// Concerned chooses the cases that depend on the refused commands: those of
// histories, those in which a channel's home moves or fails, and, where all
// tests are asked for, outages, which take long.
func Concerned(c adaptertest.Case) bool {
	return c.MovesHome() || strings.HasPrefix(c.Name, "history-") ||
		redistest.All() && strings.HasPrefix(c.Name, "outage-")
}

// Most returns nil, for all cases, if all tests are asked for and the servers
// are of [redistest.DefaultImage], and Concerned otherwise.
func Most(image string) func(adaptertest.Case) bool {
	if redistest.All() && image == redistest.DefaultImage {
		return nil
	}
	return Concerned
}

// RunRestricted runs the contract on a single server, as users that imitate
// services. The server has RestrictedArgs. If only is not nil it chooses the
// cases.
func RunRestricted(t *testing.T, server func(testing.TB) *redistest.Server, newAdapter NewAdapter, only func(adaptertest.Case) bool) {
	for i, r := range Restrictions {
		t.Run(r.Name, func(t *testing.T) {
			adaptertest.Run(t, func(t testing.TB, n int) adaptertest.Nodes {
				return nodes(t, user{server(t), userName(i)}, n, newAdapter)
			}, &adaptertest.Options{Parallel: true, Only: only})
		})
	}
}

// RunRestrictedCluster runs the cases of Concerned on a cluster, as users that
// imitate services. Its slots move, or its
// primaries fail, but not both: where a server that was a replica gets a slot,
// scripts cannot know whether it was one when the history's last frame was
// kept. They cannot be sure that the history is complete, as the contract
// demands.
func RunRestrictedCluster(t *testing.T, cluster func(testing.TB) *redistest.Cluster, moves bool, newAdapter NewAdapter) {
	for i, r := range Restrictions {
		t.Run(r.Name, func(t *testing.T) {
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
