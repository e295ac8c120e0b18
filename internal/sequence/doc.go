// Package sequence keeps track of the numbers that publishers give their
// messages in one channel: it finds what is missing and what came before. The
// rules are those of WIRE.md.
//
// Every number of a publisher has one of three fates, and each is decided once:
// its message is delivered, it is reported missing, or it was given before the
// publisher was first heard. So a number that comes below the next one is a
// repeat only if it was accounted for; if it was not, it is reported missing
// when it comes.
//
// Numbers come from outside, and any of them may be forged. A publisher is
// therefore known by up to two lines of numbers:
//
//	floor           next            floor        next
//	  ├─ accounted ──┤   (nothing)    ├─ accounted ─┤
//	  other: what it was              the line that is followed
//	  before a suspicious jump
//
// A jump to a larger stream, or over [suspiciousHole] numbers and more, leaves
// the line as it was beside the one that is followed. A publisher that goes on
// there, and not where the jump led, is followed there again after [evidence]
// frames.
//
// In a room with a history positions tell what is missing, and a hole in the
// numbers may be what the publisher could not send. Its numbers stay open: they
// lie in the line and are not accounted for.
//
// A Tracker has no lock, clock, goroutine or I/O. Its owner's lock guards it.
package sequence
