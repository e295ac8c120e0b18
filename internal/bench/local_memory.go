package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// localWindow is how many messages a member may lag behind before it loses
// some: the default of fanout and of melody.
const localWindow = 256

// memoryCase measures the heap after a collection, by members and by rooms. A
// peer that cannot have that many members has fewer. Melody has no rooms.
func memoryCase(members int) *contest {
	c := &contest{name: fmt.Sprintf("memory, %d members or rooms", members), measure: "channel per member"}
	for _, p := range localPeers {
		n := min(members, p.most)
		c.contestants = append(c.contestants, contestant{p.name, func(ctx context.Context, _ *options) (figures, error) {
			return measureMemory(ctx, p, n)
		}})
	}
	c.targets = []target{
		{of: "fanout", key: "idle", atMost: 400},
		{of: "fanout", key: "lagging", atMost: 400},
	}
	return c
}

func measureMemory(ctx context.Context, p localPeer, n int) (figures, error) {
	idle, stack, err := idleMember(ctx, p, n)
	if err != nil {
		return nil, fmt.Errorf("idle members: %w", err)
	}
	together, lagging, err := laggingMember(p, n)
	if err != nil {
		return nil, fmt.Errorf("lagging members: %w", err)
	}
	f := figures{"idle": idle, "stack": stack, "lagging": lagging}
	if p.name == "melody" {
		return f, nil
	}
	apart, err := lonelyMember(p, n)
	if err != nil {
		return nil, fmt.Errorf("rooms: %w", err)
	}
	f["room"] = apart - together
	return f, nil
}

// idleMember returns the bytes of a member in a room of n, on the heap and of
// stacks, while all wait for a message. A goroutine for each is there before,
// so its memory on the heap (not its stack) does not count; goroutines that a
// hall starts itself do.
func idleMember(ctx context.Context, p localPeer, n int) (onHeap, onStacks float64, err error) {
	h, err := p.open(hallOptions{rooms: 1, members: n, single: true})
	if err != nil {
		return 0, 0, err
	}
	r := newRally(ctx, n, 1)
	_, stacksBefore := heap()
	var work, asleep sync.WaitGroup
	next := make(chan int)
	asleep.Add(n)
	for range n {
		work.Go(func() {
			asleep.Done()
			if i, ok := <-next; ok {
				h.receive(i)
			}
		})
	}
	asleep.Wait()
	defer func() {
		r.stop()
		close(next)
		err = errors.Join(err, h.close())
		work.Wait()
	}()
	before, _ := heap()
	for i := range n {
		if err := h.join(0, &r.tallies[i]); err != nil {
			return 0, 0, err
		}
		next <- i
	}
	// A member that has received a message waits for the next one.
	r.begin()
	if err := h.publish(0, localData); err != nil {
		return 0, 0, err
	}
	if err := r.wait(); err != nil {
		return 0, 0, err
	}
	after, stacks := heap()
	return bytesOfEach(before, after, n), bytesOfEach(stacksBefore, stacks, n), nil
}

// laggingMember returns the bytes of a member in a room of n before the first
// message, without a goroutine, and of a member that has received none of the
// messages that fill a window. The share of the window itself, 120 KB, is a few
// bytes.
func laggingMember(p localPeer, n int) (joined, lagging float64, err error) {
	h, err := p.open(hallOptions{rooms: 1, members: n})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	before, _ := heap()
	for range n {
		if err := h.join(0, nil); err != nil {
			return 0, 0, err
		}
	}
	after, _ := heap()
	joined = bytesOfEach(before, after, n)
	for range localWindow {
		if err := h.publish(0, localData); err != nil {
			return 0, 0, err
		}
	}
	after, _ = heap()
	return joined, bytesOfEach(before, after, n), nil
}

// lonelyMember returns the bytes of a member with a room of its own.
func lonelyMember(p localPeer, n int) (both float64, err error) {
	h, err := p.open(hallOptions{rooms: n, members: n})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	before, _ := heap()
	for i := range n {
		if err := h.join(i, nil); err != nil {
			return 0, err
		}
	}
	after, _ := heap()
	return bytesOfEach(before, after, n), nil
}

func bytesOfEach(before, after uint64, n int) float64 {
	return (float64(after) - float64(before)) / float64(n)
}
