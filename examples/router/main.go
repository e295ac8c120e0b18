// Router is a reverse proxy that sends all people of a room to the same server,
// so that a room is on one hub, or few, and costs the backend one subscription.
// The room is in the address, as ?room=lobby:
//
//	go run -C examples/chat . -addr localhost:8081 -adapter sharded -redis localhost:6379 &
//	go run -C examples/chat . -addr localhost:8082 -adapter sharded -redis localhost:6379 &
//	go run ./examples/router -listen localhost:8080 http://localhost:8081 http://localhost:8082
//
// The servers still need an adapter: a server that is down, or that a request
// reaches by another way, has people of the room, too.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"time"

	"github.com/fanoutgo/fanout/adapter/partition"
)

func main() {
	listen := flag.String("listen", "localhost:8080", "address to listen on")
	flag.Parse()
	handler, err := newRouter(flag.Args())
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ln, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	web := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	go func() { // ends with the process
		<-ctx.Done()
		web.Close()
	}()
	if err := web.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

// newRouter returns a handler that passes requests on to one of the servers:
// the one that the room prefers, or if that cannot be reached the next one.
func newRouter(servers []string) (http.Handler, error) {
	if len(servers) == 0 {
		return nil, errors.New("router: name the servers, such as http://localhost:8081")
	}
	for _, s := range servers {
		if u, err := url.Parse(s); err != nil || u.Host == "" {
			return nil, fmt.Errorf("router: %q is not the URL of a server", s)
		}
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			target, _ := url.Parse(partition.Pick(servers, room(r.In))) // checked above
			r.SetURL(target)
			r.Out.Host = r.In.Host // a WebSocket's Origin is compared with it
			r.SetXForwarded()
		},
		Transport: &nextServer{servers: servers},
	}, nil
}

// room is what a request is about.
func room(r *http.Request) string { return r.URL.Query().Get("room") }

// nextServer tries the other servers, in the order in which the room prefers
// them, if one cannot be reached. It has sent nothing then.
type nextServer struct{ servers []string }

func (t *nextServer) RoundTrip(r *http.Request) (*http.Response, error) {
	var errs []error
	for _, server := range partition.Rank(t.servers, room(r)) {
		target, err := url.Parse(server)
		if err != nil {
			return nil, err
		}
		try := r.Clone(r.Context())
		try.URL.Scheme, try.URL.Host = target.Scheme, target.Host
		if r.Body != nil {
			try.Body = io.NopCloser(r.Body) // the next try may need it; the proxy closes it
		}
		response, err := http.DefaultTransport.RoundTrip(try)
		var op *net.OpError
		if err == nil || !errors.As(err, &op) || op.Op != "dial" {
			return response, err
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
