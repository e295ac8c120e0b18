package lane

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/stretchr/testify/require"
)

// play calls the methods of a lane. Words of a line: o or n for the old or the
// new backend, and f<text>, k<epoch>-<offset>, i, m, r for a frame, a kept
// frame and the notices; flip, marked, nohead, drained, unsorted,
// head=<epoch>-<offset>, copying=<epoch>, copied=<epoch>-<offset>. The result
// is what the receiver is called with, and "drain" or "sort" where the owner is
// asked to.
func play(t *testing.T, l *Lane, line string) string {
	t.Helper()
	var out []string
	for _, word := range strings.Fields(line) {
		calls, task := perform(t, l, word)
		for _, c := range calls {
			switch c.Kind {
			case Receive:
				out = append(out, string(c.Frame.Frame))
			case ReceiveKept:
				out = append(out, fmt.Sprint(c.Frame.At))
			default:
				out = append(out, map[Kind]string{Interrupted: "i", Moving: "m", Restored: "r"}[c.Kind])
			}
		}
		if task != Nothing {
			out = append(out, map[Task]string{Drain: "drain", Sort: "sort"}[task])
		}
	}
	return strings.Join(out, " ")
}

// perform calls the method of a word.
func perform(t *testing.T, l *Lane, word string) ([]Call, Task) {
	t.Helper()
	methods := map[string]func([]Call) ([]Call, Task){
		"flip": l.Flip, "marked": l.Marked, "nohead": l.NoHead, "drained": l.Drained, "unsorted": l.Unsorted,
	}
	if method := methods[word]; method != nil {
		return method(nil)
	}
	if at, ok := strings.CutPrefix(word, "copied="); ok {
		return l.Copied(position(t, at), nil)
	}
	if epoch, ok := strings.CutPrefix(word, "copying="); ok {
		return l.Copying(position(t, epoch+"-0").Epoch, nil)
	}
	if at, ok := strings.CutPrefix(word, "head="); ok {
		return l.Head(position(t, at), nil)
	}
	c := Call{}
	switch word[1] {
	case 'f':
		c.Frame.Frame = []byte(word[2:])
	case 'k':
		c.Kind, c.Frame.At = ReceiveKept, position(t, word[2:])
	default:
		c.Kind = map[byte]Kind{'i': Interrupted, 'm': Moving, 'r': Restored}[word[1]]
	}
	if word[0] == 'o' {
		return l.FromOld(c, nil)
	}
	return l.FromNew(c, nil)
}

func position(t *testing.T, s string) (p adapter.Position) {
	t.Helper()
	_, err := fmt.Sscanf(s, "%d-%d", &p.Epoch, &p.Offset)
	require.NoError(t, err)
	return p
}

