package redispubsub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// historySource is the one source of all that runs on servers. Functions and
// scripts are made from it.
//
//go:embed history.lua
var historySource string

// A procedure is one of the entry points of history.lua: a function where
// servers have functions, and a script where they have not.
type procedure struct {
	function string // its name
	script   string
	sha      string // of the script
}

// The names of the library and its functions contain the digest of the source,
// so that hubs of several versions can use the same servers.
var (
	libraryDigest  = sha256.Sum256([]byte(historySource))
	libraryVersion = hex.EncodeToString(libraryDigest[:4])

	appendProcedure = newProcedure("append")
	readProcedure   = newProcedure("read")
	probeProcedure  = newProcedure("probe")

	librarySource = "#!lua name=fanout_" + libraryVersion + "\n" + historySource +
		register("append", "") + register("read", "'allow-oom'") + register("probe", "'no-writes'")
)

// register returns the line that makes a function of the library.
func register(name, flags string) string {
	return fmt.Sprintf("redis.register_function{function_name = 'fanout_%s_%s', callback = %s, flags = {%s}}\n", name, libraryVersion, name, flags)
}

func newProcedure(name string) *procedure {
	p := &procedure{
		function: "fanout_" + name + "_" + libraryVersion,
		script:   historySource + "return script(" + name + ", KEYS, ARGV)\n",
	}
	sum := sha1.Sum([]byte(p.script))
	p.sha = hex.EncodeToString(sum[:])
	return p
}

// fcall returns the command that calls the function.
func (p *procedure) fcall(b rueidis.Builder, keys, args []string) rueidis.Completed {
	return b.Fcall().Function(p.function).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
}

// evalsha returns the command that runs the script. who says who the server is;
// it is empty if the script may ask.
func (p *procedure) evalsha(b rueidis.Builder, keys, args []string, who string) rueidis.Completed {
	return b.Evalsha().Sha1(p.sha).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Arg(who).Build()
}

// loadTimeout bounds loading to one node.
const loadTimeout = time.Second

// A library loads what our calls need into servers that lack it, when a call
// fails because a server is new or was flushed. A primary passes functions on
// to its replicas, and does not pass on scripts.
type library struct {
	loading chan struct{} // capacity 1: held while loading
	loads   atomic.Uint64
}

// missing reports whether a server lacks the function or script.
func missing(err error) bool { return replyKind(err) == kindNoFunction }

// load loads the functions, or the scripts, into all nodes, unless something
// has been loaded since library.loads had the given value.
func (e *Engine) load(ctx context.Context, loads uint64, functions bool) error {
	lib := &e.library
	ctx, hold := e.attempts.Bound(ctx)
	defer hold.Release()
	select {
	case lib.loading <- struct{}{}:
		defer func() { <-lib.loading }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if lib.loads.Load() != loads {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	loaded := false
	for addr, node := range e.client.Nodes() {
		wg.Go(func() {
			err := loadInto(ctx, node, functions)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				loaded = true
			case replyKind(err) == kindReadOnly: // a replica: its primary passes it on
			default:
				errs = append(errs, fmt.Errorf("loading the functions of histories to %s: %w", addr, err))
			}
		})
	}
	wg.Wait()
	if !loaded {
		return errors.Join(errs...)
	}
	lib.loads.Add(1)
	return nil
}

// loadInto loads the functions, or the scripts, into one server.
func loadInto(ctx context.Context, node rueidis.CommandClient, functions bool) error {
	if functions {
		err := resultError(node.Do(ctx, node.B().FunctionLoad().FunctionCode(librarySource).Build()))
		if replyKind(err) == kindExists {
			return nil
		}
		return err
	}
	for _, p := range []*procedure{appendProcedure, readProcedure, probeProcedure} {
		result := node.Do(ctx, node.B().ScriptLoad().Script(p.script).Build())
		if err := resultError(result); err != nil {
			return err
		}
		if sha, err := result.ToString(); err != nil || !strings.EqualFold(sha, p.sha) {
			return fmt.Errorf("SCRIPT LOAD: %w: digest %q", errReply, sha)
		}
	}
	return nil
}
