package redistest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
)

const serverPort = "6379"

// containers is the platform whose nodes are containers in a network of their
// own.
type containers struct {
	image    string
	files    map[string][]byte // in each container, by their paths
	binary   string
	cluster  bool
	provider *testcontainers.DockerProvider
	docker   client.APIClient
	network  string // also its name
	subnet   netip.Prefix

	mu       sync.Mutex // guards what follows
	host     string     // where published ports are; see publishedHost
	launched []*containerMachine
}

func newContainers(ctx context.Context, o Options, cluster bool) (_ platform, err error) {
	p := &containers{image: o.Image, files: o.files, binary: o.binary(), cluster: cluster}
	if p.provider, err = testcontainers.NewDockerProvider(); err != nil {
		return nil, err
	}
	p.docker = p.provider.Client()
	if err := p.createNetwork(ctx); err != nil {
		p.provider.Close()
		return nil, fmt.Errorf("set up the network of containers: %w", err)
	}
	return p, nil
}

// createNetwork creates a network with a subnet of our choice: only then may a
// container choose its address, and a node must keep its address when it
// restarts.
func (p *containers) createNetwork(ctx context.Context) error {
	var err error
	for range 20 {
		p.subnet = randomSubnet()
		name := fmt.Sprintf("redistest-%08x", rand.Uint32())
		_, err = p.docker.NetworkCreate(ctx, name, client.NetworkCreateOptions{
			Driver: "bridge",
			Labels: labels(),
			IPAM:   &network.IPAM{Config: []network.IPAMConfig{{Subnet: p.subnet}}},
		})
		if err == nil {
			p.network = name
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

// ip returns the address of the i-th node; the first addresses are the
// gateway's.
func (p *containers) ip(i int) netip.Addr {
	b := p.subnet.Addr().As4()
	b[3] = byte(10 + i)
	return netip.AddrFrom4(b)
}

func (p *containers) launch(ctx context.Context, i int, args []string) (machine, error) {
	args = append([]string{p.binary, "--port", serverPort}, args...)
	if p.cluster {
		args = append(args, "--cluster-announce-ip", p.ip(i).String())
	}
	return p.run(ctx, i, args)
}

// run starts the i-th container with a complete command line.
func (p *containers) run(ctx context.Context, i int, command []string) (machine, error) {
	m := &containerMachine{p: p, ip: p.ip(i)}
	c, err := testcontainers.Run(ctx, p.image,
		testcontainers.WithCmd(command...),
		testcontainers.WithLabels(labels()),
		testcontainers.WithFiles(p.containerFiles()...),
		testcontainers.WithExposedPorts(serverPort+"/tcp"),
		testcontainers.WithEndpointSettingsModifier(func(s map[string]*network.EndpointSettings) {
			s[p.network] = m.endpoint()
		}),
		testcontainers.WithHostConfigModifier(func(h *container.HostConfig) {
			h.NetworkMode = container.NetworkMode(p.network)
		}),
	)
	if c != nil { // even when it failed to start
		m.c = c
		p.mu.Lock()
		p.launched = append(p.launched, m)
		p.mu.Unlock()
	}
	if err != nil {
		return nil, fmt.Errorf("start a container of %s: %w", p.image, err)
	}
	return m, nil
}

// containerFiles returns the files that each container gets.
func (p *containers) containerFiles() (list []testcontainers.ContainerFile) {
	for path, content := range p.files {
		list = append(list, testcontainers.ContainerFile{Reader: bytes.NewReader(content), ContainerFilePath: path, FileMode: 0o644})
	}
	return list
}

func (p *containers) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := each(p.launched, func(_ int, m *containerMachine) error {
		// A paused container must be killed before it can be stopped.
		p.docker.ContainerKill(ctx, m.c.GetContainerID(), client.ContainerKillOptions{Signal: "KILL"})
		return m.c.Terminate(ctx, testcontainers.StopTimeout(0))
	})
	return errors.Join(err, p.removeNetwork(ctx), p.provider.Close())
}

// removeNetwork waits for the ends of containers that were just removed: a busy
// daemon counts them for a while.
func (p *containers) removeNetwork(ctx context.Context) error {
	return poll(ctx, "remove the network of containers", func(context.Context) error {
		_, err := p.docker.NetworkRemove(ctx, p.network, client.NetworkRemoveOptions{})
		if err != nil && !strings.Contains(err.Error(), "active endpoints") {
			return final{err}
		}
		return err
	})
}

// publishedHost returns the host on which ports are published. Inside a
// container testcontainers assumes the gateway, which is wrong if the daemon
// runs beside us. So we check whether the port is on loopback.
func (p *containers) publishedHost(ctx context.Context, port string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.host != "" {
		return p.host, nil
	}
	if strings.HasPrefix(p.docker.DaemonHost(), "unix:") {
		d := net.Dialer{Timeout: time.Second}
		if c, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", port)); err == nil {
			c.Close()
			p.host = "127.0.0.1"
			return p.host, nil
		}
	}
	var err error
	p.host, err = p.provider.DaemonHost(ctx)
	return p.host, err
}

// containerMachine is one node's container.
type containerMachine struct {
	p  *containers
	ip netip.Addr
	c  *testcontainers.DockerContainer
}

func (m *containerMachine) addr() string { return net.JoinHostPort(m.ip.String(), serverPort) }

func (m *containerMachine) endpoint() *network.EndpointSettings {
	return &network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: m.ip}}
}

