package adaptertest

import (
	"fmt"
	"time"
)

var orderCases = []Case{
	{
		Name:        "publisher-order",
		Explanation: "Two frames of a channel that one node publishes arrive in the order of the calls of Publish.",
		Nodes:       2, run: publisherOrder,
	},
	{
		Name:        "one-order",
		Explanation: "The frames of a channel reach all its subscribers in one order, whichever nodes publish them.",
		Nodes:       3, run: oneOrder,
	},
	{
		Name:        "calls-do-not-overlap",
		Explanation: "The receiver is called for a channel only after its previous call for the channel has returned.",
		Nodes:       3, run: callsDoNotOverlap,
	},
	{
		Name:        "slow-receiver-delays-no-other",
		Explanation: "A slow receiver delays neither the publisher nor another node.",
		Nodes:       3, run: slowReceiver,
	},
}

func publisherOrder(e *env) {
	channel := e.channel("room")
	e.join(channel, e.nodes[1])
	place := make(map[string]int)
	for i := range 200 {
		frame := fmt.Sprint(i)
		place[frame] = i
		e.mustPublish(e.nodes[0], channel, frame)
	}
	e.settle(e.nodes[0], channel, e.nodes[1])
	e.inOrder(e.nodes[1], channel, place, "than it was published")
}

// inOrder checks that the frames that a node received are in the order of
// place. It ignores frames that are not in place, and repeated ones.
func (e *env) inOrder(n *node, channel string, place map[string]int, than string) {
	last, before := -1, ""
	seen := make(map[string]bool)
	for _, frame := range n.heard.frames(channel) {
		i, known := place[frame]
		if !known || seen[frame] {
			continue
		}
		seen[frame] = true
		if i < last {
			e.failf("%v received %q before %q, which is another order %s", n, before, frame, than)
		}
		last, before = i, frame
	}
}

func oneOrder(e *env) {
	channel := e.channel("room")
	e.join(channel, e.nodes...)
	e.all(len(e.nodes), func(i int) error {
		for j := range 100 {
			if _, err := e.nodes[i].publish(e.ctx, channel, fmt.Sprintf("%d of %v", j, e.nodes[i])); err != nil {
				return err
			}
		}
		return nil
	})
	for _, n := range e.nodes {
		e.settle(n, channel, e.nodes...)
	}
	for _, first := range e.nodes {
		place := make(map[string]int)
		for i, frame := range first.heard.frames(channel) {
			if _, again := place[frame]; !again {
				place[frame] = i
			}
		}
		for _, n := range e.nodes {
			e.inOrder(n, channel, place, fmt.Sprintf("than %v", first))
		}
	}
}

func callsDoNotOverlap(e *env) {
	channel := e.channel("room")
	slow, witness := e.nodes[1], e.nodes[2]
	e.join(channel, slow, witness)
	release := e.hold(slow, channel)
	const frames = 20
	t := e.start(func() error {
		for i := range frames {
			if _, err := e.nodes[0].publish(e.ctx, channel, fmt.Sprint(i)); err != nil {
				return err
			}
		}
		return nil
	})
	// The held call is running. No other call may begin, however many frames
	// there are. Wait as long as the witness needs, and somewhat longer.
	e.soon(time.Second, func() bool {
		return slow.heard.overlapped(channel) > 0 || len(witness.heard.frames(channel)) > frames
	})
	e.soon(50*time.Millisecond, func() bool { return slow.heard.overlapped(channel) > 0 })
	release()
	e.must(e.wait(t, "Publish returns"), "Publish")
	e.settle(e.nodes[0], channel, slow, witness)
	for _, n := range e.nodes {
		if c := n.heard.overlapped(channel); c > 0 {
			e.failf("%v had %d calls for the channel while another one was running", n, c)
		}
	}
}

// hold publishes a frame, and returns when the receiver of n is in the call for
// it. The call returns after release.
func (e *env) hold(n *node, channel string) (release func()) {
	release = n.heard.hold(channel)
	e.atEnd(release)
	e.start(func() error {
		_, err := e.nodes[0].publish(e.ctx, channel, "a long call")
		return err
	})
	e.until(func() bool { return n.heard.held(channel) }, "%v receives something", n)
	return release
}

func slowReceiver(e *env) {
	channel, other := e.channel("room"), e.channel("other")
	slow, witness := e.nodes[1], e.nodes[2]
	e.join(channel, slow, witness)
	e.join(other, slow, witness)
	release := e.hold(slow, channel)
	t := e.start(func() error {
		for i := range 50 {
			for _, c := range []string{channel, other} {
				if _, err := e.nodes[0].publish(e.ctx, c, fmt.Sprint(i)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	e.must(e.wait(t, "Publish returns while the receiver of %v is in a call", slow), "Publish")
	e.settle(e.nodes[0], channel, witness)
	e.settle(e.nodes[0], other, witness)
	if !slow.heard.held(channel) {
		e.failf("the call that should be running has returned")
	}
	release()
	e.settle(e.nodes[0], channel, slow)
}
