package ask

import (
	"slices"
	"time"
)

const (
	// maxCommands bounds the questions that are remembered.
	maxCommands = 4096
	// remember is how long a question is remembered after its asker has
	// stopped to wait.
	remember = time.Minute
)

// A Key names a question: the asking hub and its number there.
type Key struct{ Hub, ID uint64 }

// A Verdict says what to do with a copy of a question.
type Verdict uint8

const (
	// Wait means that other copies are still to come.
	Wait Verdict = iota
	// Run means that the question is to be dealt with now.
	Run
	// Working means that it is being dealt with: say so.
	Working
	// Again means that it was dealt with: send Commands.Result.
	Again
	// Busy means that there are too many: say so, and forget it.
	Busy
)

// Commands remembers questions, so that each runs once. The zero value
// remembers none.
type Commands struct {
	byKey map[Key]*command
	order []*command // in the order in which they came
}

type command struct {
	key     Key
	stage   stage
	copies  []uint64 // indexes of the names whose copies have come
	result  []byte
	expires time.Time
}

// A stage is how far a question is.
type stage uint8

const (
	// collecting means that some copies are still to come.
	collecting stage = iota
	// running means that the owner deals with it.
	running
	// finished means that it was answered.
	finished
)

// Arrive takes a copy of a question: that for the name with the index which.
// Expected are the indexes of the names whose copies come to this hub, as it is
// subscribed now. Wait is how long the asker waits.
func (c *Commands) Arrive(key Key, which uint64, expected []uint64, wait time.Duration, now time.Time) Verdict {
	cmd := c.byKey[key]
	if cmd == nil {
		c.Tick(now)
		if len(c.byKey) >= maxCommands && !c.drop() {
			return Busy
		}
		if c.byKey == nil {
			c.byKey = make(map[Key]*command)
		}
		cmd = &command{key: key, stage: collecting}
		c.byKey[key] = cmd
		c.order = append(c.order, cmd)
	}
	cmd.expires = now.Add(wait + remember)
	if !slices.Contains(cmd.copies, which) {
		cmd.copies = append(cmd.copies, which)
	}
	switch cmd.stage {
	case running:
		return Working
	case finished:
		return Again
	}
	for _, e := range expected {
		if !slices.Contains(cmd.copies, e) {
			return Wait
		}
	}
	cmd.stage = running
	return Run
}

// drop forgets the question that was answered and came first.
func (c *Commands) drop() bool {
	at := slices.IndexFunc(c.order, func(cmd *command) bool { return cmd.stage == finished })
	if at < 0 {
		return false
	}
	delete(c.byKey, c.order[at].key)
	c.order = slices.Delete(c.order, at, at+1)
	return true
}

// Copies returns the indexes of the names whose copies have come, sorted.
func (c *Commands) Copies(key Key) []uint64 {
	cmd := c.byKey[key]
	if cmd == nil {
		return nil
	}
	return slices.Sorted(slices.Values(cmd.copies))
}

// Finished says that a question was dealt with. Result is what Result returns.
func (c *Commands) Finished(key Key, result []byte) {
	if cmd := c.byKey[key]; cmd != nil {
		cmd.stage, cmd.result = finished, result
	}
}

// Result returns what Finished was given.
func (c *Commands) Result(key Key) []byte {
	if cmd := c.byKey[key]; cmd != nil {
		return cmd.result
	}
	return nil
}

// Cancel forgets a question that is not running: its asker has what it wants.
func (c *Commands) Cancel(key Key) {
	if cmd := c.byKey[key]; cmd != nil && cmd.stage != running {
		cmd.expires = time.Time{}
	}
}

// Tick forgets answers that no asker can miss by now. It is called every minute
// or so.
func (c *Commands) Tick(now time.Time) {
	c.order = slices.DeleteFunc(c.order, func(cmd *command) bool {
		if cmd.stage == running || now.Before(cmd.expires) {
			return false
		}
		delete(c.byKey, cmd.key)
		return true
	})
}

// Len returns the number of questions that are remembered.
func (c *Commands) Len() int { return len(c.byKey) }
