// Smoke speaks once through each of several chat processes and checks that all
// of them heard everything in one order:
//
//	go run ./examples/chat/smoke localhost:8080 localhost:8081
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/coder/websocket"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "smoke:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, addrs []string) error {
	if len(addrs) == 0 {
		return fmt.Errorf("which addresses? host:port …")
	}
	var pages []*websocket.Conn
	for i, addr := range addrs {
		query := url.Values{"room": {"연기 시험"}, "name": {name(i)}}
		ws, _, err := websocket.Dial(ctx, "ws://"+addr+"/ws?"+query.Encode(), nil)
		if err != nil {
			return err
		}
		defer ws.CloseNow()
		pages = append(pages, ws)
	}
	spoken := make(chan error, len(pages))
	for i, ws := range pages {
		go func() { spoken <- ws.Write(ctx, websocket.MessageText, []byte(greeting(i))) }()
	}
	for range pages {
		if err := <-spoken; err != nil {
			return err
		}
	}
	var first []string
	for i, ws := range pages {
		heard, err := listen(ctx, ws, len(pages))
		if err != nil {
			return fmt.Errorf("%s: %w", addrs[i], err)
		}
		if i == 0 {
			first = heard
		}
		if !slices.Equal(heard, first) {
			return fmt.Errorf("%s heard %q, but %s heard %q", addrs[0], first, addrs[i], heard)
		}
	}
	for i := range pages {
		if want := name(i) + ": " + greeting(i); !slices.Contains(first, want) {
			return fmt.Errorf("nobody heard %q, but %q", want, first)
		}
	}
	fmt.Printf("%d processes heard %q\n", len(pages), first)
	return nil
}

func name(i int) string { return fmt.Sprintf("손님 %d", i+1) }
func greeting(i int) string {
	return fmt.Sprintf("안녕하세요, %d번 서버에서 인사드립니다", i+1)
}

// listen returns the next n messages; a frame of another kind is an error.
func listen(ctx context.Context, ws *websocket.Conn, n int) ([]string, error) {
	var heard []string
	for range n {
		_, frame, err := ws.Read(ctx)
		if err != nil {
			return nil, fmt.Errorf("after %q: %w", heard, err)
		}
		var m struct{ From, Text *string }
		if err := json.Unmarshal(frame, &m); err != nil || m.From == nil || m.Text == nil {
			return nil, fmt.Errorf("after %q: no message: %s", heard, frame)
		}
		heard = append(heard, *m.From+": "+*m.Text)
	}
	return heard, nil
}
