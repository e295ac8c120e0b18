package adapter

import "errors"

// Errors that adapters return, wrapped with the operation that failed. They are
// the errors of these names in package fanout. Their texts name causes only:
// the code that returns one puts the operation before it.
var (
	// ErrClosed is returned by the methods of a closed Hub, Member or Adapter. A
	// second Close is no error, and neither is Room.Leave of a member that has
	// ended. From Member.Receive it is final.
	ErrClosed = errors.New("closed")

	// ErrUnsent means that no part of a message has reached anybody, or ever
	// will: publishing it again cannot deliver it twice. An adapter promises
	// this for a frame by returning an error made by [Unsent] from
	// Adapter.Publish.
	ErrUnsent = errors.New("not sent")

	// ErrRefused means that the backend refuses what was asked, for a reason
	// that does not go away by waiting: missing rights, an unknown command, a
	// message that is too long for it. The hub does not try again, except to
	// subscribe its own channels, which it tries for as long as it lives. A
	// backend that is full, busy or down has not refused.
	ErrRefused = errors.New("refused by the backend")

	// ErrBrokenHistory means that the history of a room, as the backend has it,
	// is not what the library wrote: another program has written to it, or a
	// part of it is damaged. Publish, Join, Resume and History of that room
	// then fail at once, with the reason, and members in the room are told of a
	// gap. The room works again once its keys have been repaired or deleted.
	ErrBrokenHistory = errors.New("broken history")

	// ErrInvalidOption means that an option or argument is out of its range.
	ErrInvalidOption = errors.New("invalid option")
)

// Unsent returns err such that it wraps ErrUnsent and says so at its end. An
// err that wraps ErrUnsent is returned as it is.
func Unsent(err error) error {
	if errors.Is(err, ErrUnsent) {
		return err
	}
	return &unsentError{err}
}

type unsentError struct{ err error }

func (e *unsentError) Error() string        { return e.err.Error() + " (not sent)" }
func (e *unsentError) Is(target error) bool { return target == ErrUnsent }
func (e *unsentError) Unwrap() error        { return e.err }
