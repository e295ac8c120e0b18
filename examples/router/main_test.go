package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/fanoutgo/fanout/adapter/partition"
	"github.com/stretchr/testify/require"
)

func TestRouter(t *testing.T) {
	var servers []*httptest.Server
	var names []string
	for range 3 {
		s := httptest.NewServer(nil)
		s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Header.Get("Upgrade") != "":
				if ws, err := websocket.Accept(w, r, nil); err == nil {
					_ = ws.CloseNow()
				}
			case r.Method == http.MethodPost:
				body, err := io.ReadAll(r.Body)
				if err != nil {
					http.Error(w, err.Error(), http.StatusBadRequest)
					return
				}
				fmt.Fprintf(w, "%s got %s", s.URL, body)
			default:
				fmt.Fprint(w, s.URL)
			}
		})
		servers = append(servers, s)
		names = append(names, s.URL)
		t.Cleanup(s.Close)
	}
	handler, err := newRouter(names)
	require.NoError(t, err)
	router := httptest.NewServer(handler)
	t.Cleanup(router.Close)
	client := router.Client()
	get := func(room string) string {
		response, err := client.Get(router.URL + "/ws?user=ann&room=" + url.QueryEscape(room))
		require.NoError(t, err)
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, response.StatusCode, string(body))
		return string(body)
	}

	t.Run("sends a room's people to the same server", func(t *testing.T) {
		used := make(map[string]bool)
		for i := range 50 {
			room := fmt.Sprint("room ", i)
			server := get(room)
			require.Equal(t, partition.Pick(names, room), server)
			require.Equal(t, server, get(room))
			used[server] = true
		}
		require.Len(t, used, 3)
	})
	t.Run("passes WebSockets on that check where they come from", func(t *testing.T) {
		ws, _, err := websocket.Dial(t.Context(), router.URL+"/ws?room=lobby", &websocket.DialOptions{
			HTTPHeader: http.Header{"Origin": {router.URL}},
		})
		require.NoError(t, err)
		require.NoError(t, ws.CloseNow())
	})
	t.Run("sends them to the next server when one is down", func(t *testing.T) {
		servers[0].CloseClientConnections()
		servers[0].Close()
		for i := range 50 {
			room := fmt.Sprint("room ", i)
			want := partition.Pick(names, room)
			if want == names[0] {
				want = partition.Pick(names[1:], room)
			}
			require.Equal(t, want, get(room))
			response, err := client.Post(router.URL+"/?room="+url.QueryEscape(room), "", strings.NewReader("body of "+room))
			require.NoError(t, err)
			body, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			require.Equal(t, want+" got body of "+room, string(body))
		}
	})
	t.Run("needs servers", func(t *testing.T) {
		for _, args := range [][]string{nil, {"localhost:8081"}, {""}} {
			_, err := newRouter(args)
			require.Error(t, err)
		}
	})
}
