package redistest

import (
	"context"
	"fmt"
)

// A Server is a single server, no cluster. It is its only [Node].
type Server struct {
	*fleet
	*Node
}

// StartServer starts a server. Where none can be run the error is
// ErrUnavailable. Tests call [NewServer] instead. Of the options only Image and
// Args matter.
func StartServer(ctx context.Context, o Options) (*Server, error) {
	ctx, cancel := within(ctx, 2*patience)
	defer cancel()
	f, err := launch(ctx, o.withDefaults(), 1, false)
	if err != nil {
		return nil, fmt.Errorf("start a server: %w", err)
	}
	return &Server{f, f.nodes[0]}, nil
}
