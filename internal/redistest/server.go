package redistest

import (
	"context"
	"fmt"
)

// A Server is a single server, not in a cluster. It is its only [Node].
type Server struct {
	*fleet
	*Node
}

// StartServer starts a server. If none can run here the error is
// ErrUnavailable. Tests call [NewServer] instead. Only Image and Args of the
// options are used.
func StartServer(ctx context.Context, o Options) (*Server, error) {
	ctx, cancel := within(ctx, 2*patience)
	defer cancel()
	f, err := launch(ctx, o.withDefaults(), 1, false)
	if err != nil {
		return nil, fmt.Errorf("start a server: %w", err)
	}
	return &Server{f, f.nodes[0]}, nil
}
