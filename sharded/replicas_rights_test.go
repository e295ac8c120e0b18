package sharded_test

import (
	"slices"
	"testing"

	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// The rights in the package's doc are enough to read from replicas, also on
// newer servers. TestReplicas has the default one.
func TestReplicaRights(t *testing.T) {
	t.Parallel()
	redistest.Long(t)
	for _, image := range redistest.Images() {
		if image != redistest.DefaultImage {
			t.Run(image, func(t *testing.T) {
				t.Parallel()
				replicaRights(t, redistest.NewCluster(t, redistest.Options{Image: image, Primaries: 1, Replicas: 1}), "named")
			})
		}
	}
}

// replicaRights reads from replicas as a user with the documented rights, and
// sees to it that the servers deny nothing. More are further lines of rights.
func replicaRights(t *testing.T, c *redistest.Cluster, more ...string) {
	rights := rediscontract.Rights(t, "sharded.go")
	require.NotEmpty(t, rights["replicas"])
	for _, n := range c.Nodes() {
		set := []string{"ACL", "SETUSER", "reader", "on", ">secret", "resetchannels", "-@all"}
		set = slices.Concat(set, rights["always"], rights["cluster"], rights["replicas"], rights["limits"])
		for _, line := range more {
			set = append(set, rights[line]...)
		}
		require.NoError(t, n.Do(t.Context(), set...).Error())
		require.NoError(t, n.Do(t.Context(), "ACL", "LOG", "RESET").Error())
	}
	as := func(o *rueidis.ClientOption) { o.Username, o.Password = "reader", "secret" }
	h := newHubOf(t, c.Client(t, as), reads(sharded.Replicas))
	m, err := h.Connect(nil)
	require.NoError(t, err)
	require.NoError(t, h.Room("rights").Join(within(t), m))
	require.NoError(t, h.Room("rights").Publish(within(t), []byte("hello")))
	_, err = m.Receive(within(t))
	require.NoError(t, err)
	readAtReplicas(t, c, []string{"rights"})
	for _, n := range c.Nodes() {
		denied, err := n.Do(t.Context(), "ACL", "LOG").ToArray()
		require.NoError(t, err)
		require.Empty(t, denied)
	}
}
