package nats

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The errors of JetStream that matter here.
const (
	codeStreamNotFound   = 10059
	codeNoPeers          = 10005 // for the replicas of a stream
	codeUnavailable      = 10008 // the cluster has no leader
	codeMessageNotFound  = 10037
	codeWrongSequence    = 10071
	codeWrongSequenceToo = 10164 // while another message is being stored
	codeTwiceAtOnce      = 10158 // while a message with the same ID is being stored
	codeInsufficient     = 10023 // resources
	codeNotForAccount    = 10039
	codeNotEnabled       = 10076
	codeNameInUse        = 10058
)

// noteAge is how much longer than its messages the stream keeps a record.
const noteAge = 24 * time.Hour

// dedupe is the time in which a stream recognises a message ID.
const dedupe = 2 * time.Minute

func (a *Adapter) streamName(p int) string {
	return strings.ToUpper(strings.ReplaceAll(a.o.Prefix, ".", "_")) + "_" + strconv.Itoa(p)
}

// storeSubject returns the subject to which only the stream listens. A
// channel's name may be anything of up to a kilobyte; a subject may not.
func (a *Adapter) storeSubject(p int, channel string) string {
	sum := sha256.Sum256([]byte(channel))
	return fmt.Sprintf("%s.h.%d.%s", a.o.Prefix, p, hex.EncodeToString(sum[:16]))
}

// A stream is what is known of a partition's stream.
type stream struct {
	created time.Time
	skew    time.Duration // how far the server's clock is ahead of ours
	life    uint64        // of the one server that has it; 0: it has replicas
	// floor: epochs that began before this, in ms, are over. The stream lacks
	// something that it had.
	floor uint64
}

// now is the time at the server, in ms since 1970.
func (s *stream) now() uint64 { return uint64(max(1, time.Now().Add(s.skew).UnixMilli())) }

// streams are the streams that were looked at since the connection was made.
type streams struct {
	mu     sync.Mutex
	known  map[int]*stream
	fresh  map[int]bool
	behind map[string]time.Time // since when a channel lacks records that it had
}

// believeLoss is how long a channel must lack records that it had, in a stream
// with replicas, before they count as lost: a leader that was cut off continues
// to answer until it notices.
const believeLoss = 10 * time.Second

// forgetBehind is how long a channel counts as behind if nobody looks at it.
const forgetBehind = time.Hour

// lost notes that a channel lacks records that it had. It returns an error as
// long as they may come back. Otherwise it ends all epochs of the stream.
func (s *streams) lost(p int, channel string, was *stream) (*stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	since, ok := s.behind[channel]
	if !ok || time.Since(since) > forgetBehind {
		maps.DeleteFunc(s.behind, func(_ string, since time.Time) bool { return time.Since(since) > forgetBehind })
		since = time.Now()
		s.behind[channel] = since
	}
	if was.life == 0 && time.Since(since) < believeLoss {
		return nil, errors.New("the stream lacks what it had: its leader may be an old one")
	}
	delete(s.behind, channel)
	now := *was
	now.floor = now.now()
	s.known[p] = &now
	return &now, nil
}

// complete notes that a channel has all the records that it had.
func (s *streams) complete(channel string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.behind, channel)
}

// forgetStreams makes the adapter look at each stream again before it is used.
func (a *Adapter) forgetStreams() {
	a.streams.mu.Lock()
	defer a.streams.mu.Unlock()
	clear(a.streams.fresh)
}

func (a *Adapter) forgetStream(p int) {
	a.streams.mu.Lock()
	defer a.streams.mu.Unlock()
	delete(a.streams.fresh, p)
}

