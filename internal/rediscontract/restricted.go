package rediscontract

import (
	"slices"
	"testing"

	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/redis/rueidis"
)

// A Restriction imitates a service by an ACL user that may call everything but
// what the service refuses.
type Restriction struct {
	Name string
	// Rights are added to those of a user that may do everything.
	Rights []string
}

// Restrictions are the services of docs/services.md that keep histories.
var Restrictions = []Restriction{
	{"no ROLE and no CLUSTER MYID", []string{"-role", "-cluster|myid"}},
	{"no functions", []string{"-function", "-fcall", "-fcall_ro"}},
	// Scripts ask for the section replication. The hub may ask for the section
	// server, which has a run_id.
	{"no INFO in scripts", []string{"-role", "-cluster|myid", "-info", "+info|server"}},
}

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

// restrict makes a user on all nodes and returns the servers as that user sees
// them.
func restrict(t testing.TB, s servers, nodes []*redistest.Node, name string, rights []string) servers {
	t.Helper()
	setUser(t, nodes, name, slices.Concat([]string{"~*", "&*", "+@all"}, rights))
	return user{s, name}
}
