package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A program is a chat server, which can be started any number of times.
type program struct {
	name    string
	command []string
	dialect dialect
}

// with returns the program with more flags.
func (p *program) with(flags ...string) *program {
	other := *p
	other.command = append(slices.Clone(p.command), flags...)
	return &other
}

// A process is a running program.
type process struct {
	cmd     *exec.Cmd
	addr    string        // where it listens
	drained chan struct{} // closed when its stderr is closed
}

// listening matches what a program logs when it is ready.
var listening = regexp.MustCompile(`listening addr=(\S+)`)

// start starts a process of the program and waits until it listens. The caller
// stops it.
func (p *program) start(ctx context.Context) (*process, error) {
	return p.startWith(ctx, func(*exec.Cmd) {})
}

// startWith is start with a command that was prepared.
func (p *program) startWith(ctx context.Context, prepare func(*exec.Cmd)) (*process, error) {
	cmd := exec.CommandContext(ctx, p.command[0], p.command[1:]...)
	prepare(cmd)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	giveUp := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	defer giveUp.Stop()
	var said strings.Builder
	lines := bufio.NewReader(stderr)
	for {
		line, err := lines.ReadString('\n')
		said.WriteString(line)
		if m := listening.FindStringSubmatch(line); m != nil {
			running := &process{cmd: cmd, addr: m[1], drained: make(chan struct{})}
			go func() { // until stop
				io.Copy(io.Discard, lines)
				close(running.drained)
			}()
			return running, nil
		}
		if err != nil {
			cmd.Process.Kill()
			cmd.Wait()
			return nil, fmt.Errorf("%s did not start; it said:\n%s", p.name, said.String())
		}
	}
}

// stop kills the process, after its clients have gone.
func (p *process) stop() {
	p.cmd.Process.Kill()
	<-p.drained
	p.cmd.Wait()
}

// preciseCPU returns the processor time that the threads of the process have
// used that there are now.
func (p *process) preciseCPU() (sum time.Duration, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		return p.cpu()
	}
	for _, thread := range threads {
		text, err := os.ReadFile(thread)
		if errors.Is(err, os.ErrNotExist) { // it has ended meanwhile
			continue
		}
		if err != nil {
			return 0, err
		}
		running, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(running, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

// cpu returns the processor time that the process has used, to some hundredths
// of a second.
func (p *process) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may contain anything. User and system time are
	// the 12th and 13th field after it, in hundredths of a second.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("processor time of %d: %s", p.cmd.Process.Pid, stat)
	}
	return time.Duration(user+system) * 10 * time.Millisecond, nil
}
