package adaptertest

// NeedsHistory reports whether the case is about adapter.Historian.
func (c Case) NeedsHistory() bool { return c.needs&needHistory != 0 }
