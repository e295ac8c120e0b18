package notices

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

// A channel keeps what is sent.
type channel struct {
	held, holds int // now, and in all
	sent        [][]byte
	receivers   int
	err         error
	stuck       bool // a notice waits until its context ends
}

func (o *channel) Hold() {
	o.held++
	o.holds++
}
func (o *channel) Release() { o.held-- }

func (o *channel) Notify(ctx context.Context, notice []byte) (receivers int, err error) {
	o.sent = append(o.sent, notice)
	if o.stuck {
		<-ctx.Done()
		return 0, context.Cause(ctx)
	}
	return o.receivers, o.err
}

var errEnded = errors.New("the hub has ended")

// in runs a test with a hub that has number 7, the channel of everyone, and
// that of the inbox of hub 9.
func in(t *testing.T, test func(t *testing.T, s *Sender, end context.CancelCauseFunc, everyone, inbox *channel)) {
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		ctx, end := context.WithCancelCause(context.Background())
		everyone, inbox := new(channel), new(channel)
		test(t, &Sender{
			Hub: 7, Context: ctx, Go: wg.Go,
			Everyone: func() Channel { return everyone },
			Inbox: func(hub uint64) Channel {
				require.EqualValues(t, 9, hub)
				inbox.Hold()
				return inbox
			},
		}, end, everyone, inbox)
		end(errEnded)
		wg.Wait()
		require.Zero(t, everyone.held)
		require.Zero(t, inbox.held)
	})
}

func TestSender(t *testing.T) {
	cancel := &control.Cancel{ID: 5}
	t.Run("makes notices of payloads", func(t *testing.T) {
		in(t, func(t *testing.T, s *Sender, _ context.CancelCauseFunc, _, _ *channel) {
			from, payload, err := wire.DecodeControl(s.Frame(cancel))
			require.NoError(t, err)
			require.EqualValues(t, 7, from)
			p, err := control.Decode(payload)
			require.NoError(t, err)
			require.Equal(t, cancel, p)
			require.Equal(t, s.Frame(cancel), s.FrameOf(cancel.Append(nil)))
		})
	})
	t.Run("tells one hub, and returns whom that has reached", func(t *testing.T) {
		in(t, func(t *testing.T, s *Sender, _ context.CancelCauseFunc, everyone, inbox *channel) {
			inbox.receivers = 1
			receivers, err := s.Tell(t.Context(), 9, cancel.Append(nil))
			require.NoError(t, err)
			require.Equal(t, 1, receivers)
			require.Equal(t, [][]byte{s.Frame(cancel)}, inbox.sent)
			require.NoError(t, s.NotifyHub(9, []byte("notice")))
			require.Equal(t, "notice", string(inbox.sent[1]))
			require.Empty(t, everyone.sent)
			require.Equal(t, 2, inbox.holds)
		})
	})
	t.Run("tells all hubs", func(t *testing.T) {
		in(t, func(t *testing.T, s *Sender, _ context.CancelCauseFunc, everyone, inbox *channel) {
			require.NoError(t, s.NotifyEveryone([]byte("notice")))
			require.Equal(t, [][]byte{[]byte("notice")}, everyone.sent)
			require.Empty(t, inbox.sent)
		})
	})
	t.Run("returns what the backend says", func(t *testing.T) {
		in(t, func(t *testing.T, s *Sender, _ context.CancelCauseFunc, everyone, inbox *channel) {
			everyone.err, inbox.err = errors.New("refused"), errors.New("down")
			require.Equal(t, everyone.err, s.NotifyEveryone(nil))
			require.Equal(t, inbox.err, s.NotifyHub(9, nil))
			_, err := s.Tell(t.Context(), 9, nil)
			require.Equal(t, inbox.err, err)
		})
	})
	t.Run("gives the backend a bounded time", func(t *testing.T) {
		in(t, func(t *testing.T, s *Sender, _ context.CancelCauseFunc, everyone, inbox *channel) {
			everyone.stuck, inbox.stuck = true, true
			begun := time.Now()
			require.ErrorIs(t, s.NotifyEveryone(nil), context.DeadlineExceeded)
			require.ErrorIs(t, s.NotifyHub(9, nil), context.DeadlineExceeded)
			require.Equal(t, 2*Timeout, time.Since(begun))
		})
	})
	t.Run("ends with the hub", func(t *testing.T) {
		in(t, func(t *testing.T, s *Sender, end context.CancelCauseFunc, everyone, _ *channel) {
			everyone.stuck = true
			time.AfterFunc(time.Second, func() { end(errEnded) })
			require.Equal(t, errEnded, s.NotifyEveryone(nil))
		})
	})
	t.Run("holds a channel while something goes on beside", func(t *testing.T) {
		in(t, func(t *testing.T, s *Sender, _ context.CancelCauseFunc, everyone, _ *channel) {
			goOn := make(chan struct{})
			s.Beside(everyone, func() { <-goOn })
			synctest.Wait()
			require.Equal(t, 1, everyone.held)
			close(goOn)
			synctest.Wait()
			require.Zero(t, everyone.held)
		})
	})
}
