package migrate_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/migrate"
)

// A hub that is alone flips after Settle.
func ExampleNew() {
	ctx := context.Background()
	from, to := memory.NewBus(), memory.NewBus()
	a, err := migrate.New("to-another-bus", from.NewAdapter(), to.NewAdapter(), &migrate.Options{
		Settle: time.Second, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	hub, err := fanout.New(a, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Close(ctx)
	for a.Status().Phase != migrate.Flipped {
		time.Sleep(50 * time.Millisecond)
	}
	fmt.Println(a.Status().Phase, a.Status().Hubs)
	// Output: flipped 1
}
