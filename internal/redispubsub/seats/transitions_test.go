package seats

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	channel = "c"
	slot    = 7
)

// in returns a table with one seat in a state, and the command that is under
// way, if there is one. The seat is clean. If it is not wanted alice has left
// it, which Next has not seen yet unless the state says so.
func in(t *testing.T, s State, wanted bool) (tab *Table[string], c *Command[string]) {
	t.Helper()
	tab = New[string]()
	tab.Want("alice", channel, slot)
	if s != None {
		c = tab.Next()[0]
	}
	if s == On || s == Again || s == Leaving {
		_, asked := tab.Confirmed(channel)
		require.True(t, asked)
		require.Empty(t, tab.Replied(c, Accepted))
		c = nil
	}
	switch s {
	case Again:
		tab.Renew("alice", channel)
	case Leaving:
		tab.Release("alice", channel)
		c = tab.Next()[0]
		if wanted {
			tab.Want("alice", channel, slot)
		}
	}
	if s != Leaving && !wanted {
		tab.Release("alice", channel)
	}
	st := tab.seats[channel]
	require.Equal(t, s, st.state)
	st.dirty, tab.dirty = false, nil
	return tab, c
}

// show tells where the seat of a table is now: its state, who wants it, and
// whether Next looks at it.
func show(tab *Table[string]) string {
	st := tab.seats[channel]
	if st == nil {
		return "gone"
	}
	text := st.state.String()
	if st.sub != "" {
		text += " " + st.sub
	}
	if st.dirty {
		text += " dirty"
	}
	return text
}

// events are everything that can happen to a seat. Each returns what the table
// answers.
var events = map[string]func(tab *Table[string], c *Command[string]) string{
	"Want":    func(tab *Table[string], _ *Command[string]) string { tab.Want("bob", channel, slot); return "" },
	"Release": func(tab *Table[string], _ *Command[string]) string { tab.Release("alice", channel); return "" },
	"Renew":   func(tab *Table[string], _ *Command[string]) string { tab.Renew("alice", channel); return "" },
	"Connected": func(tab *Table[string], _ *Command[string]) string {
		tab.Connected()
		return ""
	},
	"Broke": func(tab *Table[string], _ *Command[string]) string {
		return strings.Join(tab.Broke(), " ")
	},
	"Confirmed": func(tab *Table[string], _ *Command[string]) string {
		if s, asked := tab.Confirmed(channel); asked {
			return "asked " + s
		}
		return ""
	},
	"Ended": func(tab *Table[string], _ *Command[string]) string {
		if s, unsolicited := tab.Ended(channel); unsolicited {
			return "unsolicited " + s
		}
		return ""
	},
	"Next": func(tab *Table[string], _ *Command[string]) string { // after something has touched it
		tab.Connected()
		switch commands := tab.Next(); {
		case len(commands) == 0:
			return ""
		case commands[0].Leave:
			return "leave"
		}
		return "join"
	},
	"Left":     func(tab *Table[string], c *Command[string]) string { tab.Left(c); return "" },
	"Accepted": replied(Accepted),
	"Moved":    replied(Moved),
	"NotNow":   replied(NotNow),
	"Refused":  replied(Refused),
}

func replied(r Reply) func(tab *Table[string], c *Command[string]) string {
	return func(tab *Table[string], c *Command[string]) string {
		return strings.Join(tab.Replied(c, r), " ")
	}
}

// A transition is an event, the seat after it, and the answer.
type transition struct{ event, then, answer string }

