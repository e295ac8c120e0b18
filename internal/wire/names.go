package wire

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxRoom is the length of the longest room name, in bytes.
const MaxRoom = 255

// DefaultPrefix begins all channel names unless another is given.
const DefaultPrefix = "fanout"

// CheckRoom returns what is wrong with a room name, or nil.
func CheckRoom(name string) error {
	switch {
	case name == "":
		return errors.New("it is empty")
	case len(name) > MaxRoom:
		return fmt.Errorf("it is %d bytes long, at most %d are allowed", len(name), MaxRoom)
	case !utf8.ValidString(name):
		return errors.New("it is not valid UTF-8")
	}
	return nil
}

// CheckPrefix returns what is wrong with a prefix of channel names, or nil.
func CheckPrefix(prefix string) error {
	switch {
	case prefix == "" || len(prefix) > 64:
		return fmt.Errorf("it is %d bytes long, 1 to 64 are allowed", len(prefix))
	case !utf8.ValidString(prefix):
		return errors.New("it is not valid UTF-8")
	case strings.ContainsAny(prefix, "{}"):
		return errors.New("it contains a brace, which would change the Redis hash slot")
	}
	return nil
}

// Names forms the names of channels. The kind of a channel is outside the hash
// tag and the name inside. So everything that belongs to a room shares a slot,
// and no room can have a name that makes its channel another one's.
type Names struct{ Prefix string }

// Room is the channel of a room.
func (n Names) Room(room string) string { return n.Prefix + ":r:{" + escape(room) + "}" }

// User is the channel of a user, whose names follow the rules of rooms' names.
func (n Names) User(user string) string { return n.Prefix + ":u:{" + escape(user) + "}" }

// UserOf returns the user whose channel it is, if it is one's.
func (n Names) UserOf(channel string) (user string, ok bool) {
	tag, ok := strings.CutPrefix(channel, n.Prefix+":u:{")
	if !ok {
		return "", false
	}
	tag, ok = strings.CutSuffix(tag, "}")
	return unescaper.Replace(tag), ok
}

// Inbox is the channel of a hub for messages to its members.
func (n Names) Inbox(hub string) string { return n.Prefix + ":i:{" + hub + "}" }

// Everyone is the channel that all hubs listen to.
func (n Names) Everyone() string { return n.Prefix + ":a:{everyone}" }

var escaper = strings.NewReplacer("%", "%25", "{", "%7B", "}", "%7D")

var unescaper = strings.NewReplacer("%25", "%", "%7B", "{", "%7D", "}")

// escape replaces what would end the hash tag, and the escape sign.
func escape(room string) string { return escaper.Replace(room) }
