package redispubsub

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/redis/rueidis"
)

// An answer is an error reply without the parts of the command that it quotes.
type answer struct{ reply *rueidis.RedisError }

func (a *answer) Error() string { return redact(a.reply.Error()) }
func (a *answer) Unwrap() error { return a.reply }

// clean removes what an error reply in err quotes of the command.
func clean(err error) error {
	var a *answer
	re := redisError(err)
	switch {
	case re == nil, errors.As(err, &a):
		return err
	case any(err) == any(re): // the reply itself, not an error that wraps it
		return &answer{re}
	}
	return &connectionError{&answer{re}} // wrapped: it is the reply to a handshake
}

// A connectionError is an error reply to the handshake of a connection, or to
// the client's CLUSTER SLOTS. It says nothing about the command for which the
// client needed the connection.
type connectionError struct{ err error }

func (c *connectionError) Error() string { return "connecting: " + c.err.Error() }
func (c *connectionError) Unwrap() error { return c.err }

// resultError returns the error of a result. The client returns the error reply
// to a handshake as if it were the reply to the command, but in a different
// place of the result.
func resultError(r rueidis.RedisResult) error {
	if err := r.NonRedisError(); err != nil {
		if re := redisError(err); re != nil {
			failed := error(&connectionError{&answer{re}})
			if errors.Is(err, adapter.ErrUnsent) {
				failed = adapter.Unsent(failed)
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

// redisError returns the error reply that err is or wraps; nil if there is
// none.
func redisError(err error) *rueidis.RedisError {
	var re *rueidis.RedisError
	if errors.As(err, &re) && re != rueidis.Nil {
		return re
	}
	return nil
}

// replyKind returns the kind of the error reply that err is or wraps.
func replyKind(err error) kind {
	if re := redisError(err); re != nil {
		return kindOf(re.Error())
	}
	return kindOther
}

// A finding is what an error means for a command.
type finding struct {
	final  bool   // trying again does not help
	unsent bool   // the command has had no effect
	why    string // a hint; "": none is needed
}

// examine returns what an error means for the command that failed with it.
func examine(err error) finding {
	var op *net.OpError
	var handshake *connectionError
	switch {
	case errors.As(err, &handshake):
		return finding{unsent: true, why: hint(err.Error())}
	case redisError(err) != nil:
		text := redisError(err).Error()
		return finding{final: kindOf(text).final(), unsent: !begun(text), why: hint(err.Error())}
	case errors.Is(err, rueidis.ErrClosing):
		return finding{final: true, unsent: true, why: "the client is closed"}
	case errors.Is(err, rueidis.ErrNoSlot), errors.As(err, &op) && op.Op == "dial", errors.Is(err, rueidis.ErrNoCache), isTLS(err):
		return finding{unsent: true, why: hint(err.Error())}
	}
	return finding{}
}

// isTLS reports whether the TLS handshake failed.
func isTLS(err error) bool {
	var record tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	return errors.As(err, &record) || errors.As(err, &certificate) || errors.As(err, &authority) || errors.As(err, &host)
}

// explain puts a hint before an error, if there is one for it.
func explain(err error) error {
	if err == nil {
		return nil
	}
	err = clean(err)
	if why := hint(err.Error()); why != "" {
		return fmt.Errorf("%s: %w", why, err)
	}
	return err
}

// classify wraps an error of a publish with what the hub may conclude from it.
func (e *Engine) classify(what string, err error) error {
	why := ""
	if replyKind(err) == kindUnsupported {
		why = e.mode.requirement()
	}
	return e.conclusion(what, why, err)
}

// classifyCall is classify for a function of the history.
func (e *Engine) classifyCall(what string, err error) error {
	why := ""
	switch replyKind(err) {
	case kindNoFunction: // they have been flushed just now, or the node is not known to us
		return adapter.Unsent(fmt.Errorf("%s: %s: %w", e.cfg.Name, what, clean(err)))
	case kindUnsupported:
		if why = hint(redisError(err).Error()); why == "" {
			why = "a history needs Redis 7.0 or later, or Valkey, with FCALL or EVALSHA"
		}
	case kindMemory:
		why = "the server has no memory for the history"
	}
	err = e.conclusion(what, why, err)
	e.refusals.note(err)
	return err
}

// conclusion is classify with a hint, why, that precedes the hint for the error
// itself.
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
		return adapter.Unsent(fmt.Errorf("%s: %w: %w", prefix, adapter.ErrRefused, err))
	case f.final:
		return fmt.Errorf("%s: %w: %w", prefix, adapter.ErrRefused, err)
	case f.unsent:
		return adapter.Unsent(fmt.Errorf("%s: %w", prefix, err))
	}
	return fmt.Errorf("%s: %w", prefix, err)
}

// subscribeError returns the error of a subscription that is refused.
func (e *Engine) subscribeError(channel, addr string, err error) error {
	why := ""
	if need := e.mode.requirement(); need != "" && replyKind(err) == kindUnsupported {
		why = need + ": "
	}
	return fmt.Errorf("%s: subscribing to %s at %s: %s%w: %w", e.cfg.Name, channel, addr, why, adapter.ErrRefused, clean(err))
}
