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

// dedicate takes a connection of its own from the client. The client cannot be
// told to stop waiting for one, so a goroutine waits, and Close of the engine
// does not wait for that goroutine. There is at most one for each link, since a
// link waits for it until the engine closes. It ends when the client's pool has
// a connection, which it then closes, or when the client is closed.
func (l *link) dedicate(node rueidis.Client) (rueidis.DedicatedClient, error) {
	e := l.engine
	taken := make(chan rueidis.DedicatedClient)
	go func() { // Close does not wait for it; see above
		conn, _ := node.Dedicate()
		select {
		case taken <- conn:
		case <-e.ctx.Done():
			conn.Close()
		}
	}()
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
