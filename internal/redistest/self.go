package redistest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// A Self is a second process of the test program, which a test can pause and
// kill. An environment variable tells its TestMain what to do. The process ends
// when its input ends.
type Self struct {
	cmd    *exec.Cmd
	input  io.Closer
	lines  chan string // the first line of its output
	ended  chan struct{}
	guard  *guard
	errors bytes.Buffer // after ended
	once   sync.Once
}

// RunSelf starts the test program again, with a further environment variable,
// such as "NAME=value". The process is killed at the end of the test.
func RunSelf(tb testing.TB, variable string) (*Self, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &Self{cmd: exec.Command(path), lines: make(chan string, 1), ended: make(chan struct{})}
	s.cmd.Env = append(os.Environ(), variable)
	s.cmd.Stderr = &s.errors
	if s.input, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	output, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.guard = newGuard(s.cmd.Process.Pid)
	go s.wait(output) // ends with the process
	tb.Cleanup(func() { _ = s.Kill() })
	return s, nil
}

// wait passes the first line of output on, and waits for the end.
func (s *Self) wait(output io.Reader) {
	r := bufio.NewReader(output)
	if line, err := r.ReadString('\n'); err == nil {
		s.lines <- strings.TrimSpace(line)
	}
	_, _ = io.Copy(io.Discard, r)
	_ = s.cmd.Wait()
	s.guard.release()
	close(s.ended)
}

// Line returns the first line that the process writes to its standard output.
func (s *Self) Line(ctx context.Context) (string, error) {
	select {
	case line := <-s.lines:
		return line, nil
	case <-s.ended:
		return "", fmt.Errorf("the process has ended: %s", s.errors.String())
	case <-ctx.Done():
		return "", fmt.Errorf("the process says nothing: %w", context.Cause(ctx))
	}
}

// Pause stops the process until Unpause.
func (s *Self) Pause() error { return s.cmd.Process.Signal(processSignals[pause]) }

// Unpause ends a Pause.
func (s *Self) Unpause() error { return s.cmd.Process.Signal(processSignals[unpause]) }

// Kill kills the process, paused or not, and returns when it has ended. To kill
// it again has no effect.
func (s *Self) Kill() (err error) {
	s.once.Do(func() {
		err = s.cmd.Process.Signal(processSignals[kill])
		<-s.ended
		s.input.Close()
	})
	return err
}
