package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// The configuration in docs/partition.md sends the WebSockets of a room to the
// same server.
func TestNginx(t *testing.T) {
	nginx, err := exec.LookPath("nginx")
	if err != nil && os.Getenv("CI") == "" {
		t.Skip("there is no nginx here")
	}
	require.NoError(t, err)
	text, err := os.ReadFile("../../docs/partition.md")
	require.NoError(t, err)
	_, block, ok := strings.Cut(string(text), "```nginx\n")
	require.True(t, ok)
	block, _, _ = strings.Cut(block, "```")

	var servers []*httptest.Server
	for i := range 3 {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ws, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			_ = ws.Write(r.Context(), websocket.MessageText, fmt.Append(nil, i))
			_ = ws.Close(websocket.StatusNormalClosure, "")
		}))
		t.Cleanup(s.Close)
		servers = append(servers, s)
		block = strings.ReplaceAll(block, fmt.Sprint("127.0.0.1:", 8081+i), s.Listener.Addr().String())
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := free.Addr().String()
	require.NoError(t, free.Close())
	dir := t.TempDir()
	config := fmt.Sprintf("worker_processes 1;\ndaemon off;\npid %[1]s/pid;\nerror_log %[1]s/error.log;\nevents {}\nhttp {\naccess_log off;\n%[2]s}\n",
		dir, strings.ReplaceAll(block, "127.0.0.1:8080", address))
	file := filepath.Join(dir, "nginx.conf")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	cmd := exec.CommandContext(ctx, nginx, "-c", file)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait()
	})
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)

	server := func(room string) string {
		ws, _, err := websocket.Dial(ctx, "ws://"+address+"/ws?user=ann&room="+room, &websocket.DialOptions{
			HTTPHeader: http.Header{"Origin": {"http://" + address}}, // the servers compare it with Host
		})
		require.NoError(t, err)
		defer ws.CloseNow()
		_, data, err := ws.Read(ctx)
		require.NoError(t, err)
		return string(data)
	}
	was := make(map[string]string)
	used := make(map[string]bool)
	for i := range 40 {
		room := fmt.Sprint("room", i)
		was[room] = server(room)
		require.Equal(t, was[room], server(room))
		used[was[room]] = true
	}
	require.Len(t, used, 3)
	servers[1].Close()
	for room, before := range was {
		after := server(room)
		if before != "1" {
			require.Equal(t, before, after)
		}
		require.NotEqual(t, "1", after)
	}
}
