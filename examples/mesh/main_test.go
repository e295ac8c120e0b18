package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A screen is what a process has printed.
type screen struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// Three processes know only the first of them, and hear each other. When the
// first is gone the others still do.
func TestMesh(t *testing.T) {
	const n = 3
	var listens [n]string
	var screens [n]screen
	var keyboards [n]*io.PipeWriter
	var over [n]chan error
	for i := range n {
		listens[i] = freePort(t)
		o := options{name: fmt.Sprint("p", i), listen: listens[i]}
		if i > 0 {
			o.join = listens[0]
		}
		var in *io.PipeReader
		in, keyboards[i] = io.Pipe()
		over[i] = make(chan error, 1)
		go func() { over[i] <- run(context.Background(), o, in, &screens[i]) }()
	}
	t.Cleanup(func() {
		for i := range n {
			keyboards[i].Close()
		}
	})
	// The mesh may take a moment to form, so each speaks until it is heard.
	hear := func(from int, what string, to ...int) {
		require.Eventually(t, func() bool {
			fmt.Fprintln(keyboards[from], what)
			for _, i := range to {
				if !strings.Contains(screens[i].String(), fmt.Sprintf("p%d: %s\n", from, what)) {
					return false
				}
			}
			return true
		}, 30*time.Second, 100*time.Millisecond, "p%d is heard by %v", from, to)
	}
	for i := range n {
		hear(i, "hello", 0, 1, 2)
	}
	keyboards[0].Close()
	require.NoError(t, <-over[0])
	hear(1, "still here", 1, 2)
	hear(2, "me too", 1, 2)
	for i := 1; i < n; i++ {
		keyboards[i].Close()
		require.NoError(t, <-over[i])
	}
}

func TestBadFlags(t *testing.T) {
	require.ErrorContains(t, run(t.Context(), options{}, strings.NewReader(""), io.Discard), "-name")
	require.ErrorContains(t, run(t.Context(), options{name: "me", listen: "nowhere"}, strings.NewReader(""), io.Discard), "no port")
}
