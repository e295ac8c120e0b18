package redispubsub

import (
	"context"
	"errors"
	"time"

	"github.com/redis/rueidis"
)

// poolPause is how long a link waits for a connection before it looks for the
// reason.
const poolPause = time.Second

// errPool means that the client has no connection for us, although the server
// answers.
var errPool = errors.New("the client's pool of dedicated connections is used up (BlockingPoolSize of its options)")

// dedicate asks a client for a connection of its own, which the channel gets.
// If ctx ends first the connection is closed when it arrives.
//
// The client cannot be told to stop waiting until it is connected, or until its
// pool has a place. So a goroutine waits, and Close of the engine does not wait
// for that goroutine. It ends, and calls ended, when the client has a
// connection or is closed. The callers make sure that there is at most one for
// each address.
func dedicate(ctx context.Context, node rueidis.Client, ended func()) <-chan rueidis.DedicatedClient {
	taken := make(chan rueidis.DedicatedClient)
	go func() { // Close does not wait for it; see above
		defer ended()
		conn, _ := node.Dedicate()
		select {
		case taken <- conn:
		case <-ctx.Done():
			conn.Close()
		}
	}()
	return taken
}

// dedicate takes a connection for the link from the client. It waits until
// there is one or the engine closes, and meanwhile notes why there is none.
func (l *link) dedicate(node rueidis.Client) (rueidis.DedicatedClient, error) {
	e := l.engine
	taken := dedicate(e.ctx, node, func() {})
	pause := time.NewTicker(poolPause)
	defer pause.Stop()
	for {
		select {
		case conn := <-taken:
			return conn, nil
		case <-pause.C:
			if why := l.whyNoConnection(node); why != nil {
				l.broke(why)
			}
		case <-e.ctx.Done():
			return nil, e.ctx.Err()
		}
	}
}

// whyNoConnection returns why the client has no connection for the link: its
// pool is used up, or the server does not answer.
func (l *link) whyNoConnection(node rueidis.Client) error {
	ctx, cancel := context.WithTimeout(l.engine.ctx, askTimeout)
	defer cancel()
	result := node.Do(ctx, node.B().Ping().Build())
	switch err := result.NonRedisError(); {
	case l.engine.ctx.Err() != nil:
		return nil
	case err != nil:
		return resultError(result)
	}
	return errPool
}
