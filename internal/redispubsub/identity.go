package redispubsub

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/rueidis"
)

// An identity is what a server says of itself on one connection. An address is
// a name, and a name may lead elsewhere tomorrow: two connections to one address
// can end at two servers.
type identity struct {
	run     string // the server's run_id; "" if it does not tell
	replica bool
	unknown bool // it told neither its role nor its run_id
}

var (
	// errReplica means that a server is not the primary.
	errReplica = errors.New("the server is a replica")
	// errReplaced means that the address leads to another server by now.
	errReplaced = errors.New("its address leads to another server now")
	// errMovedHere means that a server says that a slot lives at the address by
	// which we know that server itself.
	errMovedHere = errors.New("it says that the slot lives at its own address: that leads to another server now")
)

// identify asks the server at the end of a connection who it is. The error is
// the connection's; a server that refuses to answer is taken for a primary.
func identify(ctx context.Context, c rueidis.CommandClient) (identity, error) {
	results := c.DoMulti(ctx, c.B().Role().Build(), c.B().Info().Section("server").Build())
	for _, r := range results {
		if err := r.NonRedisError(); err != nil {
			return identity{}, err
		}
	}
	info, infoErr := results[1].ToString()
	id := identity{run: field(info, "run_id")}
	role, err := roleOf(results[0])
	if err != nil {
		if role, err = roleByInfo(ctx, c); err != nil {
			return identity{}, err
		}
	}
	id.replica = role != "" && role != "master"
	id.unknown = role == "" && infoErr != nil
	return id, nil
}

// isReplica asks the server at the end of a connection whether it is a replica.
// One that does not let us ask is taken for a primary.
func isReplica(ctx context.Context, c rueidis.CommandClient) (bool, error) {
	result := c.Do(ctx, c.B().Role().Build())
	if err := result.NonRedisError(); err != nil {
		return false, err
	}
	role, err := roleOf(result)
	if err != nil {
		if role, err = roleByInfo(ctx, c); err != nil {
			return false, err
		}
	}
	return role != "" && role != "master", nil
}

// roleOf reads the reply of ROLE.
func roleOf(r rueidis.RedisResult) (string, error) {
	reply, err := r.ToArray()
	if err != nil {
		return "", err
	}
	if len(reply) == 0 {
		return "", errReply
	}
	return reply[0].ToString()
}

// roleByInfo asks for the role where ROLE is refused or unknown. The role is
// "" if INFO is refused as well.
func roleByInfo(ctx context.Context, c rueidis.CommandClient) (string, error) {
	result := c.Do(ctx, c.B().Info().Section("replication").Build())
	if err := result.NonRedisError(); err != nil {
		return "", err
	}
	info, _ := result.ToString()
	return field(info, "role"), nil
}

// field reads "name:value" from the reply of INFO.
func field(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// stale says why a connection is to be made again; nil: no reason is known.
// fresh is what a connection that was made just now says; nil: none was made.
func (id identity) stale(fresh *identity) error {
	switch {
	case fresh != nil && id.run != "" && fresh.run != "" && id.run != fresh.run && !fresh.replica:
		return errReplaced
	case id.replica:
		return errReplica
	}
	return nil
}

// worthwhile reports whether making a connection again leads elsewhere.
func (id identity) worthwhile(fresh *identity) bool {
	if fresh == nil || fresh.replica {
		return false
	}
	return id.replica || id.run != "" && fresh.run != "" && id.run != fresh.run
}

// introduce asks the server who it is, on the connection that the session is
// about to subscribe on. With RESP2 the client keeps a second connection for
// subscriptions, which takes no other commands once there are some.
func (ses *session) introduce(ctx context.Context) error {
	hello := ses.conn.Do(ctx, ses.conn.B().Hello().Build())
	if err := hello.NonRedisError(); err != nil {
		return err
	}
	if about, err := hello.AsMap(); err == nil {
		proto := about["proto"]
		version, _ := proto.AsInt64()
		ses.resp3 = version >= 3
	}
	var err error
	if ses.resp3 {
		ses.id, err = identify(ctx, ses.conn)
	} else {
		ses.id, err = ses.identifyRESP2(ctx)
	}
	if err == nil && ses.id.replica {
		err = errReplica
	}
	return err
}

// identifyRESP2 is identify on the connection that the client keeps for
// subscriptions. The client gives it to the hook of a Receive, even to one that
// has subscribed to nothing since its context has ended. It takes arrays that
// come there for messages, so that there INFO has to do.
func (ses *session) identifyRESP2(ctx context.Context) (id identity, err error) {
	err = errSilent
	ask := func(_ error, c rueidis.CommandClient) error {
		results := c.DoMulti(ctx, c.B().Info().Section("server").Build(), c.B().Info().Section("replication").Build())
		if err = errors.Join(results[0].NonRedisError(), results[1].NonRedisError()); err != nil {
			return nil
		}
		server, refused := results[0].ToString()
		replication, _ := results[1].ToString()
		role := field(replication, "role")
		id = identity{run: field(server, "run_id"), replica: role != "" && role != "master", unknown: refused != nil}
		return nil
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	failed := ses.conn.Receive(rueidis.WithOnReceiveReturnHook(ended, ask),
		ses.conn.B().Subscribe().Channel("fanout:nothing").Build(), func(rueidis.PubSubMessage) {})
	if err == errSilent && failed != nil {
		err = fmt.Errorf("%w: %w", errSilent, failed)
	}
	return id, err
}

// identify asks who is at the end of the session's connection. With RESP2 it is
// what the server said at the beginning.
func (ses *session) identify(ctx context.Context) (identity, error) {
	if !ses.resp3 {
		return ses.id, nil
	}
	return identify(ctx, ses.conn)
}

// end ends the session, once; serve returns why.
func (ses *session) end(why error) {
	select {
	case ses.ended <- why:
	default:
	}
}

// check has the server asked whether it is a primary, after it has confirmed
// subscriptions. A replica takes them as if it were one, but what others publish
// need not come there, and comes in another order.
func (ses *session) check() {
	if ses.asks.Add(1) > 1 {
		return // the question that is under way is followed by another
	}
	e := ses.link.engine
	e.wg.Go(func() { // the link's goroutine is one of those that are waited for
		for {
			n := ses.asks.Load()
			ctx, cancel := ses.link.exchange()
			replica, err := ses.demoted(ctx)
			cancel()
			if err == nil && replica {
				ses.end(errReplica)
				e.topology.distrust()
				return
			}
			if ses.asks.CompareAndSwap(n, 0) {
				return
			}
		}
	})
}

// demoted reports whether the session's server is a replica. With RESP2 it
// cannot be asked there, and another connection to its address has to do.
func (ses *session) demoted(ctx context.Context) (bool, error) {
	if ses.resp3 {
		return isReplica(ctx, ses.conn)
	}
	node := ses.link.engine.client.Nodes()[ses.link.addr]
	if node == nil {
		return false, nil // the inspector looks into that
	}
	primary, err := ses.link.engine.roles.primary(ctx, ses.link.addr, node)
	return !primary, err
}