func TestLane(t *testing.T) {
	for _, c := range []struct{ name, script, want string }{
		{"the old backend counts first", "ofa oi or ofb om or", "a i r b m r"},
		{"a move that fails is an interruption", "om oi or", "m i r"},
		{"the new one does not count before the flip", "ni nr ofa ni ofb", "a b"},
		{"what the new one brings waits for the old one", "nfx ofa nfy head=0-0 ofb marked nfz", "drain a b x y z"},
		{"the marker may come first", "nfx ofa marked head=0-0 nfz", "drain a x z"},
		{"a marker without need is none", "marked nfx head=0-0 ofa marked", "drain a x"},
		{"not for ever", "nfx ofa drained nfy", "drain a x y"},
		{"an interruption of the old one is the end of it", "nfx ofa head=0-0 oi or nfy", "drain a i r x y"},
		{"so is an orderly move", "nfx head=0-0 om or nfy", "drain m r x y"},
		{"or one from before", "oi nfx head=0-0 or nfy", "i drain r x y"},
		{"a flip while the old one is interrupted", "oi flip nfx head=0-0 or oi", "i drain r x"},
		{"an interruption of the old one after the flip", "flip ofa oi or head=0-0 nfx oi or", "a i drain r x"},
		{"the new one is interrupted at the end of the old one", "ni nfx ofa drained nr nfy", "drain a i x r y"},
		{"both are", "ni oi nfx drained nr nfy", "i drain x r y"},
		{"notices of the new one keep their place", "nfx ni nr nfy ofa drained", "drain a x i r y"},
		{"after the flip the first notice waits as well", "flip ni ofa nr drained", "drain a i r"},
		{"a late frame of the old one is delivered", "nfx drained ofa nfy", "drain x a y"},
		{"copies are not delivered", "ok1-1 ok1-2 copied=5-2 nk5-1 nk5-2 nk5-3 head=1-2 marked nk5-2 nk5-4", "1-1 1-2 drain 5-3 5-4"},
		{"nor after an interruption", "ok1-1 ok1-2 oi nk5-1 nk5-3 copied=5-2 head=1-2 nk5-2", "1-1 1-2 i drain r 5-3"},
		{"a history that begins anew has no copies", "ok1-1 ok1-2 nk5-1 nk5-2 head=1-2 marked copied=5-2 nk5-3 nk7-1 nk7-2", "1-1 1-2 drain sort 5-3 7-1 7-2"},
		{"nor if the copies were not seen", "ok1-1 ok1-2 flip copied=5-2 ni head=1-2 marked nr nk7-1", "1-1 1-2 drain i r 7-1"},
		{"one history at both has no copies", "ok1-1 nk1-2 head=1-2 marked nk1-3", "1-1 drain 1-2 1-3"},
		{"a quiet channel goes on with the new one after the flip", "ofa flip head=0-0 marked oi nfx or ni", "a x i"},
		{"the marker of a quiet channel may come first", "ofa flip marked head=0-0 oi nfx", "a x"},
		{"what breaks after the marker is not missed", "ofa flip marked oi or nfx head=0-0", "a drain x"},
		{"what breaks before it may be", "ofa flip head=0-0 oi or marked nfx", "a i r x"},
		{"a quiet channel is interrupted at the new one", "ni flip head=0-0 marked nr", "i r"},
		{"copies to a quiet channel are not delivered", "ok1-1 ok1-2 flip head=1-2 marked nk5-1 nk5-2 nk5-3 copied=5-2", "1-1 1-2 sort 5-3"},
		{"a marker before the flip is none", "ofa marked flip head=0-0 oi", "a i r"},
		{"the first head counts", "ok1-1 flip head=1-1 nk5-1 head=0-0 marked copied=5-1", "1-1 drain sort"},
		{"copies of what has come are known without a head", "ok1-1 ok1-2 flip oi nohead nr nk5-1 nk5-2 copied=5-2 nk5-3", "1-1 1-2 i drain r sort 5-3"},
		{"and those of what has not come are delivered", "ok1-1 flip oi nohead nr nk5-1 nk5-2 copied=5-1 nk5-3", "1-1 i drain r sort 5-2 5-3"},
		{"the same when it takes too long", "ok1-1 ok1-2 nk5-1 nk5-2 drained nk5-3 copied=5-2", "1-1 1-2 drain sort 5-3"},
		{"drained twice is drained", "nfx drained drained nfy", "drain x y"},
		{"what may be a copy is held", "ok1-1 ok1-2 nk5-1 head=1-2 marked nk5-2 nk5-3", "1-1 1-2 drain sort"},
		{"with what comes after it, in order", "ok1-2 flip head=1-2 marked nk5-1 nfx ni nr nk5-3 copied=5-2", "1-2 sort x i r 5-3"},
		{"a history begun by another hub is no copy", "ok1-1 ok1-2 flip head=1-2 marked nk5-1 copied=0-0 nk5-2", "1-1 1-2 sort 5-1 5-2"},
		{"nor is it if another one was copied", "ok1-2 flip copied=5-2 head=1-2 marked nk7-1", "1-2 7-1"},
		{"a copy that was not completed ends early", "ok1-1 ok1-2 flip head=1-2 marked nk5-1 nk5-2 copied=5-1", "1-1 1-2 sort 5-2"},
		{"a copy that is being made", "ok1-3 flip head=1-3 marked nk5-1 copying=5 nk5-2 nk5-3 nk5-4 copied=5-3", "1-3 sort 5-4"},
		{"one that is not completed has to be read", "ok1-3 flip head=1-3 marked nk5-1 copying=5 nk5-2 nk5-3 copied=5-1 nk5-4", "1-3 sort i r 5-4"},
		{"not if the channel is interrupted anyway", "ok1-3 flip head=1-3 marked nk5-1 copying=5 nk5-2 ni copied=5-1 nr", "1-3 sort i r"},
		{"one of which nobody can tell has to be read as well", "ok1-3 flip head=1-3 marked nk5-1 copying=5 nk5-2 unsorted", "1-3 sort i r"},
		{"one that was known before is not assumed", "ok1-3 flip copied=5-1 copying=5 head=1-3 marked nk5-1 nk5-2", "1-3 5-2"},
		{"copies are delivered if nobody can tell", "ok1-2 flip head=1-2 marked nk5-1 unsorted nk5-2", "1-2 sort 5-1 5-2"},
		{"until it is known", "ok1-2 flip head=1-2 marked nk5-1 unsorted copied=5-2 nk5-2 nk5-3", "1-2 sort 5-1 5-3"},
		{"what is known stays known", "ok1-2 flip copied=5-2 unsorted head=1-2 marked nk5-1 nk5-3", "1-2 5-3"},
		{"what the old backend brings late does not wait", "ok1-2 flip head=1-2 marked nk5-1 ofa oi", "1-2 sort a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, play(t, new(Lane), c.script))
		})
	}
	t.Run("one that begins after the flip has no old backend", func(t *testing.T) {
		l := new(Lane)
		l.Begin()
		require.Equal(t, "x i r", play(t, l, "oi nfx ni nr or"))
		require.Equal(t, New, l.State())
	})
	for _, bound := range []struct {
		what, before string
		frames, size int
	}{
		{"maxHeld frames", "", maxHeld, 0},
		{"maxHeldBytes bytes", "", 1, maxHeldBytes},
		{"maxHeld frames while it sorts", "ok1-2 flip head=1-2 marked nk5-1", maxHeld - 1, 0},
		{"maxHeldBytes bytes while it sorts", "ok1-2 flip head=1-2 marked nk5-1", 1, maxHeldBytes},
	} {
		t.Run("holds at most "+bound.what, func(t *testing.T) {
			l := new(Lane)
			play(t, l, bound.before)
			held := len(l.held)
			for range bound.frames {
				calls, _ := l.FromNew(Call{Frame: adapter.KeptFrame{Frame: make([]byte, bound.size)}}, nil)
				require.Empty(t, calls)
			}
			calls, _ := l.FromNew(Call{Frame: adapter.KeptFrame{Frame: []byte{1}}}, nil)
			require.Len(t, calls, held+bound.frames+1)
			require.Equal(t, New, l.State())
			require.False(t, l.NewDown())
		})
	}
}
