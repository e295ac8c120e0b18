package redistest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
)

// containers is the platform whose nodes are containers.
type containers struct {
	bridge  *bridge
	own     bool // the bridge is closed with the platform
	image   string
	files   map[string][]byte // in each container, by their paths
	binary  string
	cluster bool
	reuse   bool // machines may come from the pool, and go there

	mu       sync.Mutex // guards what follows
	launched []*containerMachine
}

func newContainers(ctx context.Context, o Options, cluster bool) (platform, error) {
	p := &containers{image: o.Image, files: o.files, binary: o.binary(), cluster: cluster}
	var err error
	if p.bridge, err = recycled.network(ctx); err != nil {
		return nil, err
	}
	if p.bridge != nil {
		p.reuse = len(o.files) == 0 && !slices.ContainsFunc(o.Args, leavesFiles)
		return p, nil
	}
	p.own = true
	p.bridge, err = newBridge(ctx)
	return p, err
}

// leavesFiles reports whether an argument makes a server write files.
func leavesFiles(arg string) bool {
	return slices.Contains([]string{"--appendonly", "--dir", "--save"}, arg)
}

func (p *containers) launch(ctx context.Context, _ int, args []string) (machine, error) {
	args = append([]string{p.binary, "--port", serverPort}, args...)
	if !p.reuse {
		return p.run(ctx, args, "")
	}
	key := p.image + " " + strings.Join(args, " ")
	for m := recycled.take(key); m != nil; m = recycled.take(key) {
		p.add(m) // which makes close remove it, if it cannot be used again
		if err := m.waitFresh(ctx, p.cluster); err == nil {
			return m, nil
		}
	}
	return p.run(ctx, append([]string{"sh", "-c", supervise, "sh"}, args...), key)
}

// run starts a container with a command, to which it adds the address if that
// is of a server in a cluster.
func (p *containers) run(ctx context.Context, command []string, key string) (machine, error) {
	ip, err := p.bridge.take()
	if err != nil {
		return nil, err
	}
	if p.cluster {
		command = append(command, "--cluster-announce-ip", ip.String())
	}
	m := &containerMachine{b: p.bridge, ip: ip, key: key}
	var host *container.HostConfig
	options := []testcontainers.ContainerCustomizer{
		testcontainers.WithCmd(command...),
		testcontainers.WithLabels(labels()),
		testcontainers.WithFiles(p.containerFiles()...),
		testcontainers.WithEndpointSettingsModifier(func(s map[string]*network.EndpointSettings) {
			s[p.bridge.name] = m.endpoint()
		}),
		testcontainers.WithHostConfigModifier(func(h *container.HostConfig) {
			h.NetworkMode = container.NetworkMode(p.bridge.name)
			host = h
		}),
	}
	if p.bridge.direct {
		options = append(options, beforeCreate(func() { host.PortBindings = nil }))
	} else {
		options = append(options, testcontainers.WithExposedPorts(serverPort+"/tcp"))
	}
	m.c, err = testcontainers.Run(ctx, p.image, options...)
	if m.c != nil { // even when it failed to start
		p.add(m)
	} else {
		p.bridge.give(ip)
	}
	if err != nil {
		return nil, fmt.Errorf("start a container of %s: %w", p.image, err)
	}
	return m, nil
}

// beforeCreate calls f when testcontainers has decided everything about a
// container. If it is not told which ports to publish, it publishes all that
// the image exposes. To publish one, Docker installs the rule of its firewall
// before it finds that a program on the host has the port. Until it removes the
// rule, connections to that program fail.
func beforeCreate(f func()) testcontainers.CustomizeRequestOption {
	return testcontainers.WithAdditionalLifecycleHooks(testcontainers.ContainerLifecycleHooks{
		PreCreates: []testcontainers.ContainerRequestHook{
			func(context.Context, testcontainers.ContainerRequest) error { f(); return nil },
		},
	})
}

func (p *containers) add(m *containerMachine) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.launched = append(p.launched, m)
}

// containerFiles returns the files that each container gets.
func (p *containers) containerFiles() (list []testcontainers.ContainerFile) {
	for path, content := range p.files {
		list = append(list, testcontainers.ContainerFile{Reader: bytes.NewReader(content), ContainerFilePath: path, FileMode: 0o644})
	}
	return list
}

