package main

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/fanoutgo/fanout"
)

// A people is the frame for who is in the room, on all processes. It has no
// text, so it cannot be mistaken for a message.
type people struct {
	People change `json:"people"`
}

// A change says who has come and gone. A name is there once, however many pages
// it has open.
type change struct {
	// All means that Joined are all who are here, or some of them if Sample.
	All    bool     `json:"all,omitempty"`
	Sample bool     `json:"sample,omitempty"`
	Joined []string `json:"joined,omitempty"`
	Left   []string `json:"left,omitempty"`
	Pages  int      `json:"pages"` // that are open in the room
}

// peopleOf returns the document of a change.
func peopleOf(c fanout.PresenceChange) []byte {
	return encode(people{change{
		All:    c.Reset,
		Sample: c.Large,
		Joined: namesOf(c.Joined),
		Left:   namesOf(c.Left),
		Pages:  c.Count,
	}})
}

// namesOf leaves out members without a user, which are no pages.
func namesOf(persons []fanout.Person) (names []string) {
	for _, p := range persons {
		if p.User != "" {
			names = append(names, p.User)
		}
	}
	return names
}

// maxKicks bounds the kicks that are under way. Each asks all processes who is
// in the room.
const maxKicks = 4

// serveKick serves POST /kick?room=R&name=N&by=M: it closes the pages that N
// has open in the room, on all processes, and tells them who wanted it. There
// is no login here, so anybody may kick anybody.
func (s *server) serveKick(w http.ResponseWriter, r *http.Request) {
	v, err := visitOf(r)
	by := r.URL.Query().Get("by")
	if err == nil {
		err = wrongName("by", by)
	}
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	case !sameOrigin(r):
		http.Error(w, "pages of another origin may not kick anybody", http.StatusForbidden)
		return
	}
	select {
	case s.kicks <- struct{}{}:
		defer func() { <-s.kicks }()
	default:
		http.Error(w, "too many are being kicked at the moment", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.timing.join)
	defer cancel()
	switch n, err := s.kick(ctx, v.room, v.name, "removed by "+by); {
	case errors.Is(err, fanout.ErrInvalidRoom):
		http.Error(w, err.Error(), http.StatusBadRequest)
	case err != nil:
		s.log.Warn("not kicked", "room", v.room, "name", v.name, "by", by, "error", err)
		http.Error(w, "the room cannot be reached at the moment", http.StatusServiceUnavailable)
	case n == 0:
		http.Error(w, "nobody of that name is in the room", http.StatusNotFound)
	default:
		s.log.Info("kicked", "room", v.room, "name", v.name, "by", by, "pages", n)
		w.WriteHeader(http.StatusNoContent)
	}
}

// kick closes the pages that a name has open in a room, and returns how many
// these were.
//
// If a process does not answer, the pages on the others are closed all the
// same, and the error says which one it was.
func (s *server) kick(ctx context.Context, room, name, reason string) (n int, err error) {
	asking, cancel := context.WithTimeout(ctx, s.timing.join/2) // the rest is for closing
	defer cancel()
	var pages []string
	for m, failed := range s.hub.In(room).Members(asking) {
		if failed != nil {
			err = failed
		} else if m.User == name {
			pages = append(pages, m.ID)
		}
	}
	for some := range slices.Chunk(pages, 100) {
		err = errors.Join(err, s.hub.To(some...).Close(ctx, reason))
	}
	return len(pages), err
}
