package fanout

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestAdmissionIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, admit := make(chan struct{}, 8), make(chan error)
		h, err := New(nil, &Options{Admit: func(context.Context, string, *Member) error {
			asked <- struct{}{}
			return <-admit
		}})
		require.NoError(t, err)
		defer h.Close(t.Context())
		m, err := h.Connect(nil)
		require.NoError(t, err)
		joined := make(chan error)
		go func() { joined <- h.Room("x").Join(context.Background(), m) }()
		<-asked
		roomView{h.lookup(h.names.Room("x"))}.Expel() // a command looks for members, and does not find this one
		require.Empty(t, h.Room("x").Members())
		admit <- nil
		<-asked
		admit <- ErrRefused
		require.ErrorIs(t, <-joined, ErrRefused)
	})
}
