package redispubsub

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"unicode/utf8"

	"github.com/fanoutgo/fanout"
	"github.com/redis/rueidis"
)

// This file decides what an error means. The rule: an error is final only if
// waiting cannot cure it. What is not known to be final is worth another try,
// so a text that no server of today sends is tried again.

// A verdict says what an answer of a server means for the caller.
type verdict uint8

const (
	// passing: the next try may succeed.
	passing verdict = iota
	// denied: the user lacks a right. It can be granted, but by an operator,
	// who should hear of it now and not when a deadline ends.
	denied
	// unsupported: the server does not know the command.
	unsupported
	// misused: the server knows the command, and will never take it in this
	// form: its arguments, its length, or the type of its key are wrong.
	misused
)

// A rule gives a verdict to the texts that contain a string, or begin with it.
type rule struct {
	text    string
	within  bool // anywhere in the text
	verdict verdict
}

// rules are tried in their order. They know texts of Redis 6 to 8 and of
// Valkey, without the "ERR " that the client takes away.
var rules = []rule{
	{"NOPERM", false, denied},
	{"ACL failure in script", false, denied},                              // from Redis 7.2 on
	{"The user executing the script can't", false, denied},                // Redis 7.0
	{"unknown command", false, unsupported},                               // also of a command that was renamed
	{"unknown subcommand", false, unsupported},                            // from Redis 7.0 on
	{"Unknown subcommand", false, unsupported},                            // before
	{"Unknown Redis command called from script", false, unsupported},      // Redis
	{"Unknown command called from script", false, unsupported},            // Valkey
	{"This Redis command is not allowed from script", false, unsupported}, // Redis, and some services
	{"This command is not allowed from script", false, unsupported},       // Valkey
	{"This instance has cluster support disabled", false, unsupported},    //
	{"WRONGTYPE", false, misused},                                         // another program's key
	{"CROSSSLOT", false, misused},                                         //
	{"wrong number of arguments", false, misused},                         //
	{"Wrong number of args calling", false, misused},                      //
	{"syntax error", false, misused},                                      //
	{"value is not an integer", false, misused},                           //
	{"Number of keys", false, misused},                                    //
	{"Bad number of keys", false, misused},                                //
	{"string exceeds maximum allowed size", false, misused},               // proto-max-bulk-len
	{"Protocol error", false, misused},                                    // likewise: invalid bulk length
	{"user_function:", false, misused},                                    // a function fails: it will again
	{"user_script:", false, misused},                                      //
	{"Error running function", false, misused},                            //
	{"Error running script", false, misused},                              //
	{"Error compiling", false, misused},                                   //
	{"Script attempted to access", true, misused},                         //
	{"NOPROTO", false, unsupported},                                       //
}

// judge gives the verdict on an error reply.
func judge(text string) verdict {
	text = strings.TrimPrefix(text, "ERR ")
	for _, r := range rules {
		if strings.HasPrefix(text, r.text) || r.within && strings.Contains(text, r.text) {
			return r.verdict
		}
	}
	return passing
}

// begun reports whether an error reply comes from within a script or function,
// so that it may have done something.
func begun(text string) bool {
	return strings.Contains(text, "script:") || strings.Contains(text, "user_function:")
}

// hasty are the codes of answers that change within milliseconds: those at the
// end of a failover, and while slots move.
var hasty = []string{"MOVED", "ASK", "CLUSTERDOWN", "TRYAGAIN", "LOADING", "MASTERDOWN", "READONLY"}

func isHasty(text string) bool {
	for _, code := range hasty {
		if strings.HasPrefix(text, code) {
			return true
		}
	}
	return false
}

// maxText bounds what is quoted of an error reply, in bytes.
const maxText = 200

// redact cuts from an error reply what it quotes of the command, such as keys
// and the bytes of a frame: they are nobody's business in a log.
func redact(text string) string {
	for _, tail := range []string{", with args beginning with", "script:", "Lua redis lib command arguments"} {
		if i := strings.Index(text, tail); i >= 0 {
			text = text[:i]
		}
	}
	if len(text) > maxText {
		n := maxText
		for n > 0 && !utf8.RuneStart(text[n]) {
			n--
		}
		text = text[:n] + "…"
	}
	return strings.TrimSpace(strings.ToValidUTF8(text, "?"))
}

// An answer is an error reply without what it quotes.
type answer struct{ reply *rueidis.RedisError }

func (a *answer) Error() string { return redact(a.reply.Error()) }
func (a *answer) Unwrap() error { return a.reply }

// clean returns err, without what an error reply in it quotes.
func clean(err error) error {
	var a *answer
	re := redisError(err)
	switch {
	case re == nil, errors.As(err, &a):
		return err
	case err == error(re):
		return &answer{re}
	}
	return &connectionError{&answer{re}} // of a handshake, wrapped
}

// A connectionError is an error reply to the handshake of a connection, or to
// the client's question who owns the slots. It says nothing about the command
// for which the client needed the connection.
type connectionError struct{ err error }

func (c *connectionError) Error() string { return "connecting: " + c.err.Error() }
func (c *connectionError) Unwrap() error { return c.err }

// resultError returns the error of a result. The client hands out the error
// reply to a handshake as if it were the reply to the command, but for its
// place in the result.
func resultError(r rueidis.RedisResult) error {
	if err := r.NonRedisError(); err != nil {
		if re := redisError(err); re != nil {
			failed := error(&connectionError{&answer{re}})
			if errors.Is(err, fanout.ErrUnsent) {
				failed = fmt.Errorf("%w: %w", failed, fanout.ErrUnsent)
			}
			return failed
		}
		return err
	}
	if err := r.Error(); err != nil {
		return clean(err)
	}
	return nil
}

