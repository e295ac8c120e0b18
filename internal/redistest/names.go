package redistest

import (
	"context"
	"crypto/tls"
	"net"
	"sync"

	"github.com/redis/rueidis"
)

// Names lead to nodes, and can be made to lead to other nodes, as the name of a
// service or a virtual address does. Existing connections stay as they are. The
// zero value is ready to use.
//
//	var names redistest.Names
//	names.Set("redis:6379", old)
//	client := server.Client(t, names.Option("redis:6379"))
//	names.Set("redis:6379", new)
type Names struct {
	mu    sync.Mutex
	nodes map[string]*Node
}

// Set makes an address lead to a node.
func (n *Names) Set(addr string, node *Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nodes == nil {
		n.nodes = make(map[string]*Node)
	}
	n.nodes[addr] = node
}

func (n *Names) node(addr string) *Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.nodes[addr]
}

// Option makes a client begin with the given addresses, and reach nodes by
// their names. An address that is not a name leads to the node that announces
// it.
func (n *Names) Option(init ...string) func(*rueidis.ClientOption) {
	return func(o *rueidis.ClientOption) {
		o.InitAddress = init
		dial := o.DialCtxFn
		o.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
			if node := n.node(addr); node != nil {
				return node.dial(ctx, d, nil)
			}
			return dial(ctx, addr, d, t)
		}
	}
}
