package redistest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// keptIdle is how long servers are kept that no test uses.
const keptIdle = 10 * time.Second

type shareable interface {
	Repair(context.Context) error
	Close() error
}

// A sharing is a cluster or server that tests share. It runs while tests use
// it, and for keptIdle after that.
type sharing[T shareable] struct {
	start func(context.Context) (T, error)

	mu      sync.Mutex // guards all below, and is held while servers start and close
	servers T
	running bool
	failed  error // of a start; nothing is started after it
	users   int
	idle    *time.Timer // nil, or it closes the servers
	closing error       // what closing them has failed with
}

// shared are all sharings, which Main closes.
var shared struct {
	sync.Mutex
	closers []func() error
}

func share[T shareable](start func(context.Context) (T, error)) func(testing.TB) T {
	s := &sharing[T]{start: start}
	shared.Lock()
	defer shared.Unlock()
	shared.closers = append(shared.closers, s.close)
	return s.get
}

// closeShared closes all servers that are shared.
func closeShared() error {
	shared.Lock()
	defer shared.Unlock()
	var errs []error
	for _, c := range shared.closers {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// get gives a test the servers until it ends.
func (s *sharing[T]) get(tb testing.TB) T {
	tb.Helper()
	servers, err := s.acquire()
	Must(tb, err)
	tb.Cleanup(func() {
		if err := s.release(); err != nil {
			tb.Errorf("repair the servers after the test: %v", err)
		}
	})
	return servers
}

func (s *sharing[T]) acquire() (servers T, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return servers, s.failed
	}
	if !s.running {
		if s.servers, s.failed = s.start(context.Background()); s.failed != nil { // it outlives the test
			return servers, s.failed
		}
		s.running = true
	}
	s.users++
	return s.servers, nil
}

// release repairs the servers that acquire returned, and gives them up.
func (s *sharing[T]) release() error {
	err := s.servers.Repair(context.Background())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.users > 0 {
		return err
	}
	if s.idle != nil {
		s.idle.Stop()
	}
	var idle *time.Timer
	idle = time.AfterFunc(keptIdle, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.users == 0 && s.idle == idle {
			s.end()
		}
	})
	s.idle = idle
	return err
}

// end closes the servers if they run. The caller holds mu.
func (s *sharing[T]) end() {
	if s.running {
		s.running = false
		s.closing = errors.Join(s.closing, s.servers.Close())
	}
}

// close ends the sharing.
func (s *sharing[T]) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle != nil {
		s.idle.Stop()
	}
	s.end()
	return s.closing
}
