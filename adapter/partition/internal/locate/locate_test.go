package locate

import (
	"errors"
	"testing"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/stretchr/testify/require"
)

func at(epoch, offset uint64) adapter.Position {
	return adapter.Position{Epoch: epoch, Offset: offset}
}

// What a partition may have.
var (
	nothing   = Site{}
	history   = Site{Head: at(2, 40)}
	older     = Site{Head: at(1, 30)}
	newer     = Site{Head: at(3, 20)}
	half      = Site{Head: at(2, 10), Partial: true}
	copied    = Site{Head: at(2, 40), Partial: true} // all of it, and the record is missing
	expired   = Site{Head: at(5, 20), Expired: true}
	leftForP1 = Site{Head: at(1, 30), Left: "p1"}
	leftForP2 = Site{Head: at(2, 40), Left: "p2"}
)

func TestHere(t *testing.T) {
	for name, test := range map[string]struct {
		home           Site
		done, changing bool
		want           Action
	}{
		"the record is of this set":                  {leftForP1, true, true, Use},
		"a history, and hubs change nothing":         {history, false, false, Use},
		"a history, and hubs change the set":         {history, false, true, Ask},
		"no history":                                 {nothing, false, false, Ask},
		"a copy that is not complete":                {half, false, false, Ask},
		"a copy that was left behind":                {leftForP1, false, false, Ask},
		"a history of which only the position stays": {expired, false, false, Use},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want.String(), Here(&test.home, test.done, test.changing).String())
		})
	}
}

func TestDecide(t *testing.T) {
	for name, test := range map[string]struct {
		home   Site
		others []Site
		must   bool
		unread string
		want   Decision
	}{
		"a new room is used": {
			want: Decision{Action: Use},
		},
		"a new room whose old home was asked is noted": {
			others: []Site{nothing}, must: true,
			want: Decision{Action: Note},
		},
		"a history that is at its home is used": {
			home: history, others: []Site{older, nothing},
			want: Decision{Action: Use},
		},
		"a history that is at its home, and whose old home was asked, is noted": {
			home: history, others: []Site{older}, must: true,
			want: Decision{Action: Note},
		},
		"a history that is elsewhere is copied": {
			others: []Site{nothing, history},
			want:   Decision{Action: Copy, From: 1},
		},
		"the copy that ends latest is copied": {
			others: []Site{history, newer, older},
			want:   Decision{Action: Copy, From: 1},
		},
		"a part at the home is completed": {
			home: half, others: []Site{history},
			want: Decision{Action: Copy},
		},
		"a copy that lacks only its record is completed": {
			home: copied, others: []Site{history},
			want: Decision{Action: Copy},
		},
		"a part that another partition has is not copied": {
			others: []Site{copied, older},
			want:   Decision{Action: Copy, From: 1},
		},
		"a part whose history is gone is continued anew": {
			home: half, others: []Site{nothing},
			want: Decision{Action: Anew},
		},
		"a part whose history is behind it is continued anew": {
			home: half, others: []Site{older}, must: true,
			want: Decision{Action: Anew},
		},
		"a copy that was left behind is replaced by what is newer": {
			home: leftForP1, others: []Site{history},
			want: Decision{Action: Copy},
		},
		"of two that end alike the one that was not left has the history": {
			home: leftForP1, others: []Site{leftForP1, older},
			want: Decision{Action: Copy, From: 1},
		},
		"a copy that was left behind is continued anew if the history is gone": {
			home: leftForP2, others: []Site{nothing},
			want: Decision{Action: Anew},
		},
		"a copy that was left, and ends as the latest does, is noted again": {
			home: leftForP2, others: []Site{leftForP2},
			want: Decision{Action: Note},
		},
		"an empty partition that a room has left is noted again": {
			home: Site{Left: "p1"}, others: []Site{nothing},
			want: Decision{Action: Note},
		},
		"a copy that was left behind waits for the partition that has the history": {
			home: leftForP2, others: []Site{older}, unread: "p2",
			want: Decision{Action: Wait, Unread: "p2"},
		},
		"a copy that was left behind waits for no partition if another has more": {
			home: leftForP1, others: []Site{newer}, unread: "p1",
			want: Decision{Action: Copy},
		},
		"a copy that was left behind does not wait for others": {
			home: leftForP2, others: []Site{nothing}, unread: "p3",
			want: Decision{Action: Anew},
		},
		"a history does not wait for what cannot be read": {
			home: history, others: []Site{older}, unread: "p2",
			want: Decision{Action: Use},
		},
		"what went on at a partition that lost it is copied as stale": {
			others: []Site{leftForP2, older},
			want:   Decision{Action: Copy, Stale: true},
		},
		"what went on at a partition that cannot be read waits": {
			others: []Site{leftForP2, older}, unread: "p2",
			want: Decision{Action: Wait, Unread: "p2"},
		},
		"a part is completed though its source has been left: for the home": {
			home: half, others: []Site{leftForP2}, unread: "p2",
			want: Decision{Action: Copy},
		},
		"a position of which no message is kept does not hide a longer history": {
			home: expired, others: []Site{history},
			want: Decision{Action: Copy},
		},
		"a position of which no message is kept counts if it is further": {
			home: expired, others: []Site{{Head: at(2, 10)}},
			want: Decision{Action: Use},
		},
		"a position of which no message is kept replaces no longer history": {
			home: history, others: []Site{expired},
			want: Decision{Action: Use},
		},
		"a position of which no message is kept replaces a shorter history": {
			home: Site{Head: at(2, 10)}, others: []Site{expired},
			want: Decision{Action: Copy},
		},
	} {
		t.Run(name, func(t *testing.T) {
			q := Question{Home: test.home, Others: test.others, Must: test.must}
			if test.unread != "" {
				q.Unread = map[string]error{test.unread: errors.New("down")}
			}
			got := Decide(&q)
			require.Equal(t, test.want.Action.String(), got.Action.String())
			require.Equal(t, test.want, got)
		})
	}
}