// redisError returns the server's own answer that an error is, or wraps; nil if
// there is none.
func redisError(err error) *rueidis.RedisError {
	var re *rueidis.RedisError
	if errors.As(err, &re) && re != rueidis.Nil {
		return re
	}
	return nil
}

// A finding is what an error means for a command.
type finding struct {
	final  bool // trying again does not cure it
	unsent bool // the command has had no effect
	why    string
}

// examine says what an error means for the command that it is the result of.
func examine(err error) finding {
	var op *net.OpError
	var handshake *connectionError
	switch {
	case errors.As(err, &handshake):
		return finding{unsent: true, why: hint(err)}
	case redisError(err) != nil:
		text := redisError(err).Error()
		return finding{final: judge(text) != passing, unsent: !begun(text), why: hint(err)}
	case errors.Is(err, rueidis.ErrClosing):
		return finding{final: true, unsent: true, why: "the client is closed"}
	case errors.Is(err, rueidis.ErrNoSlot), errors.As(err, &op) && op.Op == "dial", errors.Is(err, rueidis.ErrNoCache), isTLS(err):
		return finding{unsent: true, why: hint(err)}
	}
	return finding{}
}

// isTLS reports whether TLS could not be agreed upon.
func isTLS(err error) bool {
	var record tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	return errors.As(err, &record) || errors.As(err, &certificate) || errors.As(err, &authority) || errors.As(err, &host)
}

// hints say what an operator may do about errors.
var hints = []struct{ text, hint string }{
	{"NOAUTH", "the server wants a password: set Username and Password of the client's options"},
	{"WRONGPASS", "the server does not take the user or password of the client's options"},
	{"without any password configured", "the server has no password, and the client's options have one"},
	{"invalid password", "the server does not take the password of the client's options"},
	{"max number of clients", "the server takes no more connections (maxclients)"},
	{"OOM", "the server has no memory for it (maxmemory)"},
	{"MISCONF", "the server cannot write to its disk"},
	{"CLUSTERDOWN", "the cluster is down, or nobody serves the slot"},
	{"LOADING", "the server is loading its data"},
	{"the slot has no redis node", "the cluster has no slots, or no node owns this one"},
	{"first record does not look like a TLS handshake", "the server does not speak TLS at this address: leave out TLSConfig, or use its TLS port"},
	{"unknown message type", "this is no Redis server, or it expects TLS: set TLSConfig of the client's options"},
	{"cluster support disabled", "the server is no cluster: give the client one address"},
	{"connection refused", "nothing listens at this address"},
	{"no such host", "the address cannot be resolved"},
	{"missing port in address", "an address is host:port"},
}

// hint says in the words of an operator what an error means; "" if its text is
// all there is to say.
func hint(err error) string {
	text := err.Error()
	for _, h := range hints {
		if strings.Contains(text, h.text) {
			return h.hint
		}
	}
	return ""
}

// explain puts the hint for an error before it.
func explain(err error) error {
	if err == nil {
		return nil
	}
	err = clean(err)
	if why := hint(err); why != "" {
		return fmt.Errorf("%s: %w", why, err)
	}
	return err
}

// classify tells the hub what it may conclude from an error.
func (e *Engine) classify(what string, err error) error { return e.conclusion(what, "", err) }

// classifyCall is classify for a function of the history.
func (e *Engine) classifyCall(what string, err error) error {
	why := ""
	switch re := redisError(err); {
	case re == nil:
	case missing(err): // they have been flushed just now, or the node is not known to us
		return fmt.Errorf("%s: %s: %w: %w", e.cfg.Name, what, fanout.ErrUnsent, clean(err))
	case judge(re.Error()) == unsupported:
		why = "a history needs Redis 7.0 or later, or Valkey, with functions"
	case strings.HasPrefix(re.Error(), "OOM"):
		why = "the server has no memory for the history"
	}
	err = e.conclusion(what, why, err)
	e.refusals.note(err)
	return err
}

// conclusion wraps an error with what the hub may conclude from it, and with
// why if there is something to say.
func (e *Engine) conclusion(what, why string, err error) error {
	f := examine(err)
	if why == "" {
		why = f.why
	}
	prefix := fmt.Sprintf("%s: %s", e.cfg.Name, what)
	if why != "" {
		prefix += ": " + why
	}
	err = clean(err)
	switch {
	case f.final && f.unsent:
		return fmt.Errorf("%s: %w: %w: %w", prefix, fanout.ErrRefused, fanout.ErrUnsent, err)
	case f.final:
		return fmt.Errorf("%s: %w: %w", prefix, fanout.ErrRefused, err)
	case f.unsent:
		return fmt.Errorf("%s: %w: %w", prefix, fanout.ErrUnsent, err)
	}
	return fmt.Errorf("%s: %w", prefix, err)
}

// subscribeError is why a subscription is refused.
func (e *Engine) subscribeError(channel, addr string, err error) error {
	why := ""
	if need := e.mode.requirement(); need != "" && judge(redisError(err).Error()) == unsupported {
		why = need + ": "
	}
	return fmt.Errorf("%s: subscribing to %s at %s: %s%w: %w", e.cfg.Name, channel, addr, why, fanout.ErrRefused, clean(err))
}
