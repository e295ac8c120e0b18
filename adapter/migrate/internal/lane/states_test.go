package lane

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// transitions has the state after each event. A dot is the same state.
const transitions = `
               flipped came           broke         marked        headed         gaveUp doubted sorted
Old            Quiet   Draining       .             .             .              New    .       .
Quiet          .       Draining       DrainingEnded QuietEnded    QuietHeaded    New    .       .
QuietEnded     .       DrainingEnded  .             .             New            New    .       .
QuietHeaded    .       DrainingHeaded New           New           .              New    .       .
Draining       .       .              DrainingEnded DrainingEnded DrainingHeaded New    .       .
DrainingEnded  .       .              .             .             New            New    .       .
DrainingHeaded .       .              New           New           .              New    .       .
New            .       .              .             .             .              .      Sorting .
Sorting        .       .              .             .             .              .      .       New
`

func TestState(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(transitions), "\n")
	require.Len(t, lines, states+1)
	require.Len(t, strings.Fields(lines[0]), events)
	names := make([]string, 0, states)
	for _, line := range lines[1:] {
		names = append(names, strings.Fields(line)[0])
	}
	for s, line := range lines[1:] {
		for e, want := range strings.Fields(line)[1:] {
			if want == "." {
				want = names[s]
			}
			require.Equal(t, want, names[State(s).after(event(e))], "after event %d in %s", e, names[s])
		}
	}
	t.Run("what is known stays known, and only Sorting ends", func(t *testing.T) {
		for s := range State(states) {
			for e := range event(events) {
				next := s.after(e)
				require.False(t, s.ended() && !next.ended(), "%s, event %d", names[s], e)
				require.False(t, s.headed() && !next.headed(), "%s, event %d", names[s], e)
				require.False(t, s.drains() && next < Draining, "%s, event %d", names[s], e)
			}
		}
	})
	t.Run("no state waits for ever", func(t *testing.T) {
		for s := range State(states) {
			require.Equal(t, New, s.after(gaveUp).after(sorted), names[s])
		}
	})
}
