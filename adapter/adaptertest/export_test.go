package adaptertest

// NeedsHistory reports whether the case is about fanout.Historian.
func (c Case) NeedsHistory() bool { return c.needs&needHistory != 0 }
