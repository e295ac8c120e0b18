package replay

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/fanoutgo/fanout/internal/scripttest"
	"github.com/stretchr/testify/require"
)

// The scripts in testdata say what they mean in testdata/README.
func TestScripts(t *testing.T) { scripttest.Run(t, play) }

// A player plays a script: each case begins with a new room.
type player struct {
	*testing.T
	store   Store[message]
	log     Log
	keep    adapter.Retention
	window  Window
	now     int64
	members map[string]*Replay[message]
	waiting map[string]*Request[message]
	page    *Page[message]
	listing *Listing[message]
	lines   []string
}

func play(t *testing.T, script string) string {
	p := &player{T: t, lines: strings.Split(strings.TrimSuffix(script, "\n"), "\n")}
	var out strings.Builder
	for len(p.lines) > 0 {
		line := p.lines[0]
		p.lines = p.lines[1:]
		step, _, _ := strings.Cut(line, "=>")
		step = strings.TrimSpace(step)
		switch {
		case strings.HasPrefix(step, "# "):
			p.reset()
		case step != "" && !strings.HasPrefix(step, "//"):
			line = step
			if got := p.step(strings.Fields(step)); got != "" {
				line = fmt.Sprintf("%-36s => %s", step, got)
			}
		}
		out.WriteString(line + "\n")
	}
	return out.String()
}

func (p *player) reset() {
	*p = player{
		T: p.T, lines: p.lines, now: start, log: Log{Known: true}, window: Window{1000, 1 << 20},
		keep:    adapter.Retention{Messages: 1000, Age: time.Hour},
		members: map[string]*Replay[message]{}, waiting: map[string]*Request[message]{},
	}
}

// step plays one line, and returns what comes of it.
func (p *player) step(args []string) string {
	p.Helper()
	name := ""
	if len(args) > 1 {
		name = args[1]
	}
	switch args[0] {
	case "keep":
		p.keep = adapter.Retention{Messages: p.number(args[1]), Age: p.duration(args[2])}
	case "window":
		p.window.Messages = p.number(args[1])
	case "log":
		p.setLog(args[1])
	case "add":
		items, kept := p.items(args[1:])
		p.store.Add(items, kept, p.window)
		p.log.At = items[len(items)-1].at
	case "wait":
		p.now += p.duration(args[1]).Nanoseconds()
	case "widen":
		return map[bool]string{true: "narrow it later"}[p.store.Widen(p.now)]
	case "narrow":
		return map[bool]string{true: "narrow", false: "not yet"}[p.store.Narrow(p.now, false, p.window)]
	case "expire":
		next, empty := p.store.Expire(p.now, p.keep.Age)
		if empty {
			return "nothing left"
		}
		return "the next in " + time.Duration(next-p.now).Truncate(time.Second).String()
	case "resume":
		var since adapter.Position
		if len(args) > 2 {
			since = p.position(args[2])
		}
		p.members[name] = Resume[message](since)
	case "refill":
		p.members[name] = Refill[message](p.position(args[2]))
	case "next":
		return p.next(p.members[name], args[2:])
	case "abandon":
		r := p.members[name]
		if r.Abandon(p.log.At) {
			return "it is in the window"
		}
		r.Meet(p.passed(args[2:]))
		return p.take(r)
	case "join":
		p.waiting[name] = p.store.Join(p.members[name].At())
		return map[bool]string{true: "read"}[p.store.Start()]
	case "leave":
		p.store.Leave(p.waiting[name])
	case "begin":
		since, ok := p.store.Begin(len(args) > 1)
		if !ok {
			return "nobody waits"
		}
		return "after " + show(since)
	case "page":
		p.newPage(args[1:])
	case "kept":
		items, kept := p.items(args[1:])
		what := args[len(args)-1]
		p.page.Frame(items[0].at.Offset, items[len(items)-1].at, what == "unreadable")
		for _, m := range items {
			switch what {
			case "unreadable":
			case "not-understood":
				p.page.Miss(m.at)
			default:
				p.page.Add(m, kept)
			}
		}
	case "end":
		p.page.End()
		if p.listing != nil {
			return map[bool]string{true: "listed", false: "go on"}[p.listing.Add(p.page)]
		}
		p.store.Remember(p.page, p.log.At, p.window)
		return p.serve(p.store.Deliver(p.page))
	case "fail":
		return p.serve(p.store.Fail(errRefused))
	case "list":
		limit := 0
		for _, arg := range args[2:] {
			limit = p.number(strings.TrimPrefix(arg, "limit="))
		}
		p.listing = NewListing[message](p.position(args[1]), limit)
	case "ask":
		at, limit := p.listing.Next()
		return fmt.Sprintf("after %s, limit %d", show(at), limit)
	case "ahead":
		return fmt.Sprint(p.listing.Ahead(p.position(args[1])))
	case "listed":
		return part(p.listing.Gap(), p.listing.Items())
	default:
		require.Fail(p, "unknown event", args)
	}
	return ""
}

func (p *player) setLog(s string) {
	p.Helper()
	switch p.log.Blind, p.log.Refused, p.log.Known = false, false, true; s {
	case "unknown":
		p.log.Known = false
	case "refused":
		p.log.Blind, p.log.Refused = true, true
	case "blind":
		p.log.Blind = true
	default:
		p.log.At = p.position(s)
		p.store.Reset(p.log.At)
	}
}

