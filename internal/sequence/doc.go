// Package sequence keeps track of the numbers that publishers give their
// messages in one channel: it finds what is missing and what came before. The
// rules are those of WIRE.md.
//
// For every number of a publisher one of three things is decided, once: its
// message is delivered, it is reported missing, or it is from before the
// publisher was first heard. (After a forged jump, messages that were reported
// missing may be delivered.) So a number below the next one is a repeat only if
// it was accounted for. If it was not, it is reported missing when it comes.
//
// Numbers come from outside, and any of them may be forged. A publisher is
// therefore known by up to two lines of numbers:
//
//	floor           next            floor        next
//	  ├─ accounted ──┤   (nothing)    ├─ accounted ─┤
//	  other: what it was              the line that is followed
//	  before a suspicious jump
//
// After a jump to a larger stream, or over [suspiciousHole] numbers or more,
// the line from before the jump is kept next to the new one. If the publisher
// then continues the old line, it is followed there again after [evidence]
// frames.
//
// In a room with a history, positions show what is missing, and a hole in the
// numbers may be messages that the publisher could not send. These numbers stay
// open: they are in the line, and are not accounted for. The numbers of a frame
// that a replaced server took wait for their publisher: see [taken].
//
// A Tracker has no lock, clock, goroutine or I/O. Its owner's lock guards it.
package sequence
