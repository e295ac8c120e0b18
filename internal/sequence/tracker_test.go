package sequence

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

var start = time.UnixMilli(1_700_000_000_000)

// A script has a step on each line: what happens, and after => the verdict. A
// frame is "hub stream/first-last"; "resent" or "old" may follow it. In rooms
// with a history it begins with "kept", "late", "taken" or "unkept", and may
// end with "passed n". A verdict is the numbers that are delivered, and
// "missed n", "earlier n after run m", "unknown", "repeated n".
func play(t *testing.T, script string) {
	t.Helper()
	var tr Tracker
	trimmed := uint64(0)
	tr.BeginRun(start)
	for line := range strings.SplitSeq(strings.TrimSpace(script), "\n") {
		step, want, _ := strings.Cut(strings.TrimSpace(line), "=>")
		step, want = strings.TrimSpace(step), strings.TrimSpace(want)
		var n, hub int
		kind, rest, _ := strings.Cut(step, " ")
		switch kind {
		case "kept", "late", "taken", "unkept":
			step = rest
		}
		switch _, err := fmt.Sscanf(step, "trim %d", &n); {
		case step == "run":
			tr.BeginRun(start)
			continue
		case step == "stranger":
			tr.AcceptStranger()
			continue
		case err == nil:
			tr.Trim()
			trimmed += uint64(n)
			continue
		}
		var last uint64
		h := wire.Header{Time: uint64(start.UnixMilli())}
		_, err := fmt.Sscanf(step, "%d %d/%d-%d", &hub, &h.Stream, &h.Seq, &last)
		require.NoError(t, err, step)
		h.Hub, h.Count = uint64(hub), int(last-h.Seq+1)
		h.Resent = strings.Contains(step, "resent")
		if strings.Contains(step, "old") {
			h.Time -= 10_000
		}
		passed := 0
		if _, rest, ok := strings.Cut(step, "passed "); ok {
			fmt.Sscan(rest, &passed)
		}
		var v Verdict
		switch kind {
		case "kept":
			v = tr.AcceptNext(&h, passed, &trimmed)
		case "late":
			v = tr.AcceptLate(&h, passed, &trimmed)
		case "taken":
			v = tr.AcceptTaken(&h, &trimmed)
		case "unkept":
			v = tr.AcceptUnkept(&h, &trimmed)
		default:
			v = tr.Accept(&h)
		}
		require.Equal(t, want, show(&h, v), "%s\nof%s", line, script)
	}
}

func show(h *wire.Header, v Verdict) string {
	var is []string
	switch n := h.Count - v.Skip; n {
	case 0:
	case 1:
		is = append(is, fmt.Sprint(h.Seq+uint64(v.Skip)))
	default:
		is = append(is, fmt.Sprintf("%d-%d", h.Seq+uint64(v.Skip), h.Seq+uint64(h.Count)-1))
	}
	if v.Earlier != 0 {
		is = append(is, fmt.Sprintf("earlier %d after run %d", v.Earlier, v.From))
	}
	if v.Missed != 0 {
		is = append(is, fmt.Sprintf("missed %d", v.Missed))
	}
	if v.Unknown {
		is = append(is, "unknown")
	}
	if v.Repeated != 0 {
		is = append(is, fmt.Sprintf("repeated %d", v.Repeated))
	}
	return strings.Join(is, ", ")
}

