// Smoke sends a message through each of several chat processes and checks that
// a page of each gets all messages, in one order. With -history it also checks
// that a page that joins later gets them:
//
//	go run -C examples/chat ./smoke [-history] localhost:8080 localhost:8081
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/coder/websocket"
)

func main() {
	history := flag.Bool("history", false, "the processes were started with -history")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := run(ctx, flag.Args(), *history); err != nil {
		fmt.Fprintln(os.Stderr, "smoke:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, addrs []string, history bool) error {
	if len(addrs) == 0 {
		return fmt.Errorf("no addresses: give host:port …")
	}
	var pages []*websocket.Conn
	for i, addr := range addrs {
		ws, err := dial(ctx, addr, url.Values{"name": {name(i)}})
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
	var first []heard
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
		said := func(h heard) bool { return h.from == name(i) && h.text == greeting(i) }
		if !slices.ContainsFunc(first, said) {
			return fmt.Errorf("nobody heard %q, but %q", greeting(i), first)
		}
	}
	fmt.Printf("%d processes heard %q\n", len(pages), first)
	if !history {
		return nil
	}
	for _, addr := range addrs {
		if err := resume(ctx, addr, "v1-0-0", first); err != nil {
			return err
		}
		if err := resume(ctx, addr, first[0].pos, first[1:]); err != nil {
			return err
		}
	}
	fmt.Println("and so did those who came later")
	return nil
}

// resume joins late, and must get the messages after a position.
func resume(ctx context.Context, addr, since string, want []heard) error {
	ws, err := dial(ctx, addr, url.Values{"name": {"늦은 손님"}, "since": {since}})
	if err != nil {
		return err
	}
	defer ws.CloseNow()
	got, err := listen(ctx, ws, len(want))
	if err != nil || !slices.Equal(got, want) {
		return fmt.Errorf("since %q of %s is %q and not %q: %v", since, addr, got, want, err)
	}
	return nil
}

func dial(ctx context.Context, addr string, query url.Values) (*websocket.Conn, error) {
	query.Set("room", "연기 시험")
	ws, _, err := websocket.Dial(ctx, "ws://"+addr+"/ws?"+query.Encode(), nil)
	return ws, err
}

func name(i int) string { return fmt.Sprintf("손님 %d", i+1) }
func greeting(i int) string {
	return fmt.Sprintf("안녕하세요, %d번 서버에서 인사드립니다", i+1)
}

// A heard is a message; pos is its position, if the processes keep a history.
type heard struct{ from, text, pos string }

// listen returns the next n messages; a frame of another kind is an error.
func listen(ctx context.Context, ws *websocket.Conn, n int) ([]heard, error) {
	var all []heard
	for len(all) < n {
		_, frame, err := ws.Read(ctx)
		if err != nil {
			return nil, fmt.Errorf("after %q: %w", all, err)
		}
		var m struct {
			From, Text *string
			Pos        string
			People     any
		}
		if json.Unmarshal(frame, &m) == nil && m.People != nil {
			continue // who is here
		}
		if err := json.Unmarshal(frame, &m); err != nil || m.From == nil || m.Text == nil {
			return nil, fmt.Errorf("after %q: no message: %s", all, frame)
		}
		all = append(all, heard{*m.From, *m.Text, m.Pos})
	}
	return all, nil
}
