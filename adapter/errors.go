package adapter

import "errors"

// Errors that adapters return, wrapped with the operation that failed. Package
// fanout has them under the same names.
var (
	// ErrClosed is returned by all methods of a closed Hub, Member or Adapter.
	// When Receive returns it, the member has ended.
	ErrClosed = errors.New("fanout: closed")

	// ErrUnsent means that no part of a message has been delivered to anyone,
	// or will be. An adapter promises so for a frame by wrapping ErrUnsent in
	// the error of Adapter.Publish.
	ErrUnsent = errors.New("fanout: not sent")

	// ErrRefused means that the backend refuses a request for a reason that
	// waiting does not cure, such as missing rights, a command that it does not
	// know, or a frame that is too long. The hub does not try again, except for
	// its own channels, which it tries until it is closed. A backend that is
	// full, busy or down has not refused.
	ErrRefused = errors.New("fanout: refused by the backend")

	// ErrBrokenHistory means that the backend's data of a room's history is not
	// what the library has written: another program has written there, or a
	// part is damaged. Publish, Join, Resume and History of that room return it
	// at once, with the cause, and members of the room get a gap. The room
	// works again when the keys have been repaired or deleted.
	ErrBrokenHistory = errors.New("fanout: broken history")

	// ErrInvalidOption means that New was given an option out of its range.
	ErrInvalidOption = errors.New("fanout: invalid option")
)