func (p *containers) close(sound func(machine) bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p.mu.Lock()
	launched := p.launched
	p.launched = nil
	p.mu.Unlock()
	// A sentinel would take the new servers for those that it watches.
	reuse := !slices.ContainsFunc(launched, func(m *containerMachine) bool { return m.key == "" })
	fresh := make([]*containerMachine, len(launched))
	err := each(launched, func(i int, m *containerMachine) error {
		if reuse && sound(m) && m.reset(ctx) == nil {
			fresh[i] = m
			return nil
		}
		return m.remove()
	})
	// All servers have ended by now. A replica that still ran would connect to
	// whatever server has its primary's address.
	surplus := recycled.put(slices.DeleteFunc(fresh, func(m *containerMachine) bool { return m == nil }))
	err = errors.Join(err, removeAll(surplus))
	if p.own {
		err = errors.Join(err, p.bridge.close(ctx))
	}
	return err
}

// containerMachine is one node's container.
type containerMachine struct {
	b  *bridge
	ip netip.Addr
	c  *testcontainers.DockerContainer

	key       string    // says what runs in it; "": it cannot be used again
	idleSince time.Time // while it is in the pool
}

// removing is held while a container is removed. The daemon of Docker 20.10 may
// deadlock if several containers leave a network at once; moby pull request
// 42545 fixed that in later versions.
var removing sync.Mutex

// remove ends the container, in whatever state it is. It waits for its turn,
// and then for the daemon, for at most patience.
func (m *containerMachine) remove() error {
	removing.Lock()
	defer removing.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := m.b.docker.ContainerRemove(ctx, m.c.GetContainerID(), client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if err == nil {
		m.b.give(m.ip)
	}
	return err
}

func (m *containerMachine) addr() string { return net.JoinHostPort(m.ip.String(), serverPort) }

func (m *containerMachine) endpoint() *network.EndpointSettings {
	return &network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: m.ip}}
}

// hostAddr returns the address if that can be dialed. Otherwise it looks up the
// published port, which changes with each start and heal.
func (m *containerMachine) hostAddr(ctx context.Context) (string, error) {
	if m.b.direct {
		return m.addr(), nil
	}
	r, err := m.b.docker.ContainerInspect(ctx, m.c.GetContainerID(), client.ContainerInspectOptions{})
	if err != nil {
		return "", err
	}
	for _, b := range r.Container.NetworkSettings.Ports[network.MustParsePort(serverPort+"/tcp")] {
		if !b.HostIP.IsValid() || b.HostIP.Is4() {
			host, err := m.b.publishedHost(ctx, b.HostPort)
			return net.JoinHostPort(host, b.HostPort), err
		}
	}
	return "", fmt.Errorf("node %s publishes no port: it does not run, or is cut off", m.addr())
}

func (m *containerMachine) start(ctx context.Context) error {
	_, err := m.b.docker.ContainerStart(ctx, m.c.GetContainerID(), client.ContainerStartOptions{})
	return err
}

func (m *containerMachine) signal(ctx context.Context, s serverSignal) error {
	id, err := m.c.GetContainerID(), error(nil)
	switch s {
	case terminate:
		_, err = m.b.docker.ContainerStop(ctx, id, client.ContainerStopOptions{})
	case kill:
		err = m.kill(ctx)
	case pause:
		err = m.pause(ctx)
	case unpause:
		_, err = m.b.docker.ContainerUnpause(ctx, id, client.ContainerUnpauseOptions{})
	}
	return err
}

// pause tries again where the kernel has not frozen all threads in time, which
// happens on a busy machine.
func (m *containerMachine) pause(ctx context.Context) error {
	return poll(ctx, "pause a container", func(ctx context.Context) error {
		_, err := m.b.docker.ContainerPause(ctx, m.c.GetContainerID(), client.ContainerPauseOptions{})
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
	ended := m.b.docker.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	if _, err := m.b.docker.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
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
	_, err := m.b.docker.NetworkDisconnect(ctx, m.b.name,
		client.NetworkDisconnectOptions{Container: m.c.GetContainerID(), Force: true})
	return err
}

func (m *containerMachine) heal(ctx context.Context) error {
	_, err := m.b.docker.NetworkConnect(ctx, m.b.name,
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