// transitions are the events in each state.
var transitions = []struct {
	state  State
	wanted bool
	all    []transition
}{
	{None, true, []transition{
		{"Want", "None bob dirty", ""},
		{"Release", "None dirty", ""},
		{"Renew", "None alice", ""},
		{"Connected", "None alice dirty", ""},
		{"Broke", "None alice", "alice"},
		{"Confirmed", "None alice", ""},
		{"Ended", "None alice", ""},
		{"Next", "Asked alice", "join"},
	}},
	{None, false, []transition{
		{"Want", "None bob dirty", ""},
		{"Release", "None", ""},
		{"Renew", "None", ""},
		{"Connected", "None dirty", ""},
		{"Broke", "gone", ""},
		{"Confirmed", "None", ""},
		{"Ended", "None", ""},
		{"Next", "gone", ""},
	}},
	{Asked, true, []transition{
		{"Want", "Asked bob dirty", ""}, // the confirmation that comes is bob's
		{"Release", "Asked dirty", ""},
		{"Renew", "Asked alice", ""},
		{"Connected", "Asked alice dirty", ""},
		{"Broke", "None alice", "alice"},
		{"Confirmed", "On alice", "asked alice"},
		{"Ended", "Asked alice", ""},
		{"Next", "Asked alice", ""},
		{"Accepted", "Asked alice", ""}, // the confirmation is on its way
		{"Moved", "None alice", "alice"},
		{"NotNow", "None alice", "alice"},
		{"Refused", "None alice", "alice"},
	}},
	{Asked, false, []transition{
		{"Want", "Asked bob dirty", ""},
		{"Release", "Asked", ""},
		{"Renew", "Asked", ""},
		{"Connected", "Asked dirty", ""},
		{"Broke", "gone", ""},
		{"Confirmed", "On", "asked "},
		{"Ended", "Asked", ""},
		{"Next", "Leaving", "leave"},
		{"Accepted", "Asked", ""},
		{"Moved", "None dirty", ""},
		{"NotNow", "None dirty", ""},
		{"Refused", "None dirty", ""},
	}},
	{On, true, []transition{
		{"Want", "Again bob dirty", ""},
		{"Release", "On dirty", ""},
		{"Renew", "Again alice dirty", ""},
		{"Connected", "On alice dirty", ""},
		{"Broke", "None alice", "alice"},
		{"Confirmed", "On alice", ""},
		{"Ended", "None alice dirty", "unsolicited alice"},
		{"Next", "On alice", ""},
	}},
	{On, false, []transition{
		{"Want", "Again bob dirty", ""},
		{"Release", "On", ""},
		{"Renew", "On", ""},
		{"Connected", "On dirty", ""},
		{"Broke", "gone", ""},
		{"Confirmed", "On", ""},
		{"Ended", "None dirty", "unsolicited "},
		{"Next", "Leaving", "leave"},
	}},
	{Again, true, []transition{
		{"Want", "Again bob dirty", ""},
		{"Release", "Again dirty", ""},
		{"Renew", "Again alice", ""},
		{"Connected", "Again alice dirty", ""},
		{"Broke", "None alice", "alice"},
		{"Confirmed", "Again alice", ""},
		{"Ended", "None alice dirty", "unsolicited alice"},
		{"Next", "Asked alice", "join"},
	}},
	{Again, false, []transition{
		{"Want", "Again bob dirty", ""},
		{"Release", "Again", ""},
		{"Renew", "Again", ""},
		{"Connected", "Again dirty", ""},
		{"Broke", "gone", ""},
		{"Confirmed", "Again", ""},
		{"Ended", "None dirty", "unsolicited "},
		{"Next", "Leaving", "leave"},
	}},
	{Leaving, true, []transition{
		{"Want", "Leaving bob dirty", ""},
		{"Release", "Leaving dirty", ""},
		{"Renew", "Leaving alice", ""},
		{"Connected", "Leaving alice dirty", ""},
		{"Broke", "None alice", "alice"},
		{"Confirmed", "Leaving alice", ""},
		{"Ended", "Leaving alice", ""}, // it is the reply, which Left notes
		{"Next", "Leaving alice", ""},
		{"Left", "None alice dirty", ""},
	}},
	{Leaving, false, []transition{
		{"Want", "Leaving bob dirty", ""},
		{"Release", "Leaving", ""},
		{"Renew", "Leaving", ""},
		{"Connected", "Leaving dirty", ""},
		{"Broke", "gone", ""},
		{"Confirmed", "Leaving", ""},
		{"Ended", "Leaving", ""},
		{"Next", "Leaving", ""},
		{"Left", "None dirty", ""},
	}},
}

func TestTransitions(t *testing.T) {
	for _, test := range transitions {
		name := test.state.String()
		if !test.wanted {
			name += ", not wanted"
		}
		for _, tr := range test.all {
			t.Run(name+"/"+tr.event, func(t *testing.T) {
				tab, c := in(t, test.state, test.wanted)
				answer := events[tr.event](tab, c)
				require.Equal(t, tr.then, show(tab))
				require.Equal(t, tr.answer, answer)
			})
		}
		t.Run(name+"/every event", func(t *testing.T) {
			_, c := in(t, test.state, test.wanted)
			for event := range events {
				reply := slices.Contains([]string{"Accepted", "Moved", "NotNow", "Refused"}, event)
				if reply && (c == nil || c.Leave) || event == "Left" && (c == nil || !c.Leave) {
					continue // no such command is under way
				}
				require.True(t, slices.ContainsFunc(test.all, func(tr transition) bool { return tr.event == event }), event)
			}
		})
	}
}
