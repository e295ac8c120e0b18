package life

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// step has something happen at a time, and says what it returned.
func step(l *Life, what string, now int64) string {
	name, arg, _ := strings.Cut(what, " ")
	said := func(b bool, yes string) string { return map[bool]string{true: yes}[b] }
	switch name {
	case "use":
		return said(!l.Use(), "gone")
	case "release":
		n := 1
		fmt.Sscan(arg, &n)
		return said(l.Release(n, now), "queue")
	case "join":
		l.Join()
	case "leave":
		l.Leave()
		return said(l.rest(now), "queue")
	case "start":
		l.Start()
	case "subscribed", "failed":
		l.Subscribed(name == "subscribed")
	case "interrupt":
		l.Interrupt()
	case "restore":
		l.Restore()
	case "ended":
		l.Ended()
	case "dequeue":
		return said(l.Dequeue(), "used")
	case "linger":
		return said(l.Linger(), "end")
	case "lingered":
		return said(l.Lingered(), "queue")
	case "forget":
		return said(l.Forget(), "queue")
	default:
		panic(what)
	}
	return ""
}

// Each step is what happens, and after an arrow what that returns.
func TestLife(t *testing.T) {
	for name, test := range map[string]struct {
		steps string
		state State
		idle  bool
	}{
		"is off and idle at first":                        {"", Off, true},
		"a use ends, and the room is queued once":         {"use, use, release, release > queue, use, release", Off, true},
		"uses end together":                               {"use, use, use, release 3 > queue", Off, true},
		"a member keeps it":                               {"use, start, subscribed, join, release, leave > queue", On, true},
		"a use keeps it when the last member leaves":      {"use, join, leave, release > queue", Off, true},
		"a subscription that failed":                      {"use, start, failed", Off, false},
		"lingers, then is forgotten":                      {"use, start, subscribed, release > queue, dequeue, linger > end, ended, lingered > queue, dequeue, forget", Gone, true},
		"cannot be used when it is gone":                  {"use, release > queue, forget, use > gone", Gone, true},
		"is used in the queue":                            {"use, release > queue, use, dequeue > used, release > queue", Off, true},
		"is used while its subscription ends":             {"use, start, subscribed, release > queue, linger > end, use, ended, lingered", Off, false},
		"is used before its subscription ends":            {"use, start, subscribed, release > queue, use, linger, lingered, release > queue", On, true},
		"is in the queue for Linger and was unsubscribed": {"use, start, release > queue, failed, linger, lingered > queue", Off, true},
		"was subscribed in the queue for Forget":          {"use, release > queue, use, start, subscribed, release, forget > queue", On, true},
		"is used when it is to be forgotten":              {"use, release > queue, use, forget, release > queue", Off, true},
		"is being subscribed when it is to be forgotten":  {"use, release > queue, use, start, forget, failed, release > queue", Off, true},
	} {
		t.Run(name, func(t *testing.T) {
			var l Life
			for now, s := range strings.Split(test.steps, ", ") {
				if what, want, _ := strings.Cut(s, " > "); s != "" {
					require.Equal(t, want, step(&l, what, int64(now+1)), s)
				}
			}
			require.Equal(t, test.state.String(), l.State().String())
			require.Equal(t, test.idle, l.Idle())
			require.Equal(t, test.idle, l.Uses()+l.Members() == 0)
		})
	}
}

func TestReceives(t *testing.T) {
	for steps, want := range map[string]bool{
		"":                                      false,
		"start":                                 false,
		"start, subscribed":                     true,
		"start, subscribed, interrupt":          false,
		"start, interrupt, subscribed":          false,
		"start, subscribed, interrupt, restore": true,
		"interrupt, start, subscribed":          true,
		"start, subscribed, linger":             false,
		"start, subscribed, interrupt, linger, ended, start, subscribed":          true,
		"start, subscribed, linger, ended, interrupt, restore, start, subscribed": true,
	} {
		t.Run(steps, func(t *testing.T) {
			var l Life
			for _, what := range strings.Split(steps, ", ") {
				if what != "" {
					step(&l, what, 0)
				}
			}
			require.Equal(t, want, l.Receives())
			require.Equal(t, strings.HasSuffix(strings.TrimSuffix(steps, ", subscribed"), "interrupt"), l.Interrupted())
		})
	}
}

func TestIdleSince(t *testing.T) {
	var l Life
	l.Use()
	l.Release(1, 5)
	require.EqualValues(t, 5, l.IdleSince())
	l.Join()
	l.Leave()
	require.False(t, l.rest(7), "it is in the queue")
	require.EqualValues(t, 7, l.IdleSince(), "it was used meanwhile")
}