// hostAddr looks up the published port, which changes with each start and heal.
func (m *containerMachine) hostAddr(ctx context.Context) (string, error) {
	r, err := m.p.docker.ContainerInspect(ctx, m.c.GetContainerID(), client.ContainerInspectOptions{})
	if err != nil {
		return "", err
	}
	for _, b := range r.Container.NetworkSettings.Ports[network.MustParsePort(serverPort+"/tcp")] {
		if !b.HostIP.IsValid() || b.HostIP.Is4() {
			host, err := m.p.publishedHost(ctx, b.HostPort)
			return net.JoinHostPort(host, b.HostPort), err
		}
	}
	return "", fmt.Errorf("node %s publishes no port: it does not run, or is cut off", m.addr())
}

func (m *containerMachine) start(ctx context.Context) error {
	_, err := m.p.docker.ContainerStart(ctx, m.c.GetContainerID(), client.ContainerStartOptions{})
	return err
}

func (m *containerMachine) signal(ctx context.Context, s serverSignal) error {
	id, err := m.c.GetContainerID(), error(nil)
	switch s {
	case terminate:
		_, err = m.p.docker.ContainerStop(ctx, id, client.ContainerStopOptions{})
	case kill:
		err = m.kill(ctx)
	case pause:
		err = m.pause(ctx)
	case unpause:
		_, err = m.p.docker.ContainerUnpause(ctx, id, client.ContainerUnpauseOptions{})
	}
	return err
}

// pause tries again where the kernel has not frozen all threads in time, which
// happens on a busy machine.
func (m *containerMachine) pause(ctx context.Context) error {
	return poll(ctx, "pause a container", func(ctx context.Context) error {
		_, err := m.p.docker.ContainerPause(ctx, m.c.GetContainerID(), client.ContainerPauseOptions{})
		if err != nil && !strings.Contains(err.Error(), "unable to freeze") {
			return final{err}
		}
		return err
	})
}

// kill returns after the server has ended and no longer has a published port.
func (m *containerMachine) kill(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	id := m.c.GetContainerID()
	ended := m.p.docker.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	if _, err := m.p.docker.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		return err
	}
	select {
	case <-ended.Result:
		return nil
	case err := <-ended.Error:
		return err
	}
}

func (m *containerMachine) cut(ctx context.Context) error {
	_, err := m.p.docker.NetworkDisconnect(ctx, m.p.network,
		client.NetworkDisconnectOptions{Container: m.c.GetContainerID(), Force: true})
	return err
}

func (m *containerMachine) heal(ctx context.Context) error {
	_, err := m.p.docker.NetworkConnect(ctx, m.p.network,
		client.NetworkConnectOptions{Container: m.c.GetContainerID(), EndpointConfig: m.endpoint()})
	return err
}

func (m *containerMachine) logs(ctx context.Context) string {
	r, err := m.c.Logs(ctx)
	if err != nil {
		return err.Error()
	}
	defer r.Close()
	b, _ := io.ReadAll(r)
	return string(b)
}

func (m *containerMachine) busPort() string { return "" }
