package fanout

// payload returns data as members get it: never nil, so that an empty message
// looks the same whichever way it came.
func payload(data []byte) []byte {
	if data == nil {
		return []byte{}
	}
	return data
}

// clonePayload returns a copy of data as members get it.
func clonePayload(data []byte) []byte { return append([]byte{}, data...) }
