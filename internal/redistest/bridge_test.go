package redistest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"
	"github.com/testcontainers/testcontainers-go"
)

// A network that Docker does not remove, because it counts containers there, is
// a failure if there are any.
func TestNetworkThatIsNotRemoved(t *testing.T) {
	for what, containers := range map[string]map[string]network.EndpointResource{
		"Docker miscounts":   nil,
		"it has a container": {"id": {}},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bridge{provider: new(testcontainers.DockerProvider), docker: busyNetwork{containers: containers}}
				err := b.close(t.Context())
				if containers == nil {
					require.NoError(t, err)
					return
				}
				require.ErrorContains(t, err, "active endpoints")
			})
		})
	}
}

// A busyNetwork is a daemon that does not remove its network.
type busyNetwork struct {
	client.APIClient
	containers map[string]network.EndpointResource
}

func (busyNetwork) NetworkRemove(context.Context, string, client.NetworkRemoveOptions) (client.NetworkRemoveResult, error) {
	return client.NetworkRemoveResult{}, errors.New("network has active endpoints")
}

func (n busyNetwork) NetworkInspect(context.Context, string, client.NetworkInspectOptions) (client.NetworkInspectResult, error) {
	return client.NetworkInspectResult{Network: network.Inspect{Containers: n.containers}}, nil
}
