package adapter

import "errors"

// Errors that adapters return, wrapped with what was tried. They are the errors
// of these names in package fanout.
var (
	// ErrClosed is returned by everything that is asked of a closed Hub,
	// Member or Adapter. From Receive it is final.
	ErrClosed = errors.New("fanout: closed")

	// ErrUnsent means that nobody has got, or can still get, any part of a
	// message. An adapter promises so for a frame by wrapping it in an error of
	// Adapter.Publish.
	ErrUnsent = errors.New("fanout: not sent")

	// ErrRefused is for adapters: it means that the backend refuses what was
	// asked for a reason that waiting does not cure, such as missing rights, a
	// command that it does not know, or a frame that is too long for it. The hub
	// does not try again, but for its own channels, which it tries as long as it
	// lives. A backend that is full, busy or down has not refused.
	ErrRefused = errors.New("fanout: refused by the backend")

	// ErrBrokenHistory means that what a backend keeps of a room's history is not
	// what the library has written: somebody else has written there, or a part
	// of it is damaged. Publish, Join, Resume and History of that room return it
	// at once, with what is wrong, and members that are in the room are told of a
	// gap. The room works again when somebody has mended or deleted the keys.
	ErrBrokenHistory = errors.New("fanout: broken history")

	// ErrInvalidOption means that New was given an option out of its range.
	ErrInvalidOption = errors.New("fanout: invalid option")
)
