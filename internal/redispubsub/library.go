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

// The library has its own digest in its name and in those of its functions, so
// that hubs of several versions get on with each other.
var (
	libraryDigest  = sha256.Sum256([]byte(historySource))
	libraryVersion = hex.EncodeToString(libraryDigest[:4])
	appendFunction = "fanout_append_" + libraryVersion
	readFunction   = "fanout_read_" + libraryVersion
	librarySource  = "#!lua name=fanout_" + libraryVersion + "\n" + strings.ReplaceAll(historySource, "VERSION", libraryVersion)
)

// loadTimeout bounds loading to one node.
const loadTimeout = time.Second

// A library sees to it that the servers have our functions. A primary passes
// them on to its replicas; a server that is fresh, or was flushed, gets them when
// it turns out not to have them.
type library struct {
	loading chan struct{} // capacity 1: held while loading
	loads   atomic.Uint64
}

// missing reports whether a server lacks our functions.
func missing(err error) bool {
	re := redisError(err)
	return re != nil && strings.Contains(re.Error(), "Function not found")
}

// load gives the functions to all nodes, unless somebody has since loads was as
// given.
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
			switch re := redisError(err); {
			case err == nil, re != nil && strings.Contains(re.Error(), "already exists"):
				loaded = true
			case re != nil && strings.HasPrefix(re.Error(), "READONLY"): // a replica: its primary passes it on
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
