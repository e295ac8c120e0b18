package main

import (
	"context"
	"fmt"

	"github.com/centrifugal/centrifuge"
)

// A centrifugeHall is a single node of Centrifuge, with its broker in memory
// and its defaults. A delivery ends in the client's transport: it includes the
// encoding (once for all) and each client's queue, with a goroutine that
// empties it, up to 16 messages at a time. The clients are unidirectional, use
// the binary protocol, and get only publications, which is the least work for
// Centrifuge.
type centrifugeHall struct {
	node   *centrifuge.Node
	names  []string
	ending chan struct{} // closed to release transports that are stuck
}

func openCentrifugeHall(o hallOptions) (hall, error) {
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		return nil, err
	}
	node.OnConnect(func(*centrifuge.Client) {})
	if err := node.Run(); err != nil {
		return nil, err
	}
	return &centrifugeHall{node: node, names: roomNames(o.rooms), ending: make(chan struct{})}, nil
}

func (h *centrifugeHall) join(room int, t *localTally) error {
	ctx := centrifuge.SetCredentials(context.Background(), &centrifuge.Credentials{})
	c, _, err := centrifuge.NewClient(ctx, h.node, &centrifugeTransport{tally: t, ending: h.ending})
	if err != nil {
		return err
	}
	if err := c.ConnectNoErrorToDisconnect(centrifuge.ConnectRequest{}); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return c.Subscribe(h.names[room])
}

func (h *centrifugeHall) receive(int) {}

func (h *centrifugeHall) publish(room int, data []byte) error {
	_, err := h.node.Publish(h.names[room], data)
	return err
}

// close does not wait for the clients' goroutines, as Centrifuge does not: they
// end soon.
func (h *centrifugeHall) close() error {
	close(h.ending)
	return h.node.Shutdown(context.Background())
}

// A centrifugeTransport is the connection of a client. Without a tally it is
// stuck.
type centrifugeTransport struct {
	tally  *localTally
	ending <-chan struct{}
}

func (t *centrifugeTransport) Write([]byte) error { return t.take(1) }

func (t *centrifugeTransport) WriteMany(messages ...[]byte) error { return t.take(len(messages)) }

func (t *centrifugeTransport) take(n int) error {
	if t.tally == nil {
		<-t.ending
		return nil
	}
	t.tally.got(n)
	return nil
}

func (t *centrifugeTransport) Close(centrifuge.Disconnect) error { return nil }

func (t *centrifugeTransport) Name() string           { return "bench" }
func (t *centrifugeTransport) AcceptProtocol() string { return "" }
func (t *centrifugeTransport) Protocol() centrifuge.ProtocolType {
	return centrifuge.ProtocolTypeProtobuf
}

func (t *centrifugeTransport) ProtocolVersion() centrifuge.ProtocolVersion {
	return centrifuge.ProtocolVersion2
}
func (t *centrifugeTransport) Unidirectional() bool { return true }
func (t *centrifugeTransport) Emulation() bool      { return false }
func (t *centrifugeTransport) DisabledPushFlags() uint64 {
	return centrifuge.PushFlagConnect | centrifuge.PushFlagSubscribe | centrifuge.PushFlagUnsubscribe | centrifuge.PushFlagDisconnect
}

func (t *centrifugeTransport) PingPongConfig() centrifuge.PingPongConfig {
	return centrifuge.PingPongConfig{PingInterval: -1, PongTimeout: -1}
}