// The rules of WIRE.md, "Numbers".
func TestNumbers(t *testing.T) {
	for name, script := range map[string]string{
		"a hub never heard of: the numbers begin with this frame": `
			1 1/7-9 => 7-9
			2 5/1-1 => 1`,
		"the frame begins there: deliver it": `
			1 1/1-2 => 1-2
			1 1/3-3 => 3`,
		"it begins later: the messages between are missing": `
			1 1/1-2 => 1-2
			1 1/6-7 => 6-7, missed 3`,
		"it begins earlier: drop messages that were delivered before": `
			1 1/1-5 => 1-5
			1 1/4-7 => 6-7, repeated 2
			1 1/1-7 => repeated 7`,
		"a message that was reported missing is not delivered late": `
			1 1/1-1 => 1
			1 1/4-4 => 4, missed 2
			1 1/2-3 => repeated 2`,
		"a larger stream: the numbers begin at 1 again": `
			1 1/1-5 => 1-5
			1 2/1-1 => 1
			1 3/4-4 => 4, missed 3`,
		"a smaller stream: drop the frame": `
			1 1/1-5 => 1-5
			1 2/1-1 => 1
			1 1/4-5 => repeated 2
			1 2/2-2 => 2`,
		"a dropped message that was not accounted for is missing": `
			1 1/1-5 => 1-5
			1 2/1-1 => 1
			1 1/5-7 resent => missed 2
			1 1/5-7 resent => repeated 3
			1 1/9-9 => missed 2
			1 2/2-2 => 2`,
		"so is a message from before the first that was heard": `
			1 1/5-5 => 5
			1 1/3-4 => missed 2
			1 1/3-4 => repeated 2
			1 1/6-6 => 6`,
		"messages missed before the run concern members that were there": `
			1 1/1-1 => 1
			run
			1 1/4-4 => 4, earlier 2 after run 1
			1 1/6-6 => 6, missed 1
			run
			2 1/1-1 => 1
			run
			1 1/9-9 => 9, earlier 2 after run 2
			1 2/3-3 => 3, missed 2`,
		"a frame that other hubs may have delivered at another place is not delivered": `
			1 1/1-1 => 1
			2 1/1-1 => 1
			run
			2 1/2-2 => 2
			1 1/2-2 resent => missed 1
			1 1/3-3 resent => 3
			3 1/3-4 old => missed 2
			3 1/5-5 old => 5
			4 1/5-5 => 5`,
		"it is delivered if no other hub was heard": `
			1 1/1-1 => 1
			run
			1 1/2-2 resent => 2`,
		"a stranger is another hub": `
			1 1/1-1 => 1
			run
			stranger
			1 1/2-2 resent => missed 1`,
	} {
		t.Run(name, func(t *testing.T) { play(t, script) })
	}
}

func TestForgedNumbers(t *testing.T) {
	for name, script := range map[string]string{
		"an absurd jump: unknown, and the hub is followed again": `
			1 1/1-5 => 1-5
			1 1/9223372036854775808-9223372036854775808 => 9223372036854775808, unknown
			1 1/6-6 => missed 1
			1 1/7-8 => missed 2
			1 1/7-8 => repeated 2
			1 1/10-10 => missed 2
			1 1/11-11 => missed 1
			1 1/12-12 => 12
			1 1/14-14 => 14, missed 1`,
		"a larger stream: the hub is followed again": `
			1 1/1-5 => 1-5
			1 18446744073709551615/1-1 => 1
			1 1/6-6 => missed 1
			1 1/7-7 => missed 1
			1 1/8-8 => missed 1
			1 1/9-9 => missed 1
			1 1/10-10 => 10
			1 2/1-1 => 1`,
		"an absurd number of a larger stream": `
			1 1/1-5 => 1-5
			1 2/18446744073709551000-18446744073709551000 => 18446744073709551000, unknown
			1 1/6-6 => missed 1
			1 1/1-5 => repeated 5`,
		"the first that is heard": `
			1 9/1000-1000 => 1000
			1 1/5-5 => missed 1
			1 1/6-6 => missed 1
			1 1/7-7 => missed 1
			1 1/8-8 => missed 1
			1 1/9-9 => 9`,
		"a large jump is counted once, and the hub is followed again": `
			1 1/1-5 => 1-5
			1 1/2000006-2000006 => 2000006, missed 2000000
			1 1/6-6 => repeated 1
			1 1/7-7 => repeated 1
			1 1/8-8 => repeated 1
			1 1/9-9 => repeated 1
			1 1/10-10 => 10`,
		"a frame that continues after the jump is evidence for the jump": `
			1 1/1-5 => 1-5
			1 2/1-1 => 1
			1 1/6-6 => missed 1
			1 1/7-7 => missed 1
			1 1/8-8 => missed 1
			1 2/2-2 => 2
			1 1/9-9 => missed 1
			1 2/3-3 => 3`,
		"frames sent again are no evidence": `
			1 1/1-5 => 1-5
			1 2/1-1 => 1
			1 1/6-6 resent => missed 1
			1 1/7-7 resent => missed 1
			1 1/8-8 resent => missed 1
			1 1/9-9 resent => missed 1
			1 1/10-10 resent => missed 1
			1 2/2-2 => 2`,
		"late frames that reach the first that was heard": `
			1 1/7-7 => 7
			1 1/1-1 => missed 1
			1 1/2-2 => missed 1
			1 1/3-3 => missed 1
			1 1/4-4 => missed 1
			1 1/5-6 => 5-6
			1 1/7-7 => repeated 1
			1 1/8-8 => 8`,
	} {
		t.Run(name, func(t *testing.T) { play(t, script) })
	}
}

