package redispubsub

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/rueidis"
)

var (
	// errReplica means that a server is not the primary.
	errReplica = errors.New("the server is a replica")
	// errReplaced means that the address leads to another server now.
	errReplaced = errors.New("its address leads to another server now")
	// errMovedHere means that a server says that a slot lives at the address
	// that we use for this server itself.
	errMovedHere = errors.New("it says that the slot lives at its own address: that leads to another server now")
)

// identify asks the server at the end of a connection for its identity. It
// fails if the connection fails; a server that refuses to answer counts as a
// primary.
func identify(ctx context.Context, c rueidis.CommandClient) (identity, error) {
	results := c.DoMulti(ctx, c.B().Role().Build(), c.B().Info().Section("server").Build())
	for _, r := range results {
		if err := r.NonRedisError(); err != nil {
			return identity{}, err
		}
	}
	info, infoErr := results[1].ToString()
	role, err := roleOf(ctx, c, results[0])
	if err != nil {
		return identity{}, err
	}
	return identity{
		run:     field(info, "run_id"),
		version: version(info),
		replica: isReplicaRole(role),
		unknown: role == "" && infoErr != nil,
	}, nil
}

// isReplica asks the server at the end of a connection whether it is a replica.
// A server that refuses to answer counts as a primary.
func isReplica(ctx context.Context, c rueidis.CommandClient) (bool, error) {
	result := c.Do(ctx, c.B().Role().Build())
	if err := result.NonRedisError(); err != nil {
		return false, err
	}
	role, err := roleOf(ctx, c, result)
	return isReplicaRole(role), err
}

// roleOf reads the result of ROLE. Where ROLE is refused or unknown it asks
// INFO. The role is "" if INFO is refused as well.
func roleOf(ctx context.Context, c rueidis.CommandClient, result rueidis.RedisResult) (string, error) {
	if reply, err := result.ToAny(); err == nil {
		if role, err := parseRole(reply); err == nil {
			return role, nil
		}
	}
	result = c.Do(ctx, c.B().Info().Section("replication").Build())
	if err := result.NonRedisError(); err != nil {
		return "", err
	}
	info, _ := result.ToString()
	return field(info, "role"), nil
}

// introduce asks the server for its identity, on the connection that the
// session is about to subscribe on. With RESP2 the client keeps a second
// connection for subscriptions, which accepts no other commands once there are
// some.
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
	switch {
	case err != nil:
		return err
	case ses.fed == nil && ses.id.replica:
		return errReplica
	case ses.fed == nil:
		return nil
	case !ses.resp3:
		return errRESP2
	}
	return ses.fed.prove(ctx)
}

// identifyRESP2 is identify on the connection that the client keeps for
// subscriptions. The client passes that connection to the hook of a Receive,
// even if the Receive has subscribed to nothing because its context has ended.
// The client treats arrays that arrive there as messages, so INFO is used
// instead of ROLE.
func (ses *session) identifyRESP2(ctx context.Context) (id identity, err error) {
	err = errSilent
	ask := func(_ error, c rueidis.CommandClient) error {
		results := c.DoMulti(ctx, c.B().Info().Section("server").Build(), c.B().Info().Section("replication").Build())
		if err = errors.Join(results[0].NonRedisError(), results[1].NonRedisError()); err != nil {
			return nil
		}
		server, refused := results[0].ToString()
		replication, _ := results[1].ToString()
		id = identity{run: field(server, "run_id"), version: version(server), replica: isReplicaRole(field(replication, "role")), unknown: refused != nil}
		return nil
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	failed := ses.conn.Receive(rueidis.WithOnReceiveReturnHook(ended, ask),
		ses.conn.B().Subscribe().Channel("fanout:nothing").Build(), func(rueidis.PubSubMessage) {})
	if errors.Is(err, errSilent) && failed != nil {
		err = fmt.Errorf("%w: %w", errSilent, failed)
	}
	return id, err
}

// identify asks for the identity of the server at the end of the session's
// connection. With RESP2 it returns what the server said when the session
// began.
func (ses *session) identify(ctx context.Context) (identity, error) {
	if !ses.resp3 {
		return ses.id, nil
	}
	return identify(ctx, ses.conn)
}
