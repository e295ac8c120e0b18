package redispubsub

import "strings"

// An identity is what a server says about itself on one connection. An address
// may lead to another server later, so two connections to one address can end
// at two servers.
type identity struct {
	run     string // the server's run_id; "" if it does not tell
	version string // such as "Redis 7.0.15"; "" if it does not tell
	replica bool
	unknown bool // it told neither its role nor its run_id
}

// isReplicaRole reports whether a role is that of a replica. A server that does
// not tell its role, "", counts as a primary.
func isReplicaRole(role string) bool { return role != "" && role != "master" }

// parseRole reads the role from the reply of ROLE.
func parseRole(reply any) (string, error) {
	fields, ok := reply.([]any)
	if !ok || len(fields) == 0 {
		return "", errReply
	}
	role, ok := fields[0].(string)
	if !ok {
		return "", errReply
	}
	return role, nil
}

// field reads "name:value" from the reply of INFO; "" if it is not there.
func field(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// stale returns why a connection has to be made again; nil if no reason is
// known. fresh is the identity on a connection that was made just now; nil:
// none was made.
func (id identity) stale(fresh *identity) error {
	switch {
	case fresh != nil && id.differs(*fresh) && !fresh.replica:
		return errReplaced
	case id.replica:
		return errReplica
	}
	return nil
}

// worthwhile reports whether a new connection would lead to another server.
func (id identity) worthwhile(fresh *identity) bool {
	if fresh == nil || fresh.replica {
		return false
	}
	return id.replica || id.differs(*fresh)
}

// differs reports whether two connections are known to end at two servers.
func (id identity) differs(other identity) bool {
	return id.run != "" && other.run != "" && id.run != other.run
}
