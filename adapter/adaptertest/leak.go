package adaptertest

import (
	"bytes"
	"reflect"
	"runtime/pprof"
	"strconv"
	"strings"
)

// leaked returns the stacks of goroutines that adapters have started in this
// check and that still run. They are known by the label, which a goroutine has
// from the one that starts it, and by a function of the adapter's module on
// their stack: what a client library starts on the way may live as long as the
// client.
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
			strings.Contains(stack, "\t"+"0x") &&
			strings.Contains(stack, theirs) &&
			!strings.Contains(stack, mine) {
			stacks = append(stacks, stack)
		}
	}
	return stacks
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
