package main

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fanoutgo/fanout/internal/redistest"
)

var shared = redistest.SharedCluster(redistest.Options{Primaries: 3})

// One room of 300 people in two processes over three primaries: all people send
// a message at the same moment, and all receive all of them in one order.
func TestThreeHundredAtOnceOverACluster(t *testing.T) {
	cluster := shared(t)
	bin, addrs := build(t), addresses(t, cluster)
	processes := []*process{bin.start(addrs), bin.start(addrs)}
	const people = 300
	text := strings.Repeat("가나다라마", 30) // 150 letters, 450 bytes

	speakers := make([]*websocket.Conn, people)
	var dialing sync.WaitGroup
	for i := range speakers {
		dialing.Go(func() {
			ws, _, err := websocket.Dial(t.Context(), processes[i%2].chat.socketURL("모두의 방", fmt.Sprint(i)), nil)
			if assert.NoError(t, err) {
				t.Cleanup(func() { ws.CloseNow() })
				speakers[i] = ws
			}
		})
	}
	dialing.Wait()
	require.False(t, t.Failed())

	// Every page gets the same bytes, so their hash stands for their order.
	type heard struct {
		frames int
		hash   uint64
		err    error
	}
	seed := maphash.MakeSeed()
	results := make([]heard, people)
	var froms [people]int // how many messages of each the first one received
	cpu := processes[0].cpu() + processes[1].cpu()
	begin := make(chan struct{})
	giveUp := time.AfterFunc(time.Minute, func() {
		for _, ws := range speakers {
			ws.CloseNow()
		}
	})
	defer giveUp.Stop()
	var listening, speaking sync.WaitGroup
	for i, ws := range speakers {
		listening.Go(func() {
			var h maphash.Hash
			h.SetSeed(seed)
			r := &results[i]
			for r.frames < people {
				_, frame, err := ws.Read(context.Background())
				if err != nil {
					r.err = err
					return
				}
				if strings.HasPrefix(string(frame), `{"people":`) {
					continue
				}
				if !strings.Contains(string(frame), `"text":"`+text+`"`) {
					r.err = fmt.Errorf("after %d messages: %s", r.frames, frame)
					return
				}
				r.frames++
				h.Write(frame)
				if i == 0 {
					var m said
					if r.err = json.Unmarshal(frame, &m); r.err != nil {
						return
					}
					n, _ := strconv.Atoi(m.From)
					froms[n]++
				}
			}
			r.hash = h.Sum64()
		})
		speaking.Go(func() {
			<-begin
			assert.NoError(t, ws.Write(context.Background(), websocket.MessageText, []byte(text)))
		})
	}
	began := time.Now()
	close(begin)
	speaking.Wait()
	listening.Wait()
	took := time.Since(began)
	cpu = processes[0].cpu() + processes[1].cpu() - cpu

	deliveries := 0
	for i, r := range results {
		deliveries += r.frames
		assert.NoError(t, r.err, "page %d", i)
		assert.Equal(t, results[0].hash, r.hash, "page %d heard another order", i)
	}
	for i, n := range froms {
		assert.Equal(t, 1, n, "message of %d", i)
	}
	assert.Equal(t, people*people, deliveries)
	t.Logf("%d of %d deliveries in %v; %.2f µs of server processor time each",
		deliveries, people*people, took.Round(time.Millisecond), float64(cpu.Microseconds())/(people*people))
}

// A process that dies takes only its own pages with it, and the health of the
// other one follows the cluster down and up again.
func TestProcessDiesAndClusterStops(t *testing.T) {
	cluster := shared(t)
	bin, addrs := build(t), addresses(t, cluster)
	doomed, other := bin.start(addrs), bin.start(addrs)
	orphan := doomed.chat.dial("room", "orphan")
	a, b := other.chat.dial("room", "a"), other.chat.dial("room", "b")
	orphan.say("hello")
	for _, c := range []*client{orphan, a, b} {
		assert.Equal(t, "hello", c.next()["text"])
	}
	doomed.kill()
	orphan.ends()
	a.say("still here")
	for _, c := range []*client{a, b} {
		assert.Equal(t, "still here", c.next()["text"])
	}
	other.healthBecomes(http.StatusOK)

	for _, fault := range []struct {
		name         string
		broken, mend func(*redistest.Node, context.Context) error
	}{
		{"paused", (*redistest.Node).Pause, (*redistest.Node).Unpause},
		{"killed", (*redistest.Node).Kill, (*redistest.Node).Start},
	} {
		t.Logf("all nodes are %s", fault.name)
		for _, n := range cluster.Nodes() {
			redistest.Must(t, fault.broken(n, t.Context()))
		}
		other.healthBecomes(http.StatusServiceUnavailable)
		for _, n := range cluster.Nodes() {
			redistest.Must(t, fault.mend(n, t.Context()))
		}
		redistest.Must(t, cluster.WaitHealthy(t.Context()))
		other.healthBecomes(http.StatusOK)

		// The pages are still there, and their messages arrive again; a gap
		// says that something may have been lost meanwhile.
		a.say("after all nodes were " + fault.name)
		for _, c := range []*client{a, b} {
			for {
				m := c.next()
				if m["text"] == "after all nodes were "+fault.name {
					break
				}
				assert.Contains(t, m, "gap")
			}
		}
	}
}

