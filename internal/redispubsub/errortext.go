package redispubsub

import (
	"strings"
	"unicode/utf8"
)

// This is the only file that contains texts of servers' errors. The rule: an
// error is final only if waiting cannot cure it. If that is not known, the
// operation is tried again.

// A kind is what the text of an error reply says.
type kind uint8

const (
	// kindOther: the text is not known.
	kindOther kind = iota
	// kindMoved: the slot is at another node.
	kindMoved
	// kindAsk: the slot is moving, and the key is at another node already.
	kindAsk
	// kindTryAgain: the slot is moving, and the keys are at two nodes.
	kindTryAgain
	// kindReadOnly: the node is a replica.
	kindReadOnly
	// kindDown: the node cannot serve commands of this type at the moment,
	// which may last.
	kindDown
	// kindMemory: the server is out of memory.
	kindMemory
	// kindNoFunction: the server does not have our functions, or scripts.
	kindNoFunction
	// kindExists: the server has our functions already.
	kindExists
	// kindBroken: our functions found keys whose contents are not ours. The
	// text says which; see brokenText.
	kindBroken
	// kindDenied: the user lacks a right. An operator can grant it, and should
	// learn about it now and not when a deadline ends.
	kindDenied
	// kindUnsupported: the server does not know the command.
	kindUnsupported
	// kindMisused: the server knows the command, and will never accept it in
	// this form: its arguments, its length, or the type of its key are wrong.
	kindMisused
)

// final reports whether trying again does not help.
func (k kind) final() bool { return k == kindDenied || k == kindUnsupported || k == kindMisused }

// changesSoon reports whether the server is likely to answer differently within
// milliseconds: at the end of a failover, and while slots move.
func (k kind) changesSoon() bool {
	return k == kindMoved || k == kindAsk || k == kindTryAgain || k == kindReadOnly || k == kindDown
}

// A rule assigns a kind to texts that begin with a string, or contain it.
type rule struct {
	text   string
	within bool // anywhere in the text
	kind   kind
}

// rules are tried in order. They have texts of Redis 6 to 8 and of Valkey,
// without the "ERR " that the client removes.
var rules = []rule{
	{"MOVED", false, kindMoved},
	{"ASK", false, kindAsk},
	{"TRYAGAIN", false, kindTryAgain},
	{"READONLY", false, kindReadOnly},
	{"CLUSTERDOWN", false, kindDown},
	{"MASTERDOWN", false, kindDown},
	{"LOADING", false, kindDown},
	{"OOM", false, kindMemory},
	{brokenPrefix, false, kindBroken},
	{"NOPERM", false, kindDenied},
	{aclFailure, false, kindDenied},                                           // from Redis 7.2 on
	{"The user executing the script can't", false, kindDenied},                // Redis 7.0
	{"unknown command", false, kindUnsupported},                               // also of a command that was renamed
	{"unknown subcommand", false, kindUnsupported},                            // from Redis 7.0 on
	{"Unknown subcommand", false, kindUnsupported},                            // before
	{"Unknown Redis command called from script", false, kindUnsupported},      // Redis
	{"Unknown command called from script", false, kindUnsupported},            // Valkey
	{"This Redis command is not allowed from script", false, kindUnsupported}, // Redis, and some services
	{"This command is not allowed from script", false, kindUnsupported},       // Valkey
	{"This instance has cluster support disabled", false, kindUnsupported},
	{"WRONGTYPE", false, kindMisused}, // another program's key
	{crossSlot, false, kindMisused},
	{"wrong number of arguments", false, kindMisused},
	{"Wrong number of args calling", false, kindMisused},
	{"syntax error", false, kindMisused},
	{"value is not an integer", false, kindMisused},
	{"Number of keys", false, kindMisused},
	{"Bad number of keys", false, kindMisused},
	{"string exceeds maximum allowed size", false, kindMisused}, // proto-max-bulk-len
	{"Protocol error", false, kindMisused},                      // likewise: invalid bulk length
	// While a slot is open a script uses a key that the call does not name (see
	// callOpen), and the node may give it away. Other calls name their keys.
	{"attempted to access a non local key", true, kindDown},
	{"attempted to access keys that do not hash to the same slot", true, kindDown},
	{"while the cluster is down", true, kindDown}, // in a script
	{"user_function:", false, kindMisused},        // a function failed, and will fail again
	{"user_script:", false, kindMisused},
	{"Error running function", false, kindMisused},
	{"Error running script", false, kindMisused},
	{"Error compiling", false, kindMisused},
	{"Script attempted to access", true, kindMisused},
	{"NOPROTO", false, kindUnsupported},
	{"Function not found", true, kindNoFunction},
	{"NOSCRIPT", false, kindNoFunction},
	{"already exists", true, kindExists},
}

