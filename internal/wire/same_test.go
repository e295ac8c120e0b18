package wire

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSame(t *testing.T) {
	frame := func(h Header, data string) []byte {
		return AppendMessage(AppendHeader(nil, &h), &Message{Data: []byte(data)})
	}
	h := Header{Hub: 1, Time: 1, Stream: 2, Seq: 3, Count: 1}
	f := frame(h, "x")
	require.True(t, Same(f, f))
	require.True(t, Same(f, Again(f, true, 0)), "another attempt to send it")
	for what, change := range map[string]func(*Header){
		"hub":    func(h *Header) { h.Hub++ },
		"stream": func(h *Header) { h.Stream++ },
		"number": func(h *Header) { h.Seq++ },
	} {
		other := h
		change(&other)
		require.False(t, Same(f, frame(other, "x")), "another %s", what)
	}
	require.True(t, Same([]byte("no frame"), []byte("no frame")))
	require.False(t, Same([]byte("no frame"), f))
	require.False(t, Same(f, []byte("no frame")))
}