// stream returns the stream of a partition, and makes it if it is not there.
func (a *Adapter) stream(ctx context.Context, nc *nats.Conn, p int) (*stream, error) {
	a.streams.mu.Lock()
	s, fresh := a.streams.known[p], a.streams.fresh[p]
	a.streams.mu.Unlock()
	if fresh {
		return s, nil
	}
	clustered := nc.ConnectedClusterName() != ""
	config := a.streamConfig(p, clustered)
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	seen := a.seenOf(p) // before the stream is asked: others append meanwhile
	var began, ended time.Time
	var handle jetstream.Stream
	err = untilAnswered(ctx, func(ctx context.Context) error {
		defer func() { ended = time.Now() }()
		began = time.Now()
		handle, err = js.Stream(ctx, config.Name)
		if apiCode(err) == codeStreamNotFound {
			began = time.Now()
			handle, err = js.CreateStream(ctx, config)
			if apiCode(err) == codeNameInUse { // another hub was faster, perhaps with another number of replicas
				handle, err = js.Stream(ctx, config.Name) // which some servers may not know yet
			}
		}
		return err
	})
	if err != nil {
		return nil, a.streamError(nc, err)
	}
	info := handle.CachedInfo()
	if err := fits(info.Config, config); err != nil {
		return nil, err
	}
	now := &stream{created: info.Created}
	if !info.TimeStamp.IsZero() {
		now.skew = skewOf(info.TimeStamp, began, ended)
	}
	if info.Config.Replicas <= 1 {
		now.life = 1 // in a cluster it cannot be known whether the server was restarted
		if !clustered {
			sum := sha256.Sum256([]byte(nc.ConnectedServerId()))
			now.life = binary.BigEndian.Uint64(sum[:]) | 1
		}
	}
	a.learn(p, now, info.State.LastSeq, seen)
	return now, nil
}

// skewOf returns by how much the clock of a server is ahead of this process',
// when the server has told the time at between began and ended here. It is the
// least difference that explains this. So it is zero between clocks that agree,
// however long the server has taken, as it does to create a stream.
func skewOf(at, began, ended time.Time) time.Duration {
	return max(at.Sub(ended), min(at.Sub(began), 0))
}

// seenOf returns the last number that this adapter has seen of a stream.
func (a *Adapter) seenOf(p int) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lastKept[p]
}

// learn notes a stream that was looked at, its last number, and whether it has
// lost something. The seen parameter is the last number that this adapter had
// seen before the stream was asked.
func (a *Adapter) learn(p int, s *stream, last, seen uint64) {
	back := s.life != 0 && last < seen
	a.mu.Lock()
	if back || last > a.lastKept[p] {
		a.lastKept[p] = last
	}
	a.mu.Unlock()
	a.streams.mu.Lock()
	defer a.streams.mu.Unlock()
	if before := a.streams.known[p]; before != nil {
		s.floor = before.floor
		back = back || !before.created.Equal(s.created)
	}
	if back {
		s.floor = s.now()
	}
	a.streams.known[p], a.streams.fresh[p] = s, true
}

func (a *Adapter) streamConfig(p int, clustered bool) jetstream.StreamConfig {
	replicas := a.o.Replicas
	if replicas == 0 {
		replicas = 1
		if clustered {
			replicas = 3
		}
	}
	source := fmt.Sprintf("%s.h.%d.*", a.o.Prefix, p)
	return jetstream.StreamConfig{
		Name:        a.streamName(p),
		Description: "fanout: histories of the rooms in partition " + strconv.Itoa(p),
		Subjects:    []string{source},
		Replicas:    replicas,
		Storage:     jetstream.FileStorage,
		Discard:     jetstream.DiscardOld,
		Duplicates:  dedupe,
		AllowDirect: true,
		AllowMsgTTL: true,
		RePublish:   &jetstream.RePublish{Source: source, Destination: a.subject(p)},
	}
}

// fits returns an error if an existing stream is not configured as this adapter
// needs it.
func fits(has, want jetstream.StreamConfig) error {
	var wrong []string
	if len(has.Subjects) != 1 || has.Subjects[0] != want.Subjects[0] {
		wrong = append(wrong, "subjects")
	}
	if has.RePublish == nil || has.RePublish.Source != want.RePublish.Source || has.RePublish.Destination != want.RePublish.Destination {
		wrong = append(wrong, "republish")
	}
	if !has.AllowDirect {
		wrong = append(wrong, "allow_direct")
	}
	if !has.AllowMsgTTL {
		wrong = append(wrong, "allow_msg_ttl (NATS 2.11)")
	}
	if has.Duplicates < want.Duplicates {
		wrong = append(wrong, "duplicate_window")
	}
	if wrong == nil {
		return nil
	}
	return fmt.Errorf("%w: stream %s is not as this adapter makes it: %s", adapter.ErrRefused, has.Name, strings.Join(wrong, ", "))
}

