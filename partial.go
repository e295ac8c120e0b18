package fanout

import (
	"errors"
	"fmt"
	"strings"
)

// joinErrors returns the errors of the parts of a message to several rooms or
// members. Only if no part was sent does it wrap ErrUnsent.
func joinErrors(errs []error) error {
	for _, err := range errs {
		if !errors.Is(err, ErrUnsent) {
			return errors.Join(withoutUnsent(errs)...)
		}
	}
	return errors.Join(errs...)
}

// withoutUnsent returns the errors such that none wraps ErrUnsent.
func withoutUnsent(errs []error) []error {
	masked := make([]error, len(errs))
	for i, err := range errs {
		masked[i] = sent(err)
	}
	return masked
}

// sent returns an error that does not wrap ErrUnsent, though err may: what err is
// about was not sent, but a part of the message, or a copy, was.
func sent(err error) error {
	if errors.Is(err, ErrUnsent) {
		return sentError{err}
	}
	return err
}

// A sentError is an error without ErrUnsent.
type sentError struct{ err error }

// Error leaves out the text of ErrUnsent, which would say the opposite.
func (e sentError) Error() string {
	text := e.err.Error()
	for _, unsent := range [...]string{" (%s)", "%s: ", ": %s"} { // the last two: of adapters that wrap it themselves
		text = strings.ReplaceAll(text, fmt.Sprintf(unsent, ErrUnsent), "")
	}
	return text
}

func (e sentError) Is(target error) bool { return target != ErrUnsent && errors.Is(e.err, target) }
func (e sentError) As(target any) bool   { return errors.As(e.err, target) }
