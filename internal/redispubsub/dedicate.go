package redispubsub

import (
	"context"
	"errors"
	"time"

	"github.com/redis/rueidis"
)

// poolPatience is how long a link waits for a connection before it looks for
// the reason.
const poolPatience = time.Second

// errPool means that the client gives out no connection, although the server
// answers.
var errPool = errors.New("the client's pool of dedicated connections is used up (BlockingPoolSize of its options)")

// dedicate takes a connection of its own from the client. The client cannot be
// told to stop waiting for one, so that is done by a goroutine that the engine
// does not wait for. There is one for each link at most, since a link waits for
// it until the engine closes; it ends when the client's pool has a connection
// for it, which it gives back, or when the client is closed.
func (l *link) dedicate(node rueidis.Client) (rueidis.DedicatedClient, error) {
	e := l.engine
	taken := make(chan rueidis.DedicatedClient)
	go func() { // owned by nobody once the engine is closed; see above
		conn, _ := node.Dedicate()
		select {
		case taken <- conn:
		case <-e.ctx.Done():
			conn.Close()
		}
	}()
	patience := time.NewTicker(poolPatience)
	defer patience.Stop()
	for {
		select {
		case conn := <-taken:
			return conn, nil
		case <-patience.C:
			if why := l.whyNoConnection(node); why != nil {
				l.broke(why)
			}
		case <-e.ctx.Done():
			return nil, e.ctx.Err()
		}
	}
}

// whyNoConnection tells a pool that is used up from a server that does not
// answer.
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