// A page whose process dies resumes at another one, and a process that was not
// running when a message was published sends it to newcomers.
func TestPageGoesOnAtAnotherProcess(t *testing.T) {
	cluster := shared(t)
	bin, addrs := build(t), addresses(t, cluster)
	doomed, other := bin.start(addrs, "-history"), bin.start(addrs, "-history")
	const room = "where it was" // a name of its own, since the cluster keeps the messages of other tests
	page, speaker := doomed.chat.dial(room, "page"), other.chat.dial(room, "speaker")
	speaker.say("0")
	first := page.next()
	assert.Equal(t, first, speaker.next())
	doomed.kill()
	said := []map[string]any{first}
	for i := range 3 {
		speaker.say(fmt.Sprint(i + 1))
		said = append(said, speaker.next())
	}
	page = other.chat.resume(room, "page", first["pos"])
	newcomer := bin.start(addrs, "-history").chat.resume(room, "newcomer", "v1-0-0")
	speaker.say("4")
	said = append(said, speaker.next())
	for i, want := range said {
		assert.Equal(t, fmt.Sprint(i), want["text"])
		assert.Equal(t, want, newcomer.next())
		if i > 0 {
			assert.Equal(t, want, page.next())
		}
	}
}

// A program is the program under test, built.
type program struct {
	t    *testing.T
	path string
}

func build(t *testing.T) *program {
	t.Helper()
	b := &program{t: t, path: filepath.Join(t.TempDir(), "chat")}
	if runtime.GOOS == "windows" {
		b.path += ".exe"
	}
	out, err := exec.Command("go", "build", "-o", b.path, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return b
}

// A process is a chat process under test.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	chat *chat
}

// addresses are what the nodes announce, which a process of its own dials. If
// that is an address inside of a virtual machine, the test skips.
func addresses(t *testing.T, cluster *redistest.Cluster) []string {
	t.Helper()
	var addrs []string
	for _, n := range cluster.Nodes() {
		conn, err := net.DialTimeout("tcp", n.Addr(), 2*time.Second)
		if err != nil {
			msg := fmt.Sprintf("the cluster's nodes cannot be reached under the addresses they announce, as a process of its own needs: %v", err)
			if os.Getenv("FANOUT_REQUIRE_DOCKER") == "1" {
				t.Fatal(msg)
			}
			t.Skip(msg)
		}
		conn.Close()
		addrs = append(addrs, n.Addr())
	}
	return addrs
}

// start starts a process on a cluster and waits until it is healthy.
func (b *program) start(addrs []string, flags ...string) *process {
	b.t.Helper()
	stderr := new(output)
	flags = append([]string{"-addr", "127.0.0.1:0", "-adapter", "sharded", "-redis", strings.Join(addrs, ",")}, flags...)
	cmd := exec.Command(b.path, flags...)
	cmd.Stderr = stderr
	require.NoError(b.t, cmd.Start())
	p := &process{t: b.t, cmd: cmd}
	b.t.Cleanup(func() {
		p.kill()
		if b.t.Failed() {
			b.t.Logf("process %d:\n%s", cmd.Process.Pid, stderr)
		}
	})
	p.chat = &chat{t: b.t, url: "ws://" + stderr.address(b.t)}
	p.healthBecomes(http.StatusOK)
	return p
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

func (p *process) healthBecomes(want int) {
	p.t.Helper()
	status, body := p.chat.get("/healthz")
	for deadline := time.Now().Add(time.Minute); status != want; status, body = p.chat.get("/healthz") {
		require.True(p.t, time.Now().Before(deadline), "health stays %d: %s", status, body)
		time.Sleep(50 * time.Millisecond)
	}
	p.t.Logf("health is %d: %s", want, strings.TrimSpace(body))
}

// cpu is the processor time that the process has used, where /proc has it.
func (p *process) cpu() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	// The name in parentheses may contain anything; user and system time are
	// the 12th and 13th field after it, in hundredths of a second.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}
