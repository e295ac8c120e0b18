package main

import (
	"context"
	"crypto/sha256"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

const socketIOName = "socket.io"

//go:embed socketio/server.js socketio/package.json
var socketIOFiles embed.FS

// socketIOIsThere reports whether Socket.IO can run on this machine.
func socketIOIsThere() bool {
	_, node := exec.LookPath("node")
	_, npm := exec.LookPath("npm")
	return node == nil && npm == nil
}

// installSocketIO installs the server and its dependencies in the user's cache,
// once for each version of the two files.
func installSocketIO(ctx context.Context, nodes string) (*program, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	sum := sha256.New()
	files := make(map[string][]byte)
	for _, name := range []string{"package.json", "server.js"} {
		if files[name], err = socketIOFiles.ReadFile("socketio/" + name); err != nil {
			return nil, err
		}
		sum.Write(files[name])
	}
	dir := filepath.Join(cache, "fanout-bench", fmt.Sprintf("socketio-%x", sum.Sum(nil)[:6]))
	ready := filepath.Join(dir, "installed")
	if _, err := os.Stat(ready); err != nil {
		if err := npmInstall(ctx, dir, files); err != nil {
			return nil, fmt.Errorf("installing Socket.IO in %s: %w", dir, err)
		}
		if err := os.WriteFile(ready, nil, 0o644); err != nil {
			return nil, err
		}
	}
	return &program{
		name:    socketIOName,
		command: []string{"node", filepath.Join(dir, "server.js"), "127.0.0.1:0", nodes},
		dialect: socketIODialect,
	}, nil
}

func npmInstall(ctx context.Context, dir string, files map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	install := exec.CommandContext(ctx, "npm", "install", "--ignore-scripts", "--no-audit", "--no-fund")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// socketIODialect is version 4 of the protocol of Engine.IO, which contains
// that of Socket.IO: https://socket.io/docs/v4/socket-io-protocol.
var socketIODialect = dialect{
	path: func(room, name string) string { return "/socket.io/?EIO=4&transport=websocket&" + query(room, name) },
	greet: func(ws *webSocket) error {
		if err := expect(ws, "0{"); err != nil {
			return err
		}
		if err := ws.write(opText, "40"); err != nil {
			return err
		}
		return expect(ws, "40{")
	},
	say:     func(text string) string { return `42["msg",` + strconv.Quote(text) + `]` },
	message: []byte(`42["msg",`),
	other: func(ws *webSocket, frame []byte) error {
		if string(frame) == "2" { // a ping
			return ws.write(opText, "3")
		}
		return fmt.Errorf("instead of a message: %.200s", frame)
	},
}

func expect(ws *webSocket, prefix string) error {
	frame, err := ws.next()
	if err == nil && !strings.HasPrefix(string(frame), prefix) {
		err = fmt.Errorf("instead of %s: %.200s", prefix, frame)
	}
	return err
}