// next gives a member its next part, as a hub does.
func (p *player) next(r *Replay[message], args []string) string {
	switch v := p.store.Assemble(r, p.log, p.keep, p.now); v {
	case Complete:
		if r.base.IsZero() && !r.Met() {
			r.Begin(p.log.At)
		}
		if r.Met() {
			r.Meet(p.passed(args))
		}
		return p.take(r)
	case AheadOfHistory:
		return "ahead of the history, which is at " + show(r.Head())
	default:
		return [...]string{"", "needs a reading", "the log is behind", "", "unreadable"}[v]
	}
}

// take takes the whole part, as a member that receives.
func (p *player) take(r *Replay[message]) string {
	gap, items := r.TakeGap(), r.Items()
	r.Advance(len(items))
	require.True(p, r.Empty())
	got := part(gap, items)
	if r.Met() {
		got += ", then the log"
	}
	return got
}

// passed parses "passed=3", or "passed=3+" if it may be more.
func (p *player) passed(args []string) (gap roomlog.Gap) {
	for _, arg := range args {
		n, unknown := strings.CutSuffix(strings.TrimPrefix(arg, "passed="), "+")
		gap = roomlog.Gap{Missed: p.number(n), Unknown: unknown}
	}
	return gap
}

func (p *player) serve(served []*Request[message]) string {
	var names []string
	for _, r := range served {
		for name, q := range p.waiting {
			if q == r {
				p.members[name].Deliver(r.Page)
				names = append(names, name)
			}
		}
		if r.Err != nil {
			names = append(names, r.Err.Error())
		}
	}
	if p.store.Start() {
		names = append(names, "read again")
	}
	return strings.Join(names, ", ")
}

func (p *player) newPage(args []string) {
	p.Helper()
	read := adapter.Page{}
	var since adapter.Position
	for _, arg := range args {
		key, value, ok := strings.Cut(arg, "=")
		switch {
		case !ok && key == "more":
			read.More = true
		case !ok:
			read.Head = p.position(key)
			read.First = read.Head.Offset + 1
		case key == "since":
			since = p.position(value)
		case key == "first":
			read.First = uint64(p.number(value))
		case key == "past":
			at, whole := strings.CutSuffix(value, ",whole")
			last := p.position(at)
			read.Before = append(read.Before, adapter.PastEpoch{Epoch: last.Epoch, Last: last.Offset, Whole: whole})
		}
	}
	for _, line := range p.lines { // the frames are on the next lines
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "kept" {
			break
		}
		items, _ := p.items(words[1:])
		read.Frames = append(read.Frames, adapter.KeptFrame{At: items[len(items)-1].at})
	}
	p.page = NewPage[message](since, &read)
}

// items parses "1:11-20 volatile old=2h".
func (p *player) items(args []string) (items []message, kept int64) {
	p.Helper()
	kept = p.now
	volatile := false
	for _, arg := range args[1:] {
		volatile = volatile || arg == "volatile"
		if age, ok := strings.CutPrefix(arg, "old="); ok {
			kept -= p.duration(age).Nanoseconds()
		}
	}
	first, last, ok := strings.Cut(args[0], "-")
	from := p.position(first)
	until := from.Offset
	if ok {
		until = uint64(p.number(last))
	}
	for n := from.Offset; n <= until; n++ {
		items = append(items, message{at: adapter.Position{Epoch: from.Epoch, Offset: n}, size: 4, volatile: volatile})
	}
	return items, kept
}

func (p *player) position(s string) (at adapter.Position) {
	p.Helper()
	_, err := fmt.Sscanf(s, "%d:%d", &at.Epoch, &at.Offset)
	require.NoError(p, err, s)
	return at
}

func (p *player) number(s string) int {
	p.Helper()
	n, err := strconv.Atoi(s)
	require.NoError(p, err)
	return n
}

func (p *player) duration(s string) time.Duration {
	p.Helper()
	d, err := time.ParseDuration(s)
	require.NoError(p, err)
	return d
}

func show(at adapter.Position) string { return fmt.Sprintf("%d:%d", at.Epoch, at.Offset) }

// part says what a gap and messages are: "gap 2, 1:13-20".
func part(gap roomlog.Gap, items []message) string {
	var got []string
	switch {
	case gap.Unknown && gap.Missed > 0:
		got = append(got, fmt.Sprintf("gap %d or more", gap.Missed))
	case gap.Unknown:
		got = append(got, "gap unknown")
	case gap.Missed > 0:
		got = append(got, fmt.Sprintf("gap %d", gap.Missed))
	}
	for len(items) > 0 {
		n := 1
		for n < len(items) && items[n].at.Epoch == items[0].at.Epoch && items[n].at.Offset == items[n-1].at.Offset+1 {
			n++
		}
		if n == 1 {
			got = append(got, show(items[0].at))
		} else {
			got = append(got, fmt.Sprintf("%s-%d", show(items[0].at), items[n-1].at.Offset))
		}
		items = items[n:]
	}
	if len(got) == 0 {
		return "nothing"
	}
	return strings.Join(got, ", ")
}
