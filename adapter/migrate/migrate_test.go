package migrate_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/migrate"
	"github.com/stretchr/testify/require"
)

func TestNewRefusesBadOptions(t *testing.T) {
	bus := memory.NewBus()
	a, b := bus.NewAdapter(), bus.NewAdapter()
	for name, f := range map[string]func() (*migrate.Adapter, error){
		"no adapter":        func() (*migrate.Adapter, error) { return migrate.New("x", a, nil, nil) },
		"a nil pointer":     func() (*migrate.Adapter, error) { return migrate.New("x", a, (*memory.Adapter)(nil), nil) },
		"a nil pointer too": func() (*migrate.Adapter, error) { return migrate.New("x", (*memory.Adapter)(nil), a, nil) },
		"a name in Latin-1": func() (*migrate.Adapter, error) { return migrate.New("x\xff", a, b, nil) },
		"one adapter twice": func() (*migrate.Adapter, error) { return migrate.New("x", a, a, nil) },
		"no name":           func() (*migrate.Adapter, error) { return migrate.New("", a, b, nil) },
		"a long name":       func() (*migrate.Adapter, error) { return migrate.New(strings.Repeat("x", 101), a, b, nil) },
		"braces":            func() (*migrate.Adapter, error) { return migrate.New("{x}", a, b, nil) },
		"a negative time":   func() (*migrate.Adapter, error) { return migrate.New("x", a, b, &migrate.Options{Settle: -1}) },
		"a bad prefix":      func() (*migrate.Adapter, error) { return migrate.New("x", a, b, &migrate.Options{Prefix: "{"}) },
	} {
		_, err := f()
		require.ErrorIs(t, err, adapter.ErrInvalidOption, name)
	}
}

// bare hides the capabilities of an adapter.
type bare struct{ adapter.Adapter }

func TestWithoutHistories(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, to := memory.NewBus(), memory.NewBus()
		a, err := migrate.New("test", bare{from.NewAdapter()}, bare{to.NewAdapter()}, nil)
		require.NoError(t, err)
		defer a.Close(context.Background())
		require.NoError(t, a.Attach(nobody{}))
		require.NoError(t, a.Subscribe(t.Context(), "room"))
		n, err := a.Publish(t.Context(), "room", []byte("hello"))
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.NoError(t, a.Health())
		_, _, err = a.Append(t.Context(), "room", adapter.Record{})
		require.ErrorIs(t, err, adapter.ErrRefused)
		_, err = a.History(t.Context(), "room", adapter.Query{})
		require.ErrorIs(t, err, adapter.ErrRefused)
		require.False(t, a.PublishAsync("room", nil, nil))
		time.Sleep(10 * time.Minute)
		require.Equal(t, migrate.Both, a.Status().Phase)
		require.Contains(t, a.Status().Waiting, "keeps no history")
	})
}

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, to := memory.NewBus(), memory.NewBus()
		everyone(t, from, 1)
		from.Cut()
		a, err := migrate.New("test", from.NewAdapter(), to.NewAdapter(), &migrate.Options{Settle: time.Minute})
		require.NoError(t, err)
		require.NoError(t, a.Attach(nobody{}))
		time.Sleep(time.Second)
		require.ErrorIs(t, a.Health(), memory.ErrCut)
		require.Equal(t, migrate.Asking, a.Status().Phase)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = a.Publish(ctx, "room", nil)
		require.ErrorIs(t, err, adapter.ErrUnsent)
		require.ErrorContains(t, err, "does not know whether the others have flipped")
		from.Heal()
		to.Cut()
		time.Sleep(5 * time.Second)
		require.NoError(t, a.Health(), "the new backend does not count yet")
		require.Contains(t, a.Status().Waiting, "does not listen to both")
		to.Heal()
		time.Sleep(2 * time.Minute)
		require.Equal(t, migrate.Flipped, a.Status().Phase)
		from.Cut()
		require.NoError(t, a.Health(), "the old backend counts no longer")
		to.Cut()
		require.ErrorIs(t, a.Health(), memory.ErrCut)
		require.NoError(t, a.Close(t.Context()))
		require.ErrorIs(t, a.Health(), adapter.ErrClosed)
	})
}
