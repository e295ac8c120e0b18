package redispubsub

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// replies are error replies of Redis 6 to 8 and of Valkey, as servers send
// them.
var replies = []struct {
	text string
	kind kind
}{
	{"ASK 3999 127.0.0.1:6381", kindAsk},
	{"BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", kindOther},
	{"BUSY Valkey is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.", kindOther},
	{"CLUSTERDOWN Hash slot not served", kindDown},
	{"CLUSTERDOWN The cluster is down", kindDown},
	{"CLUSTERDOWN The cluster is down and only accepts read commands", kindDown},
	{"EXECABORT Transaction discarded because of previous errors.", kindOther},
	{"FAILOVER in progress", kindOther},
	{"IOERR error or timeout reading to target instance", kindOther},
	{"LOADING Redis is loading the dataset in memory", kindDown},
	{"LOADING Valkey is loading the dataset in memory", kindDown},
	{"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", kindDown},
	{"MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. Commands that may modify the data set are disabled, because this instance is configured to report errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). Please check the Redis logs for details about the RDB error.", kindOther},
	{"MISCONF Errors writing to the AOF file: No space left on device", kindOther},
	{"MISCONF Errors writing to the AOF file: No space left on device script: fanout_append_0, on @user_function:12.", kindOther},
	{"MOVED 3999 127.0.0.1:6381", kindMoved},
	{"NOAUTH Authentication required.", kindOther},
	{"NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time", kindOther},
	{"NOGOODSLAVE No suitable replica to promote", kindOther},
	{"NOREPLICAS Not enough good replicas to write.", kindOther},
	{"NOTBUSY No scripts in execution right now.", kindOther},
	{"OOM command not allowed when used memory > 'maxmemory'.", kindMemory},
	{"OOM command not allowed when used memory > 'maxmemory'. script: fanout_append_0, on @user_function:12.", kindMemory},
	{"READONLY You can't write against a read only replica.", kindReadOnly},
	{"REDIRECT 127.0.0.1:6380", kindOther},
	{"TRYAGAIN Multiple keys request during rehashing of slot", kindTryAgain},
	{"UNBLOCKED client unblocked via CLIENT UNBLOCK", kindOther},
	{"UNKILLABLE Sorry the script already executed write commands against the dataset.", kindOther},
	{"WRONGPASS invalid username-password pair or user is disabled.", kindOther},
	{"ERR Function not found", kindNoFunction},
	{"ERR Library 'fanout_0' already exists", kindExists},
	{"FANOUT-BROKEN the stream is a list script: fanout_append_0, on @user_function:12.", kindBroken},
	{"NOSCRIPT No matching script. Please use EVAL.", kindNoFunction},
	{"ERR max number of clients reached", kindOther},
	{"ERR max number of clients + cluster connections reached", kindOther},
	{"ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?", kindOther},
	{"ERR invalid password", kindOther},
	{"ERR Error accepting a new connection", kindOther},
	{"ERR Script killed by user with SCRIPT KILL. script: fanout_append_0, on @user_function:1.", kindOther},
	{"ERR Script attempted to access a non local key in a cluster node script: fanout_append_0, on @user_function:53.", kindDown},
	{"ERR Script attempted to access keys that do not hash to the same slot script: fanout_append_0, on @user_function:53.", kindDown},
	{"ERR Script attempted to execute a command while the cluster is down script: fanout_append_0, on @user_function:53.", kindDown},
	{"ERR Script attempted to execute a write command while the cluster is down and readonly script: fanout_append_0, on @user_function:53.", kindDown},
	{"ERR DISABLED something a service says", kindOther},
	{"SOMETHING that no server says today", kindOther},
	{"", kindOther},

	{"NOPERM this user has no permissions to run the 'spublish' command", kindDenied},
	{"NOPERM User default has no permissions to run the 'spublish' command", kindDenied},
	{"NOPERM No permissions to access a key", kindDenied},
	{"NOPERM No permissions to access a channel", kindDenied},
	{"ERR The user executing the script can't run this command or subcommand script: w, on @user_function:2.", kindDenied},
	{"ERR The user executing the script can't access at least one of the keys mentioned in the command arguments script: w, on @user_function:2.", kindDenied},
	{"ERR ACL failure in script: User u has no permissions to run the 'xadd' command script: w, on @user_function:2.", kindDenied},

	{"ERR unknown command 'SSUBSCRIBE', with args beginning with: 'fanout:r:{x}' ", kindUnsupported},
	{"ERR unknown command `FCALL`, with args beginning with: `fanout_append_0`, ", kindUnsupported},
	{"ERR unknown subcommand 'MYID'. Try CLUSTER HELP.", kindUnsupported},
	{"ERR Unknown subcommand or wrong number of arguments for 'SETINFO'. Try CLIENT HELP.", kindUnsupported},
	{"ERR Unknown Redis command called from script script: g, on @user_function:5.", kindUnsupported},
	{"ERR Unknown command called from script script: g, on @user_function:5.", kindUnsupported},
	{"ERR This Redis command is not allowed from script script: g, on @user_function:5.", kindUnsupported},
	{"ERR This instance has cluster support disabled", kindUnsupported},
	{"NOPROTO unsupported protocol version", kindUnsupported},

	{"WRONGTYPE Operation against a key holding the wrong kind of value", kindMisused},
	{"WRONGTYPE Operation against a key holding the wrong kind of value script: w, on @user_function:2.", kindMisused},
	{"CROSSSLOT Keys in request don't hash to the same slot", kindMisused},
	{"ERR wrong number of arguments for 'spublish' command", kindMisused},
	{"ERR Wrong number of args calling Redis command from script script: h, on @user_function:6.", kindMisused},
	{"ERR syntax error", kindMisused},
	{"ERR string exceeds maximum allowed size (proto-max-bulk-len)", kindMisused},
	{"ERR Protocol error: invalid bulk length", kindMisused},
	{"ERR user_function:4: attempt to index local 'x' (a nil value) script: f, on @user_function:4.", kindMisused},
	{"ERR user_function:3: Script attempted to access nonexistent global variable 'nosuch' script: e, on @user_function:3.", kindMisused},
}

