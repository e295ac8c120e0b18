package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/url"
)

// Opcodes of WebSocket frames.
const (
	opText  = 1
	opClose = 8
	opPing  = 9
	opPong  = 10
)

// A webSocket is the client's side of a WebSocket, with only what a load
// generator needs: whole text frames of less than 64 KiB, which it reads
// without copying.
type webSocket struct {
	net.Conn
	in   *bufio.Reader
	used int // bytes of the frame that next has returned last
}

func dialWebSocket(ctx context.Context, addr, path string) (*webSocket, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "websocket")
	req.Header.Set("Sec-WebSocket-Version", "13")
	req.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==") // any will do
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	ws := &webSocket{Conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}
	if err := req.Write(conn); err != nil {
		conn.Close()
		return nil, err
	}
	resp, err := http.ReadResponse(ws.in, req)
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		err = fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return ws, nil
}

func query(room, name string) string {
	return url.Values{"room": {room}, "name": {name}}.Encode()
}

// next returns the next text, which is valid until the call after it.
func (ws *webSocket) next() ([]byte, error) {
	for {
		opcode, payload, err := ws.frame()
		switch {
		case err != nil:
			return nil, err
		case opcode == opText:
			return payload, nil
		case opcode == opPing:
			if err := ws.write(opPong, string(payload)); err != nil {
				return nil, err
			}
		case opcode == opClose:
			return nil, fmt.Errorf("the server has closed: %q", payload)
		default:
			return nil, fmt.Errorf("a frame of opcode %d", opcode)
		}
	}
}

// frame reads a frame. Servers do not mask frames.
func (ws *webSocket) frame() (opcode byte, payload []byte, err error) {
	ws.in.Discard(ws.used)
	ws.used = 0
	head, err := ws.in.Peek(2)
	if err != nil {
		return 0, nil, err
	}
	if head[0]&0x80 == 0 || head[1] > 126 {
		return 0, nil, fmt.Errorf("a frame that is a part, masked or too long: %x", head)
	}
	header, size := 2, int(head[1])
	if size == 126 {
		if head, err = ws.in.Peek(4); err != nil {
			return 0, nil, err
		}
		header, size = 4, int(binary.BigEndian.Uint16(head[2:]))
	}
	frame, err := ws.in.Peek(header + size)
	if err != nil {
		return 0, nil, err
	}
	ws.used = header + size
	return frame[0] & 0x0f, frame[header:], nil
}

// write writes a frame, masked as a client must. It may be called while another
// goroutine reads.
func (ws *webSocket) write(opcode byte, payload string) error {
	mask := [4]byte{0x12, 0x34, 0x56, 0x78} // any mask will do
	frame := make([]byte, 0, len(payload)+8)
	frame = append(frame, 0x80|opcode)
	if n := len(payload); n < 126 {
		frame = append(frame, 0x80|byte(n))
	} else {
		frame = append(frame, 0x80|126)
		frame = binary.BigEndian.AppendUint16(frame, uint16(n))
	}
	frame = append(frame, mask[:]...)
	for i := range len(payload) {
		frame = append(frame, payload[i]^mask[i%4])
	}
	_, err := ws.Write(frame)
	return err
}
