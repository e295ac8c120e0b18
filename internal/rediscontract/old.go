package rediscontract

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// An oldServer speaks RESP3 as Redis 6 does, as far as hubs need it: it has
// classic Pub/Sub, scripts, and no command of a later release.
type oldServer struct {
	listener net.Listener
	serving  sync.WaitGroup

	mu          sync.Mutex // guards all below, and is held for writing replies
	conns       map[net.Conn]bool
	subscribers map[string]map[net.Conn]bool // by channel
}

func newOldServer(t testing.TB) *oldServer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &oldServer{listener: l, conns: make(map[net.Conn]bool), subscribers: make(map[string]map[net.Conn]bool)}
	s.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns[conn] = true
			s.mu.Unlock()
			s.serving.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		s.mu.Lock()
		for conn := range s.conns {
			_ = conn.Close()
		}
		s.mu.Unlock()
		s.serving.Wait()
	})
	return s
}

func (s *oldServer) clientOption() rueidis.ClientOption {
	return rueidis.ClientOption{InitAddress: []string{s.listener.Addr().String()}, ForceSingleClient: true, DisableCache: true}
}

func (s *oldServer) serve(conn net.Conn) {
	r := bufio.NewReader(conn)
	for {
		args, err := readCommand(r)
		if err != nil {
			break
		}
		s.mu.Lock()
		for _, reply := range s.replies(conn, args) {
			_, _ = io.WriteString(conn, reply)
		}
		s.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = conn.Close()
	delete(s.conns, conn)
	for _, subscribed := range s.subscribers {
		delete(subscribed, conn)
	}
}

// readCommand reads an array of bulk strings.
func readCommand(r *bufio.Reader) (args []string, err error) {
	length := func() (n int) {
		var line string
		if line, err = r.ReadString('\n'); err == nil {
			n, err = strconv.Atoi(strings.TrimSpace(line[1:]))
		}
		return n
	}
	for n := length(); err == nil && len(args) < n; {
		arg := make([]byte, length()+2)
		if err == nil {
			_, err = io.ReadFull(r, arg)
		}
		args = append(args, string(arg[:len(arg)-2]))
	}
	return args, err
}

func bulk(text string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(text), text) }

// replies answers a command. The lock is held.
func (s *oldServer) replies(conn net.Conn, args []string) (replies []string) {
	switch strings.ToUpper(args[0]) {
	case "HELLO":
		return []string{"%4\r\n" + bulk("server") + bulk("redis") + bulk("version") + bulk("6.0.16") +
			bulk("proto") + ":3\r\n" + bulk("role") + bulk("master")}
	case "INFO":
		return []string{bulk("redis_version:6.0.16\r\nrun_id:" + strings.Repeat("6", 40) + "\r\nrole:master\r\n")}
	case "ROLE":
		return []string{"*3\r\n" + bulk("master") + ":0\r\n*0\r\n"}
	case "PING":
		return []string{"+PONG\r\n"}
	case "CLIENT":
		return []string{"+OK\r\n"}
	case "SCRIPT":
		return []string{bulk(strings.Repeat("6", 40))}
	case "EVALSHA": // of a command of the script
		return []string{"-ERR Error running script (call to f_66): @user_script:425: ERR syntax error\r\n"}
	case "SUBSCRIBE", "UNSUBSCRIBE":
		kind := strings.ToLower(args[0])
		for _, channel := range args[1:] {
			if s.subscribers[channel] == nil {
				s.subscribers[channel] = make(map[net.Conn]bool)
			}
			if s.subscribers[channel][conn] = true; kind == "unsubscribe" {
				delete(s.subscribers[channel], conn)
			}
			replies = append(replies, ">3\r\n"+bulk(kind)+bulk(channel)+":1\r\n")
		}
		return replies
	case "PUBLISH":
		for to := range s.subscribers[args[1]] {
			_, _ = io.WriteString(to, ">3\r\n"+bulk("message")+bulk(args[1])+bulk(args[2]))
		}
		return []string{fmt.Sprintf(":%d\r\n", len(s.subscribers[args[1]]))}
	}
	return []string{fmt.Sprintf("-ERR unknown command `%s`, with args beginning with: `%s`, \r\n", args[0], strings.Join(args[1:], "`, `"))}
}
