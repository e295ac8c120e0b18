package fanout

// clonePayload returns a copy of data as members get it: never nil, so that an
// empty message looks the same whichever way it came.
func clonePayload(data []byte) []byte { return append([]byte{}, data...) }