// In a room with a history positions determine the order.
func TestNumbersOfARoomWithAHistory(t *testing.T) {
	for name, script := range map[string]string{
		"within a run a hole stands for messages that could not be sent": `
			kept 1 1/1-2 => 1-2
			kept 1 1/5-5 => 5
			kept 1 1/3-3 => 3
			kept 1 1/1-3 => repeated 3
			kept 1 1/5-5 => repeated 1
			kept 1 1/6-6 => 6
			kept 1 2/4-4 => 4`,
		"messages that came before, at another place": `
			kept 1 1/1-4 => 1-4
			kept 1 1/3-6 => 5-6, repeated 2
			kept 1 1/3-6 => repeated 4`,
		"an earlier stream that goes on leaves the later one as it is": `
			kept 1 1/1-3 => 1-3
			kept 1 2/1-1 => 1
			kept 1 1/4-4 => 4
			kept 1 2/1-1 => repeated 1
			kept 1 2/2-2 => 2`,
		"holes stay open": `
			kept 1 1/1-3 => 1-3
			kept 1 1/5-5 => 5
			kept 1 1/8-8 => 8
			late 1 1/1-3 passed 3 => repeated 3
			late 1 1/5-5 passed 1 => repeated 1
			kept 1 1/7-7 => 7
			kept 1 1/7-7 => repeated 1
			unkept 1 1/6-6 => 6
			unkept 1 1/6-6 => repeated 1
			run
			kept 1 1/9-9 => 9
			kept 1 1/4-4 => 4`,
		"but not if a server has lost the messages in them": `
			kept 1 1/1-1 => 1
			kept 1 1/9-9 => 9
			run
			kept 1 1/5-5 => 5, earlier 3 after run 1
			kept 1 1/4-4 => repeated 1
			kept 1 1/6-6 => 6`,
		"a trimmed frame that is passed leaves the rest trimmed": `
			kept 1 1/1-2 => 1-2
			trim 6
			late 1 1/3-3 passed 1 => 
			run
			kept 1 1/9-9 => 9
			kept 1 1/11-11 => 11`,
		"so does one of a hub that was not heard before": `
			kept 2 1/1-1 => 1
			trim 6
			late 1 1/1-1 passed 1 =>
			run
			kept 1 1/7-7 => 7`,
		"what a replaced server took, and the publisher sends again": `
			kept 1 1/1-1 => 1
			run
			kept 2 1/1-1 => 1
			taken 1 1/2-3 => unknown
			taken 1 1/2-3 => unknown
			kept 1 1/2-3 => 2-3
			kept 1 1/2-3 => repeated 2
			taken 1 1/2-3 => repeated 2
			kept 1 1/4-4 => 4
			kept 1 1/5-5 => 5`,
		"what a replaced server took is missing if the publisher goes on": `
			kept 1 1/1-1 => 1
			taken 1 1/2-2 => unknown
			kept 1 1/1-1 => repeated 1
			kept 1 1/3-4 => 3-4, missed 1
			kept 1 1/5-5 => 5
			taken 1 1/6-7 => unknown
			kept 1 1/9-9 => 9, missed 2
			kept 1 1/6-7 => repeated 2
			kept 1 1/8-8 => 8`,
		"also if it was not heard in this run, or not at all": `
			kept 1 1/1-1 => 1
			run
			taken 1 1/3-3 => unknown
			kept 1 1/4-4 => 4, earlier 1 after run 1, missed 1
			taken 2 1/7-7 => unknown
			kept 2 1/8-8 => 8, missed 1`,
		"also if its next message is not kept": `
			kept 1 1/1-1 => 1
			taken 1 1/2-2 => unknown
			unkept 1 1/3-3 => 3, missed 1
			taken 1 1/4-4 => unknown
			unkept 1 1/4-4 => 4`,
		"it is missing at once if the publisher has gone on before": `
			kept 1 1/1-1 => 1
			kept 1 1/3-3 => 3
			taken 1 1/2-2 => missed 1
			kept 1 2/1-1 => 1
			taken 1 1/4-4 => missed 1
			kept 1 2/2-2 => 2`,
		"also if it begins a larger stream": `
			kept 1 1/1-1 => 1
			taken 1 1/2-3 => unknown
			kept 1 2/1-1 => 1, missed 2`,
		"it is missing from before the run if it was taken before": `
			kept 1 1/1-1 => 1
			taken 1 1/2-2 => unknown
			run
			kept 1 1/3-3 => 3, earlier 1 after run 1`,
		"it is missing though the hole before the next message may have been trimmed": `
			kept 1 1/1-1 => 1
			kept 2 1/1-1 => 1
			taken 1 1/2-2 => unknown
			run
			kept 1 1/1-1 => repeated 1
			trim 1
			kept 2 1/3-3 => 3
			kept 1 1/3-3 => 3, missed 1`,
		"it arrives while the history is read, which has what is before": `
			kept 1 1/1-1 => 1
			run
			taken 1 1/5-5 => unknown
			kept 1 1/2-3 => 2-3
			kept 1 1/4-4 => 4
			kept 1 1/6-6 => 6, missed 1`,
		"what was taken, sent again and trimmed": `
			kept 1 1/1-1 => 1
			taken 1 1/2-2 => unknown
			trim 1
			kept 1 1/3-3 => 3`,
		"also if the replaced server took that as well": `
			kept 1 1/1-1 => 1
			taken 1 1/2-3 => unknown
			taken 1 1/4-4 => missed 2, unknown
			taken 1 1/2-3 => unknown
			taken 1 1/5-5 => missed 1, unknown
			kept 1 1/5-5 => 5
			kept 1 1/6-6 => 6`,
		"the holes between taken frames stay open": `
			kept 1 1/1-1 => 1
			taken 1 1/5-5 => unknown
			taken 1 1/3-3 => missed 1, unknown
			taken 1 1/8-8 => missed 1, unknown
			kept 1 1/7-7 => 7
			kept 1 1/2-2 => 2
			kept 1 1/3-3 => repeated 1
			kept 1 1/4-4 => 4
			kept 1 1/8-8 => 8`,
		"a passed frame does not show what a server has lost": `
			kept 1 1/1-2 => 1-2
			run
			late 1 1/2-2 passed 1 => repeated 1
			kept 1 1/5-5 => 5, earlier 2 after run 1`,
		"a frame that is not kept shows what was trimmed": `
			kept 1 1/1-2 => 1-2
			trim 4
			unkept 1 1/6-6 => 6
			unkept 1 1/9-9 => 9, missed 1`,
		"messages from before a hub was heard": `
			kept 2 1/1-1 => 1
			trim 2
			kept 1 1/3-3 => 3
			late 1 1/1-1 passed 1 =>
			run
			kept 1 1/6-6 => 6, earlier 2 after run 1`,
		"messages that a server has lost": `
			kept 1 1/1-2 => 1-2
			kept 2 1/1-1 => 1
			run
			kept 1 1/5-5 => 5, earlier 2 after run 1
			run
			kept 2 3/3-3 => 3, earlier 2 after run 1`,
		"trimmed messages are not counted twice": `
			kept 1 1/1-2 => 1-2
			kept 2 1/1-1 => 1
			run
			trim 10
			kept 1 1/9-9 => 9
			kept 2 1/8-8 => 8, earlier 2 after run 1`,
		"trimmed in a run, lost in the next": `
			kept 1 1/1-2 => 1-2
			trim 4
			run
			kept 1 1/9-9 => 9, earlier 2 after run 1`,
		"the part of a frame that was trimmed": `
			kept 1 1/1-2 => 1-2
			run
			kept 1 1/3-9 passed 4 => 7-9, earlier 4 after run 1
			kept 2 1/1-5 passed 2 => 3-5, missed 2`,
		"the trimmed part is counted by positions": `
			kept 1 1/1-2 => 1-2
			run
			trim 6
			kept 1 1/4-9 passed 4 => 8-9
			kept 2 1/1-5 passed 2 => 3-5, missed 1`,
		"a frame whose place a forged one has taken": `
			kept 1 1/1-2 => 1-2
			kept 7 1/1-1 => 1
			kept 1 1/3-4 passed 2 => missed 2
			kept 1 1/3-4 passed 2 => repeated 2
			kept 1 1/5-5 => 5`,
		"a frame that was under way when the room was subscribed": `
			kept 1 1/3-4 passed 2 =>
			kept 1 1/5-5 => 5`,
		"forged numbers do not mute": `
			kept 1 1/1-2 => 1-2
			kept 1 9/1-1 => 1
			kept 1 1/3-3 => 3
			kept 1 1/18446744073709551000-18446744073709551000 => 18446744073709551000
			kept 1 1/4-4 => 4
			kept 1 1/4-4 => repeated 1
			kept 1 1/1-2 => repeated 2
			kept 1 1/1000-1000 => 1000
			kept 1 1/5-5 => 5
			1 1/5000000-5000000 => 5000000, missed 4998999
			kept 1 1/6-6 => 6
			run
			kept 1 1/9-9 => 9, earlier 2 after run 1`,
	} {
		t.Run(name, func(t *testing.T) { play(t, script) })
	}
}

