package adaptertest

import (
	"bytes"
	"reflect"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
)

// leaked returns the stacks of goroutines that adapters have started in this
// check and that still run. They are recognised by the label, which a goroutine
// inherits from the one that starts it, and by a function of the adapter's
// module in which they began: goroutines of a client library may live as long
// as the client.
func (e *env) leaked() []string {
	var profile bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		e.failf("goroutine profile: %w", err)
	}
	mine := reflect.TypeFor[env]().PkgPath() + "."
	theirs := module(e.nodes[0].adapter)
	var stacks []string
	for stack := range strings.SplitSeq(profile.String(), "\n\n") {
		if strings.Contains(stack, strconv.Quote(label)+":"+strconv.Quote(e.id)) &&
			strings.Contains(began(stack), theirs) &&
			!strings.Contains(stack, mine) {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

// began returns the outermost frame of a stack that is not in the standard
// library, whose WaitGroup and AfterFunc start goroutines for others.
func began(stack string) string {
	for _, line := range slices.Backward(strings.Split(stack, "\n")) {
		frame := strings.Fields(line) // #, address, function, file
		if len(frame) >= 3 && frame[0] == "#" && strings.HasPrefix(frame[1], "0x") && strings.Contains(strings.SplitN(frame[2], "/", 2)[0], ".") && strings.Contains(frame[2], "/") {
			return line
		}
	}
	return ""
}

// module guesses the module of an adapter from its type's package: for
// github.com/x/y/z it is github.com/x/y.
func module(adapter any) string {
	t := reflect.TypeOf(adapter)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	parts := strings.Split(t.PkgPath(), "/")
	if strings.Contains(parts[0], ".") {
		parts = parts[:min(3, len(parts))]
	}
	return strings.Join(parts, "/")
}
