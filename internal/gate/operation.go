package gate

// An Operation passes a gate and may call a user's code meanwhile. It does not
// count while that code runs, which may take long, or close the gate. Only one
// goroutine may use it.
type Operation struct {
	gate *Gate
	runs bool // it counts
}

// Begin returns an operation that has begun, or nil if the gate is closed.
func (g *Gate) Begin() *Operation {
	if !g.Enter(1) {
		return nil
	}
	return &Operation{gate: g, runs: true}
}

// End ends the operation, if it has not ended.
func (o *Operation) End() {
	if o.runs {
		o.runs = false
		o.gate.Leave(1)
	}
}

// Outside calls f while the operation does not count. It reports false if the
// gate is closed by then: the operation has ended, and may only undo what it
// has done here.
func (o *Operation) Outside(f func()) bool {
	o.End()
	f()
	o.runs = o.gate.Enter(1)
	return o.runs
}

// Runs reports whether the operation has not ended.
func (o *Operation) Runs() bool { return o.runs }
