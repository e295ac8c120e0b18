package follow

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/scripttest"
	"github.com/fanoutgo/fanout/internal/sequence"
	"github.com/stretchr/testify/require"
)

// The scripts in testdata say what they mean in testdata/README.
func TestScripts(t *testing.T) { scripttest.Run(t, play) }

// A player plays a script: each case begins with a new room.
type player struct {
	*testing.T
	Follower[string]
	tracker    sequence.Tracker
	now        time.Time
	generation int // of the reading
	page       *Page
	lines      []string
	out        strings.Builder
}

func play(t *testing.T, script string) string {
	p := &player{T: t, lines: strings.Split(strings.TrimSuffix(script, "\n"), "\n")}
	for len(p.lines) > 0 {
		line := p.next()
		step, _, _ := strings.Cut(line, "=>")
		step = strings.TrimSpace(step)
		switch {
		case strings.HasPrefix(step, "# "):
			p.reset()
			p.out.WriteString(line + "\n")
		case step == "" || strings.HasPrefix(step, "//"):
			p.out.WriteString(line + "\n")
		default:
			was := p.State()
			got := p.step(strings.Fields(step))
			if is := p.State(); is != was {
				got = append(got, "["+is.String()+"]")
			}
			if len(got) > 0 {
				step = fmt.Sprintf("%-36s => %s", step, strings.Join(got, "; "))
			}
			p.out.WriteString(step + "\n")
		}
	}
	return p.out.String()
}

func (p *player) next() string {
	line := p.lines[0]
	p.lines = p.lines[1:]
	return line
}

func (p *player) reset() {
	p.Follower, p.tracker = Follower[string]{}, sequence.Tracker{}
	p.Init(&p.tracker)
	p.now = time.UnixMilli(1_700_000_000_000)
	p.page = nil
}

var errRefused = errors.New("refused")

// step plays one line, and returns the decisions.
func (p *player) step(args []string) []string {
	p.Helper()
	switch args[0] {
	case "live": // the room is subscribed, and stands at a position
		p.tracker.BeginRun(p.now)
		p.Subscribed()
		p.generation = p.Generation()
		_, ok := p.Query(p.generation)
		require.True(p, ok)
		head, _ := p.parsePage(args[1:])
		p.Head(head)
		p.Drain(p.now)
		p.Drained(p.now)
		return nil
	case "subscribed":
		p.tracker.BeginRun(p.now)
		return p.read(p.Subscribed())
	case "unsubscribed":
		p.Unsubscribed()
		p.tracker = sequence.Tracker{}
	case "interrupted":
		p.Interrupted(true)
	case "moving":
		p.Interrupted(false)
	case "restored":
		return p.read(p.Restored())
	case "read":
		return p.read(p.Read())
	case "wait":
		d, err := time.ParseDuration(args[1])
		require.NoError(p, err)
		p.now = p.now.Add(d)
	case "frame":
		b := p.frame(args[1:])
		a, placed, read := p.Receive(&b, p.now)
		if !placed {
			return append([]string{"hold"}, p.read(read)...)
		}
		return []string{show(&a, &b)}
	case "fallback":
		b := p.frame(append([]string{"-"}, args[1:]...))
		a := p.Fallback(&b)
		return []string{show(&a, &b)}
	case "query":
		q, ok := p.Query(p.generation)
		switch {
		case !ok:
			return []string{"stop"}
		case q.Limit == 0:
			return []string{"the head"}
		}
		return []string{"after " + position(q.Since)}
	case "head":
		page, _ := p.parsePage(args[1:])
		return []string{"restart " + position(p.Head(page))}
	case "page":
		page, more := p.parsePage(args[1:])
		page.More = more
		for _, line := range p.lines { // the frames are on the next lines
			words := strings.Fields(line)
			if len(words) == 0 || words[0] != "kept" {
				break
			}
			page.Frames = append(page.Frames, adapter.KeptFrame{At: p.frame(words[1:]).At})
		}
		p.page = NewPage(page)
	case "kept":
		b := p.frame(args[1:])
		a := p.Frame(p.page, &b, p.now)
		return []string{show(&a, &b)}
	case "end":
		a := p.PageEnd(p.page, p.now)
		return []string{show(&a, nil), "at " + position(p.Position())}
	case "refused":
		return p.held(p.Refused(errRefused, p.now))
	case "no-progress":
		wait, refused := p.NoProgress(p.now)
		if refused {
			return []string{"refused"}
		}
		return []string{"again after " + wait.String()}
	case "drain":
		held, more := p.Drain(p.now)
		got := p.held(held)
		if more {
			return append(got, "more")
		}
		step, wait := p.Drained(p.now)
		return append(got, fmt.Sprint([...]string{"done", "read again", "more"}[step], after(wait)))
	default:
		require.Fail(p, "unknown event", args)
	}
	return nil
}

