package redistest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
)

const serverPort = "6379"

// A bridge is a network of containers, with a client of the daemon.
type bridge struct {
	provider *testcontainers.DockerProvider
	docker   client.APIClient
	name     string
	subnet   netip.Prefix

	// direct means that addresses in the network can be dialed from here, as
	// they can where the daemon runs beside us. Then no ports are published:
	// rules of the firewall cost much time for each container.
	direct bool

	mu    sync.Mutex // guards what follows
	taken [256]bool  // last bytes of addresses
	next  byte       // the one that was taken last

	hostMu sync.Mutex // held while a port is tried
	host   string     // where published ports are; see publishedHost
}

// newBridge creates a network with a subnet of our choice: only then may a
// container choose its address, and a node must keep its address when it
// restarts.
func newBridge(ctx context.Context) (*bridge, error) {
	provider, err := testcontainers.NewDockerProvider()
	if err != nil {
		return nil, err
	}
	b := &bridge{provider: provider, docker: provider.Client()}
	if err := b.create(ctx); err != nil {
		provider.Close()
		return nil, fmt.Errorf("set up the network of containers: %w", err)
	}
	b.direct = b.hasGateway()
	return b, nil
}

func (b *bridge) create(ctx context.Context) error {
	var err error
	for range 20 {
		b.subnet = randomSubnet()
		name := fmt.Sprintf("redistest-%08x", rand.Uint32())
		_, err = b.docker.NetworkCreate(ctx, name, client.NetworkCreateOptions{
			Driver: "bridge",
			Labels: labels(),
			IPAM:   &network.IPAM{Config: []network.IPAMConfig{{Subnet: b.subnet, Gateway: b.address(1)}}},
		})
		if err == nil {
			b.name = name
			return nil
		}
		if !strings.Contains(err.Error(), "overlap") { // with another network: draw again
			break
		}
	}
	return err
}

// randomSubnet returns one of 512 subnets in 198.18.0.0/15, the addresses that
// RFC 2544 reserves for tests, which no real network should use.
func randomSubnet() netip.Prefix {
	n := rand.IntN(512)
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, byte(18 + n/256), byte(n % 256), 0}), 24)
}

func (b *bridge) address(last byte) netip.Addr {
	a := b.subnet.Addr().As4()
	a[3] = last
	return netip.AddrFrom4(a)
}

// hasGateway reports whether the network's gateway is an address of this
// machine, as this process sees it.
func (b *bridge) hasGateway() bool {
	local, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	gateway := b.address(1).String()
	return slices.ContainsFunc(local, func(a net.Addr) bool {
		ip, _, _ := strings.Cut(a.String(), "/")
		return ip == gateway
	})
}

// The first addresses are the gateway's.
const firstAddress, lastAddress = 10, 250

// take returns an address that no container has, if there is one: the one that
// has been free for longest.
func (b *bridge) take() (netip.Addr, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range lastAddress - firstAddress + 1 {
		b.next++
		if b.next < firstAddress || b.next > lastAddress {
			b.next = firstAddress
		}
		if !b.taken[b.next] {
			b.taken[b.next] = true
			return b.address(b.next), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("all addresses of network %s are taken: %d containers run", b.name, lastAddress-firstAddress+1)
}

// give undoes take.
func (b *bridge) give(ip netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken[ip.As4()[3]] = false
}

// miscountedAfter is how long a daemon may count containers that are gone.
const miscountedAfter = 5 * time.Second

// close waits for the ends of containers that were just removed: a busy daemon
// counts them for a while. Some releases of Docker miscount now and then, and
// then do not remove the network, which is empty, before the daemon restarts
// (moby issue 42119). Such a network is left, and said to be, which go test
// shows with -v.
func (b *bridge) close(ctx context.Context) error {
	began := time.Now()
	err := poll(ctx, "remove the network of containers", func(context.Context) error {
		_, err := b.docker.NetworkRemove(ctx, b.name, client.NetworkRemoveOptions{})
		switch {
		case err == nil:
			return nil
		case !strings.Contains(err.Error(), "active endpoints"):
			return final{err}
		case time.Since(began) > miscountedAfter && b.empty(ctx):
			fmt.Fprintf(os.Stderr, "redistest: network %s stays: Docker counts containers there that are gone\n", b.name)
			return nil
		}
		return err
	})
	return errors.Join(err, b.provider.Close())
}

// empty reports whether the network certainly has no containers.
func (b *bridge) empty(ctx context.Context) bool {
	is, err := b.docker.NetworkInspect(ctx, b.name, client.NetworkInspectOptions{})
	return err == nil && len(is.Network.Containers) == 0
}

// publishedHost returns the host on which ports are published. Inside a
// container testcontainers assumes the gateway, which is wrong if the daemon
// runs beside us. So we check whether the port is on loopback.
func (b *bridge) publishedHost(ctx context.Context, port string) (string, error) {
	b.hostMu.Lock()
	defer b.hostMu.Unlock()
	if b.host != "" {
		return b.host, nil
	}
	if strings.HasPrefix(b.docker.DaemonHost(), "unix:") {
		d := net.Dialer{Timeout: time.Second}
		if c, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", port)); err == nil {
			c.Close()
			b.host = "127.0.0.1"
			return b.host, nil
		}
	}
	var err error
	b.host, err = b.provider.DaemonHost(ctx)
	return b.host, err
}