func TestKindOf(t *testing.T) {
	for _, r := range replies {
		t.Run(r.text, func(t *testing.T) {
			require.Equal(t, r.kind, kindOf(r.text))
			require.Equal(t, r.kind, kindOf(strings.TrimPrefix(r.text, "ERR ")), "as the client hands it out")
		})
	}
}

func TestKind(t *testing.T) {
	for k := kindOther; k <= kindMisused; k++ {
		require.Equal(t, k >= kindDenied, k.final(), k)
		require.Equal(t, k >= kindMoved && k <= kindDown, k.changesSoon(), k)
	}
}

func TestFindings(t *testing.T) {
	e := &Engine{cfg: Config{Name: "test"}}
	dial := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	for _, test := range []struct {
		err             error
		refused, unsent bool
	}{
		{dial, false, true},
		{rueidis.ErrNoSlot, false, true},
		{rueidis.ErrClosing, true, true},
		{errors.New("EOF"), false, false},
		{&net.OpError{Op: "read", Err: errors.New("reset")}, false, false},
		{errSilent, false, false},
		{fmt.Errorf("%w: %w", errSilent, adapter.ErrUnsent), false, true},
	} {
		err := e.classify("publish", test.err)
		require.Equal(t, test.refused, errors.Is(err, adapter.ErrRefused), err)
		require.Equal(t, test.unsent, errors.Is(err, adapter.ErrUnsent), err)
		require.ErrorIs(t, err, test.err)
	}
}

func TestBrokenText(t *testing.T) {
	require.Equal(t, "the stream is a list", brokenText("FANOUT-BROKEN the stream is a list script: f, on @user_function:12."))
	require.Equal(t, "the stream is a list", brokenText("FANOUT-BROKEN the stream is a list"))
}

func TestRedact(t *testing.T) {
	for text, want := range map[string]string{
		"unknown command 'FCALL', with args beginning with: 'fanout_append' '3' 'fanout:h:{secret}' 'payload'":       "unknown command 'FCALL'",
		"unknown command `FCALL`, with args beginning with: `x`, ":                                                   "unknown command `FCALL`",
		"WRONGTYPE Operation against a key script: fanout_append_0, on @user_function:12.":                           "WRONGTYPE Operation against a key",
		"ACL failure in script: User u has no permissions to run the 'xadd' command script: w, on @user_function:2.": "ACL failure in script: User u has no permissions to run the 'xadd' command",
		"MOVED 12 10.0.0.1:6379": "MOVED 12 10.0.0.1:6379",
		"":                       "",
	} {
		require.Equal(t, want, redact(text))
	}
	require.LessOrEqual(t, len(redact(strings.Repeat("ä", 1000))), maxText+len("…"))
}

func FuzzErrorText(f *testing.F) {
	for _, r := range replies {
		f.Add(r.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		require.Equal(t, kindOf(text), kindOf("ERR "+strings.TrimPrefix(text, "ERR ")))
		short := redact(text)
		require.LessOrEqual(t, len(short), maxText+len("…"))
		require.True(t, utf8.ValidString(short))
		require.NotContains(t, short, "with args beginning with")
		require.NotContains(t, short, "script:")
		_ = begun(text)
		_ = hint(text)
	})
}