func TestPublishersAreBounded(t *testing.T) {
	var tr Tracker
	tr.BeginRun(start)
	for hub := range uint64(maxPublishers + 100) {
		v := tr.Accept(&wire.Header{Hub: hub, Stream: 1, Seq: math.MaxUint64 - 9, Count: 3})
		require.Zero(t, v.Lost())
		require.LessOrEqual(t, len(tr.publishers), maxPublishers)
	}
}

// Whatever numbers come, no verdict is absurd.
func FuzzNumbers(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
	f.Fuzz(func(t *testing.T, script []byte) {
		var tr Tracker
		trimmed := uint64(0)
		some := []uint64{
			1, 2, 3, 4, 5, 9, 100, suspiciousHole, suspiciousHole + 7, MaxHole - 1, MaxHole, MaxHole + 9,
			1<<63 - 1, 1 << 63, 1<<63 + 3, math.MaxUint64 - 5, math.MaxUint64 - 100,
		}
		for len(script) >= 5 {
			step := script[:5]
			script = script[5:]
			pick := func(b byte) uint64 { return some[int(b)%len(some)] }
			h := wire.Header{
				Hub: uint64(step[0] % 3), Stream: pick(step[1]), Seq: pick(step[2]) + uint64(step[3]%4),
				Count: 1 + int(step[3]>>2%4), Time: pick(step[4]), Resent: step[4]&128 != 0,
			}
			var v Verdict
			switch step[0] >> 4 {
			case 0:
				tr.BeginRun(start)
				continue
			case 1:
				tr.Trim()
				trimmed += uint64(step[1])
				continue
			case 2, 3, 4, 5:
				v = tr.AcceptNext(&h, int(step[4])%(h.Count+1), &trimmed)
			case 6:
				v = tr.AcceptLate(&h, int(step[4])%(h.Count+1), &trimmed)
			case 9:
				v = tr.AcceptTaken(&h, &trimmed)
			case 7:
				v = tr.AcceptBeside(&h, &trimmed)
			case 8:
				v = tr.AcceptUnkept(&h, &trimmed)
			default:
				v = tr.Accept(&h)
			}
			require.LessOrEqual(t, v.Skip, h.Count)
			require.LessOrEqual(t, v.Repeated, h.Count)
			for _, n := range []int{v.Skip, v.Repeated, v.Missed, v.Earlier} {
				require.GreaterOrEqual(t, n, 0)
				require.Less(t, n, int(MaxHole)+2*h.Count+4*maxTaken) // frames have up to 4 messages here
			}
		}
	})
}

// A history was read while its trimmed part was still under way: frames that
// arrive continue one line of numbers, frames that are read the other.
func TestKeptFramesOfTwoLinesInTurn(t *testing.T) {
	var tr Tracker
	tr.BeginRun(time.Unix(1, 0))
	trimmed := uint64(9)
	missed := 0
	accept := func(seq uint64, passed int) {
		v := tr.AcceptNext(&wire.Header{Hub: 5, Stream: 7, Seq: seq, Count: 1}, passed, &trimmed)
		missed += v.Lost()
	}
	accept(10, 0)
	accept(1, 1)
	accept(11, 0) // the next page
	for seq := uint64(2); seq <= 11; seq++ {
		accept(seq, 1)
	}
	require.Zero(t, missed, "all that was passed over is among the trimmed, or was delivered")
	require.Zero(t, trimmed)
}