// kindOf returns the kind of an error reply's text.
func kindOf(text string) kind {
	text = strings.TrimPrefix(text, "ERR ")
	for _, r := range rules {
		if strings.HasPrefix(text, r.text) || r.within && strings.Contains(text, r.text) {
			return r.kind
		}
	}
	return kindOther
}

// crossSlot is the prefix of the error reply to a command that names keys or
// channels of several slots.
const crossSlot = "CROSSSLOT"

func isCrossSlot(err error) bool { return err != nil && strings.HasPrefix(err.Error(), crossSlot) }

// brokenPrefix is the prefix of the error replies that our functions make.
const brokenPrefix = "FANOUT-BROKEN "

// brokenText returns what a reply of kindBroken says.
func brokenText(text string) string {
	text, _, _ = strings.Cut(strings.TrimPrefix(text, brokenPrefix), " script: ")
	return text
}

// begun reports whether an error reply comes from inside a script or function,
// so that the command may have had an effect.
func begun(text string) bool {
	return strings.Contains(text, "script:") || strings.Contains(text, "user_function:")
}

// aclFailure begins an error about rights that come from inside a script. It is
// followed by the words of an error that does not.
const aclFailure = "ACL failure in script: "

// maxText bounds what is quoted of an error reply, in bytes.
const maxText = 200

// redact removes from an error reply what it quotes of the command, such as
// keys and the bytes of a frame, which must not get into logs.
func redact(text string) string {
	head := ""
	if rest, is := strings.CutPrefix(text, aclFailure); is {
		head, text = aclFailure, rest
	}
	for _, tail := range []string{", with args beginning with", "script:", "Lua redis lib command arguments"} {
		if i := strings.Index(text, tail); i >= 0 {
			text = text[:i]
		}
	}
	text = head + text
	if len(text) > maxText {
		n := maxText
		for n > 0 && !utf8.RuneStart(text[n]) {
			n--
		}
		text = text[:n] + "…"
	}
	return strings.TrimSpace(strings.ToValidUTF8(text, "?"))
}

// hints say what an operator can do about errors.
var hints = []struct{ text, hint string }{
	{"NOAUTH", "the server wants a password: set Username and Password of the client's options"},
	{"WRONGPASS", "the server does not accept the user or password of the client's options"},
	{"without any password configured", "the server has no password, and the client's options have one"},
	{"invalid password", "the server does not accept the password of the client's options"},
	{"max number of clients", "the server accepts no more connections (maxclients)"},
	{"OOM", "the server has no memory for it (maxmemory)"},
	{"MISCONF", "the server cannot write to its disk"},
	{"The user executing the script can't", "the user is denied a command, key or channel that histories need: the package's doc has their rights, and Check says which are missing"},
	{"command called from script", "the server lacks a command that histories need, and Check says which"},
	{"CLUSTERDOWN", "the cluster is down, or nobody serves the slot"},
	{"LOADING", "the server is loading its data"},
	{"the slot has no redis node", "the cluster has no slots, or no node owns this one"},
	{"first record does not look like a TLS handshake", "the server does not speak TLS at this address: leave out TLSConfig, or use its TLS port"},
	{"unknown message type", "this is not a Redis server, or it expects TLS: set TLSConfig of the client's options"},
	{"cluster support disabled", "the server is not a cluster: give the client one address"},
	{"connection refused", "nothing listens at this address"},
	{"no such host", "the address cannot be resolved"},
	{"missing port in address", "an address is host:port"},
}

// hint returns the hint for the text of an error; "" if there is none.
func hint(text string) string {
	for _, h := range hints {
		if strings.Contains(text, h.text) {
			return h.hint
		}
	}
	return ""
}
