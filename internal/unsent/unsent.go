// Package unsent decides which errors wrap adapter.ErrUnsent: those of messages
// of which no part has reached anybody, or ever will.
package unsent

import (
	"errors"
	"fmt"
	"strings"

	"github.com/fanoutgo/fanout/adapter"
)

// Mark makes an error say that nothing was sent, if no attempt has sent
// anything. Otherwise it removes that from the error of a later attempt.
func Mark(err error, unsent bool) error {
	switch says := errors.Is(err, adapter.ErrUnsent); {
	case unsent && !says:
		return adapter.Unsent(err)
	case says && !unsent:
		return fmt.Errorf("%w (an earlier attempt may have arrived)", Hide(err))
	}
	return err
}

// Hide returns err without ErrUnsent, for a message of which another part, or a
// copy, was sent.
func Hide(err error) error {
	if errors.Is(err, adapter.ErrUnsent) {
		return hidden{err}
	}
	return err
}

// Join returns the errors of the parts of a message to several rooms or
// members, of which some are nil. Only if no part was sent does it wrap
// ErrUnsent.
func Join(errs []error) error {
	for _, err := range errs {
		if !errors.Is(err, adapter.ErrUnsent) {
			return errors.Join(hideAll(errs)...)
		}
	}
	return errors.Join(errs...)
}

func hideAll(errs []error) []error {
	masked := make([]error, len(errs))
	for i, err := range errs {
		masked[i] = Hide(err)
	}
	return masked
}

// A hidden is an error without ErrUnsent.
type hidden struct{ err error }

// Error leaves out the text of ErrUnsent, which would say the opposite.
func (e hidden) Error() string {
	text := e.err.Error()
	for _, unsent := range [...]string{" (%s)", "%s: ", ": %s"} { // the last two: of adapters that wrap it themselves
		text = strings.ReplaceAll(text, fmt.Sprintf(unsent, adapter.ErrUnsent), "")
	}
	return text
}

// Is implements the interface of package errors.
func (e hidden) Is(target error) bool {
	return target != adapter.ErrUnsent && errors.Is(e.err, target)
}

// As implements the interface of package errors.
func (e hidden) As(target any) bool { return errors.As(e.err, target) }
