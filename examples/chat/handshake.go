package main

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A refusal is the answer to a request that does not become a WebSocket.
type refusal struct {
	status int
	reason string // a sentence for the client
}

func (f *refusal) write(w http.ResponseWriter) {
	if f.status == http.StatusUpgradeRequired {
		h := w.Header()
		h.Set("Connection", "Upgrade")
		h.Set("Upgrade", "websocket")
		h.Set("Sec-WebSocket-Version", "13")
	}
	http.Error(w, f.reason, f.status)
}

// judgeUpgrade returns what is wrong with a request for a WebSocket, nil if
// nothing is: https://www.rfc-editor.org/rfc/rfc6455#section-4.2.1. It sends
// nothing.
func judgeUpgrade(r *http.Request) *refusal {
	keys := r.Header.Values("Sec-WebSocket-Key")
	switch {
	case r.Method != http.MethodGet:
		return &refusal{http.StatusMethodNotAllowed, "a WebSocket begins with a GET"}
	case r.ProtoMajor != 1 || r.ProtoMinor < 1:
		return &refusal{http.StatusUpgradeRequired, "a WebSocket needs HTTP/1.1"}
	case !hasToken(r.Header, "Connection", "upgrade"), !hasToken(r.Header, "Upgrade", "websocket"):
		return &refusal{http.StatusUpgradeRequired, "this is the address of a WebSocket: Connection and Upgrade are missing"}
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		return &refusal{http.StatusUpgradeRequired, "the version of WebSocket must be 13"}
	case len(keys) != 1:
		return &refusal{http.StatusBadRequest, "there must be one Sec-WebSocket-Key"}
	case !sameOrigin(r):
		return &refusal{http.StatusForbidden, "pages of another origin may not speak here"}
	}
	if nonce, err := base64.StdEncoding.DecodeString(strings.TrimSpace(keys[0])); err != nil || len(nonce) != 16 {
		return &refusal{http.StatusBadRequest, "the Sec-WebSocket-Key must be 16 bytes in base64"}
	}
	return nil
}

// hasToken reports whether a header, which is a list, contains a token.
func hasToken(h http.Header, name, token string) bool {
	for _, line := range h.Values(name) {
		list := strings.Split(line, ",")
		if slices.ContainsFunc(list, func(t string) bool { return strings.EqualFold(strings.TrimSpace(t), token) }) {
			return true
		}
	}
	return false
}

// sameOrigin reports whether a request comes from one of our pages, or not from
// a page. Otherwise a page of another site could send messages in the names of
// its visitors. A proxy must pass on the Host that the browser has sent.
func sameOrigin(r *http.Request) bool {
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return true
	}
	u, err := url.Parse(origins[0])
	return err == nil && len(origins) == 1 && strings.EqualFold(u.Host, r.Host)
}

// acceptKey returns the answer to a Sec-WebSocket-Key.
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(strings.TrimSpace(key) + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// accept makes a WebSocket of a request that judgeUpgrade has accepted.
func accept(w http.ResponseWriter, r *http.Request, timeout time.Duration) (*conn, error) {
	hijacked, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "this connection cannot become a WebSocket", http.StatusInternalServerError)
		return nil, err
	}
	c := newConn(hijacked, bufferedOf(rw.Reader, hijacked), timeout)
	answer := fmt.Appendf(nil, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		acceptKey(r.Header.Get("Sec-WebSocket-Key")))
	if err := c.send(answer); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// bufferedOf returns a reader of a connection that is smaller than that of the
// HTTP server. It has the frames that a client may have sent already.
func bufferedOf(r *bufio.Reader, conn net.Conn) *bufio.Reader {
	const size = 1 << 10
	b, _ := r.Peek(r.Buffered())
	if len(b) == 0 {
		return bufio.NewReaderSize(conn, size)
	}
	return bufio.NewReaderSize(io.MultiReader(bytes.NewReader(bytes.Clone(b)), conn), size)
}