func after(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return " after " + d.String()
}

func (p *player) read(r Read) []string {
	if !r.Due {
		return nil
	}
	p.generation = p.Generation()
	return []string{"read" + after(r.After)}
}

func (p *player) held(held []Held[string]) (got []string) {
	for i := range held {
		got = append(got, show(&held[i].Append, &held[i].Frame))
	}
	return got
}

// frame parses "1:12 a/1/5 x2": where the last message is, and a hub's stream,
// first number and number of messages. The place "-" is none. Instead of a hub
// there may be "stranger", or "unreadable".
func (p *player) frame(args []string) (b Frame[string]) {
	p.Helper()
	b.Size, b.Messages = 1000, 1
	if args[0] != "-" {
		b.At = p.position(args[0])
	}
	b.Body = args[1]
	for _, arg := range args[1:] {
		var hub rune
		if n, ok := strings.CutPrefix(arg, "x"); ok {
			b.Messages = p.number(n)
			b.Header.Count = b.Messages
		} else if n, ok := strings.CutPrefix(arg, "size="); ok {
			b.Size = p.number(n)
		} else if arg == "unreadable" {
			b.Unreadable, b.Messages = true, 0
		} else if _, err := fmt.Sscanf(arg, "%c/%d/%d", &hub, &b.Header.Stream, &b.Header.Seq); err == nil {
			b.Header.Hub, b.Header.Count = uint64(hub), 1
			b.Header.Time = uint64(p.now.UnixMilli())
		}
	}
	if b.First = b.At.Offset; b.Messages > 1 && !b.At.IsZero() {
		b.First -= uint64(b.Messages) - 1
	}
	return b
}

// parsePage parses "1:20 first=11 past=1:8 past=2:9,whole more".
func (p *player) parsePage(args []string) (page *adapter.Page, more bool) {
	p.Helper()
	page = &adapter.Page{Head: p.position(args[0])}
	page.First = page.Head.Offset + 1
	for _, arg := range args[1:] {
		if n, ok := strings.CutPrefix(arg, "first="); ok {
			page.First = uint64(p.number(n))
		} else if past, ok := strings.CutPrefix(arg, "past="); ok {
			at, whole := strings.CutSuffix(past, ",whole")
			last := p.position(at)
			page.Before = append(page.Before, adapter.PastEpoch{Epoch: last.Epoch, Last: last.Offset, Whole: whole})
		} else {
			more = arg == "more"
			require.True(p, more, arg)
		}
	}
	return page, more
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

func position(at adapter.Position) string { return fmt.Sprintf("%d:%d", at.Epoch, at.Offset) }

// show says what goes into the log, in its order.
func show(a *Append, b *Frame[string]) string {
	var got []string
	add := func(format string, args ...any) { got = append(got, fmt.Sprintf(format, args...)) }
	if a.Restart {
		add("restart %s", position(a.From))
	}
	if a.Earlier.Missed > 0 {
		add("earlier gap %d since run %d", a.Earlier.Missed, a.Earlier.From)
	}
	switch {
	case a.Gap.Unknown && a.Gap.Missed > 0:
		add("gap %d or more", a.Gap.Missed)
	case a.Gap.Unknown:
		add("gap unknown")
	case a.Gap.Missed > 0:
		add("gap %d", a.Gap.Missed)
	}
	if a.Messages && a.Skip+a.Had < b.Messages {
		add("append %s", messages(b, a.Skip+a.Had, b.Messages, a.Positions))
	}
	if a.Messages && a.Had > 0 {
		add("recent %s", messages(b, a.Skip, a.Skip+a.Had, a.Positions))
	}
	if a.Repeated > 0 {
		add("repeated %d", a.Repeated)
	}
	if a.Recovered > 0 {
		add("recovered %d", a.Recovered)
	}
	if len(got) == 0 {
		return "nothing"
	}
	return strings.Join(got, ", ")
}

// messages says which messages of a frame those from first to before end are.
func messages(b *Frame[string], first, end int, positions bool) string {
	switch from := b.First + uint64(first); {
	case !positions:
		return fmt.Sprintf("%d without positions", end-first)
	case end-first == 1:
		return fmt.Sprintf("%d:%d", b.At.Epoch, from)
	default:
		return fmt.Sprintf("%d:%d-%d", b.At.Epoch, from, from+uint64(end-first)-1)
	}
}
