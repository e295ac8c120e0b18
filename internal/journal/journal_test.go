package journal

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// A handler remembers lines, once it is let go on.
type handler struct {
	gate   chan struct{} // nil: it does not wait
	before func(line string)

	mu    sync.Mutex
	lines []string
}

func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (h *handler) WithAttrs([]slog.Attr) slog.Handler           { return h }
func (h *handler) WithGroup(string) slog.Handler                { return h }

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	if h.gate != nil {
		<-h.gate
	}
	line := r.Level.String() + " " + r.Message
	if h.before != nil {
		h.before(line)
	}
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, line)
	return nil
}

func (h *handler) all() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.lines)
}

func TestJournal(t *testing.T) {
	test := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
	}
	test("writes lines in order", func(t *testing.T) {
		h := new(handler)
		j := New(slog.New(h), "x: ", "lines dropped")
		j.Info("one", "n", 1)
		j.Warn("two")
		j.Error("three")
		<-j.Stop()
		require.Equal(t, []string{"INFO x: one n=1", "WARN x: two", "ERROR x: three"}, h.all())
		j.Error("after the end")
		synctest.Wait()
		require.Len(t, h.all(), 3)
	})
	test("waits for no Logger, and counts what it drops", func(t *testing.T) {
		h := &handler{gate: make(chan struct{})}
		j := New(slog.New(h), "", "lines dropped")
		for n := range maxLines + 11 {
			j.Info(fmt.Sprint(n))
			if n == 0 {
				synctest.Wait() // the goroutine has taken the first
			}
		}
		close(h.gate)
		<-j.Stop()
		lines := h.all()
		require.Len(t, lines, maxLines+2)
		require.Equal(t, "WARN lines dropped lines=10", lines[maxLines+1])
	})
	test("stops at once if there is nothing to write", func(t *testing.T) {
		<-New(slog.New(new(handler)), "", "").Stop()
	})
	for name, fail := range map[string]func(){"panics": func() { panic("x") }, "ends its goroutine": runtime.Goexit} {
		test("survives a Logger that "+name, func(t *testing.T) {
			h := &handler{before: func(line string) {
				if strings.Contains(line, "bad") {
					fail()
				}
			}}
			j := New(slog.New(h), "", "lines dropped")
			j.Info("bad")
			j.Info("good")
			<-j.Stop()
			require.Equal(t, []string{"INFO good"}, h.all())
		})
	}
	test("says where a line comes from", func(t *testing.T) {
		var file string
		h := new(handler)
		j := New(slog.New(sourceHandler{h, &file}), "", "")
		j.Info("here")
		<-j.Stop()
		require.True(t, strings.HasSuffix(file, "journal_test.go"), file)
	})
}

type sourceHandler struct {
	*handler
	file *string
}

func (h sourceHandler) Handle(_ context.Context, r slog.Record) error {
	frame, _ := runtime.CallersFrames([]uintptr{r.PC}).Next()
	*h.file = frame.File
	return nil
}
