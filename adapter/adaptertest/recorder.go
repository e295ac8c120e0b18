package adaptertest

import (
	"fmt"
	"strings"
	"sync"

	"github.com/fanoutgo/fanout/adapter"
)

// A recorder is a HistoryReceiver that records its calls, and whether they
// overlap.
type recorder struct {
	mu   sync.Mutex
	logs map[string]*record
}

// A record is what was received on one channel.
type record struct {
	told     []event
	seen     map[string]int // how often each frame arrived
	inside   int            // calls that are running
	waiting  int            // of these, calls that wait for gate
	overlaps int            // calls that began while another was running
	gate     chan struct{}  // calls wait for it if it is not nil
}

// An event is one call of the receiver.
type event struct {
	kind  byte // 'f', 'i', 'm', 'r': a frame, interrupted, moving, restored
	frame string
	kept  []byte           // the frame itself, not a copy
	at    adapter.Position // of a frame that is kept
}

func (v event) String() string {
	switch v.kind {
	case 'i':
		return "interrupted"
	case 'm':
		return "moving"
	case 'r':
		return "restored"
	}
	if !v.at.IsZero() {
		return fmt.Sprintf("frame %s at %v", clip(v.frame), v.at)
	}
	return "frame " + clip(v.frame)
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}

func newRecorder() *recorder { return &recorder{logs: make(map[string]*record)} }

func (r *recorder) Receive(channel string, frame []byte) {
	r.call(channel, event{kind: 'f', frame: string(frame), kept: frame})
}

func (r *recorder) ReceiveKept(channel string, f adapter.KeptFrame) {
	r.call(channel, event{kind: 'f', frame: string(f.Frame), kept: f.Frame, at: f.At})
}
func (r *recorder) Interrupted(channel string) { r.call(channel, event{kind: 'i'}) }
func (r *recorder) Moving(channel string)      { r.call(channel, event{kind: 'm'}) }
func (r *recorder) Restored(channel string)    { r.call(channel, event{kind: 'r'}) }

func (r *recorder) call(channel string, v event) {
	r.mu.Lock()
	l := r.logLocked(channel)
	l.told = append(l.told, v)
	if v.kind == 'f' {
		l.seen[v.frame]++
	}
	if l.inside > 0 {
		l.overlaps++
	}
	l.inside++
	gate := l.gate
	if gate != nil {
		l.waiting++
	}
	r.mu.Unlock()

	if gate != nil {
		<-gate
	}

	r.mu.Lock()
	if gate != nil {
		l.waiting--
	}
	l.inside--
	r.mu.Unlock()
}

func (r *recorder) logLocked(channel string) *record {
	l := r.logs[channel]
	if l == nil {
		l = &record{seen: make(map[string]int)}
		r.logs[channel] = l
	}
	return l
}

// hold makes the next calls for the channel wait until release is called.
func (r *recorder) hold(channel string) (release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	gate := make(chan struct{})
	r.logLocked(channel).gate = gate
	return sync.OnceFunc(func() {
		r.mu.Lock()
		r.logLocked(channel).gate = nil
		r.mu.Unlock()
		close(gate)
	})
}

// held reports whether a call for the channel is waiting to be released. A call
// that began before hold does not wait.
func (r *recorder) held(channel string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.logLocked(channel).waiting > 0
}

// overlapped returns how many calls began while another one was running.
func (r *recorder) overlapped(channel string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.logLocked(channel).overlaps
}

// calls returns how many calls there were for the channel, including probes.
func (r *recorder) calls(channel string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.logLocked(channel).told)
}

// count returns how often the frame arrived.
func (r *recorder) count(channel, frame string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.logLocked(channel).seen[frame]
}

// events returns all calls for the channel.
func (r *recorder) events(channel string) []event {
	r.mu.Lock()
	defer r.mu.Unlock()
	told := r.logLocked(channel).told
	return told[:len(told):len(told)]
}

// frames returns the frames of the channel without probes.
func (r *recorder) frames(channel string) []string {
	var frames []string
	for _, v := range r.events(channel) {
		if v.kind == 'f' && !strings.HasPrefix(v.frame, probe) {
			frames = append(frames, v.frame)
		}
	}
	return frames
}

// kept returns the frames of the channel that came with a position.
func (r *recorder) kept(channel string) []adapter.KeptFrame {
	var frames []adapter.KeptFrame
	for _, v := range r.events(channel) {
		if v.kind == 'f' && !v.at.IsZero() {
			frames = append(frames, adapter.KeptFrame{At: v.at, Frame: v.kept})
		}
	}
	return frames
}

// notices returns the calls of Interrupted, Moving and Restored as a string of
// the letters i, m and r.
func (r *recorder) notices(channel string) string {
	var word []byte
	for _, v := range r.events(channel) {
		if v.kind != 'f' {
			word = append(word, v.kind)
		}
	}
	return string(word)
}