// streamError adds to an error of JetStream what it means.
func (a *Adapter) streamError(nc *nats.Conn, err error) error {
	code := apiCode(err)
	connected := nc.IsConnected() // otherwise the client does not know what the server has
	has, _ := nc.ConnectedServerJetStream()
	connected = connected && nc.IsConnected()
	refused := code == codeNotForAccount || code == codeNotEnabled ||
		errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) ||
		errors.Is(err, nats.ErrNoResponders) && connected && !has
	if refused {
		return fmt.Errorf("%w: the NATS server has no JetStream, which histories need: %w", adapter.ErrRefused, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for key, denial := range a.link.denied {
		if strings.HasPrefix(key, "publish $JS.") || strings.HasPrefix(key, "publish "+a.o.Prefix+".h.") || strings.HasPrefix(key, "subscription _INBOX.") {
			return fmt.Errorf("%w: %w (%w)", adapter.ErrRefused, denial, err)
		}
	}
	return err
}

func apiCode(err error) int {
	var e *jetstream.APIError
	if errors.As(err, &e) {
		return int(e.ErrorCode)
	}
	var js jetstream.JetStreamError
	if errors.As(err, &js) && js.APIError() != nil {
		return int(js.APIError().ErrorCode)
	}
	return 0
}

// last reads the last record of a channel from the stream's leader.
func (a *Adapter) last(ctx context.Context, nc *nats.Conn, p int, channel string) (head, error) {
	return a.get(ctx, nc, p, channel, map[string]any{"last_by_subj": a.storeSubject(p, channel)})
}

// get reads a record of a channel from the stream's leader. If there is none,
// the head has the number 0.
func (a *Adapter) get(ctx context.Context, nc *nats.Conn, p int, channel string, which map[string]any) (head, error) {
	request, _ := json.Marshal(which)
	m, err := a.request(ctx, nc, "$JS.API.STREAM.MSG.GET."+a.streamName(p), request)
	if err != nil {
		return head{}, err
	}
	var reply struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Seq  uint64    `json:"seq"`
			Data []byte    `json:"data"`
			Time time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(m.Data, &reply); err != nil {
		return head{}, fmt.Errorf("the answer of JetStream: %w", err)
	}
	if reply.Error != nil {
		if reply.Error.ErrorCode == codeMessageNotFound {
			return head{record: record{channel: channel}}, nil
		}
		if reply.Error.ErrorCode == codeStreamNotFound {
			a.forgetStream(p)
		}
		return head{}, reply.Error
	}
	r, err := stored(reply.Message.Data, channel)
	return head{record: r, seq: reply.Message.Seq, time: reply.Message.Time}, err
}

// stored reads a record that a stream has for a channel.
func stored(data []byte, channel string) (record, error) {
	if len(data) > 0 && data[0] == kindKept {
		if r, err := readRecord(&reader{rest: data[1:]}); err == nil && r.channel == channel {
			return r, nil
		}
	}
	return record{}, fmt.Errorf("%w: %w: the stream has what no adapter has written", adapter.ErrRefused, adapter.ErrBrokenHistory)
}

// continues returns the record that follows a head, without its contents. If
// the head is from before the server was restarted, the record begins an epoch.
func (s *stream) continues(h head, channel string) record {
	r := record{at: h.at, ordinal: h.ordinal + 1, life: s.life, before: h.before, channel: channel}
	switch {
	case h.seq == 0:
		r.at.Epoch = max(s.now(), s.floor)
	case h.life != s.life || h.at.Epoch < s.floor:
		r.before = append(append([]adapter.PastEpoch(nil), h.before...), adapter.PastEpoch{Epoch: h.at.Epoch, Last: h.at.Offset})
		if len(r.before) > maxPast {
			r.before = r.before[len(r.before)-maxPast:]
		}
		r.at.Epoch = max(s.now(), s.floor, h.at.Epoch+1)
	}
	return r
}
