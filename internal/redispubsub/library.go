package redispubsub

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

//go:embed history.lua
var historySource string

// The names of the library and its functions contain its digest, so that hubs
// of several versions can use the same servers.
var (
	libraryDigest  = sha256.Sum256([]byte(historySource))
	libraryVersion = hex.EncodeToString(libraryDigest[:4])
	appendFunction = "fanout_append_" + libraryVersion
	readFunction   = "fanout_read_" + libraryVersion
	librarySource  = "#!lua name=fanout_" + libraryVersion + "\n" + strings.ReplaceAll(historySource, "VERSION", libraryVersion)
)

// loadTimeout bounds loading to one node.
const loadTimeout = time.Second

// A library loads our functions into servers that lack them, when a call fails
// because a server is new or was flushed. A primary passes functions on to its
// replicas.
type library struct {
	loading chan struct{} // capacity 1: held while loading
	loads   atomic.Uint64
}

// missing reports whether a server lacks our functions.
func missing(err error) bool { return replyKind(err) == kindNoFunction }

// load loads the functions into all nodes, unless that has been done since
// library.loads had the given value.
func (e *Engine) load(ctx context.Context, loads uint64) error {
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
			err := resultError(node.Do(ctx, node.B().FunctionLoad().FunctionCode(librarySource).Build()))
			mu.Lock()
			defer mu.Unlock()
			switch kind := replyKind(err); {
			case err == nil, kind == kindExists:
				loaded = true
			case kind == kindReadOnly: // a replica: its primary passes it on
			default:
				errs = append(errs, fmt.Errorf("loading functions to %s: %w", addr, err))
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
