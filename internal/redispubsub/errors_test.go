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

// replies are error replies of Redis 6 to 8 and of Valkey, as servers send them.
var replies = []struct {
	text    string
	verdict verdict
}{
	{"ASK 3999 127.0.0.1:6381", passing},
	{"BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", passing},
	{"BUSY Valkey is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.", passing},
	{"CLUSTERDOWN Hash slot not served", passing},
	{"CLUSTERDOWN The cluster is down", passing},
	{"CLUSTERDOWN The cluster is down and only accepts read commands", passing},
	{"EXECABORT Transaction discarded because of previous errors.", passing},
	{"FAILOVER in progress", passing},
	{"IOERR error or timeout reading to target instance", passing},
	{"LOADING Redis is loading the dataset in memory", passing},
	{"LOADING Valkey is loading the dataset in memory", passing},
	{"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", passing},
	{"MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. Commands that may modify the data set are disabled, because this instance is configured to report errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). Please check the Redis logs for details about the RDB error.", passing},
	{"MISCONF Errors writing to the AOF file: No space left on device", passing},
	{"MISCONF Errors writing to the AOF file: No space left on device script: fanout_append_0, on @user_function:12.", passing},
	{"MOVED 3999 127.0.0.1:6381", passing},
	{"NOAUTH Authentication required.", passing},
	{"NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time", passing},
	{"NOGOODSLAVE No suitable replica to promote", passing},
	{"NOREPLICAS Not enough good replicas to write.", passing},
	{"NOTBUSY No scripts in execution right now.", passing},
	{"OOM command not allowed when used memory > 'maxmemory'.", passing},
	{"OOM command not allowed when used memory > 'maxmemory'. script: fanout_append_0, on @user_function:12.", passing},
	{"READONLY You can't write against a read only replica.", passing},
	{"REDIRECT 127.0.0.1:6380", passing},
	{"TRYAGAIN Multiple keys request during rehashing of slot", passing},
	{"UNBLOCKED client unblocked via CLIENT UNBLOCK", passing},
	{"UNKILLABLE Sorry the script already executed write commands against the dataset.", passing},
	{"WRONGPASS invalid username-password pair or user is disabled.", passing},
	{"ERR Function not found", passing},
	{"NOSCRIPT No matching script. Please use EVAL.", passing},
	{"ERR max number of clients reached", passing},
	{"ERR max number of clients + cluster connections reached", passing},
	{"ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?", passing},
	{"ERR invalid password", passing},
	{"ERR Error accepting a new connection", passing},
	{"ERR Script killed by user with SCRIPT KILL. script: fanout_append_0, on @user_function:1.", passing},
	{"ERR DISABLED something a service says", passing},
	{"SOMETHING that no server says today", passing},
	{"", passing},

	{"NOPERM this user has no permissions to run the 'spublish' command", denied},
	{"NOPERM User default has no permissions to run the 'spublish' command", denied},
	{"NOPERM No permissions to access a key", denied},
	{"NOPERM No permissions to access a channel", denied},
	{"ERR The user executing the script can't run this command or subcommand script: w, on @user_function:2.", denied},
	{"ERR The user executing the script can't access at least one of the keys mentioned in the command arguments script: w, on @user_function:2.", denied},
	{"ERR ACL failure in script: User u has no permissions to run the 'xadd' command script: w, on @user_function:2.", denied},

	{"ERR unknown command 'SSUBSCRIBE', with args beginning with: 'fanout:r:{x}' ", unsupported},
	{"ERR unknown command `FCALL`, with args beginning with: `fanout_append_0`, ", unsupported},
	{"ERR unknown subcommand 'MYID'. Try CLUSTER HELP.", unsupported},
	{"ERR Unknown subcommand or wrong number of arguments for 'SETINFO'. Try CLIENT HELP.", unsupported},
	{"ERR Unknown Redis command called from script script: g, on @user_function:5.", unsupported},
	{"ERR Unknown command called from script script: g, on @user_function:5.", unsupported},
	{"ERR This Redis command is not allowed from script script: g, on @user_function:5.", unsupported},
	{"ERR This instance has cluster support disabled", unsupported},
	{"NOPROTO unsupported protocol version", unsupported},

	{"WRONGTYPE Operation against a key holding the wrong kind of value", misused},
	{"WRONGTYPE Operation against a key holding the wrong kind of value script: w, on @user_function:2.", misused},
	{"CROSSSLOT Keys in request don't hash to the same slot", misused},
	{"ERR wrong number of arguments for 'spublish' command", misused},
	{"ERR Wrong number of args calling Redis command from script script: h, on @user_function:6.", misused},
	{"ERR syntax error", misused},
	{"ERR string exceeds maximum allowed size (proto-max-bulk-len)", misused},
	{"ERR Protocol error: invalid bulk length", misused},
	{"ERR user_function:4: attempt to index local 'x' (a nil value) script: f, on @user_function:4.", misused},
	{"ERR user_function:3: Script attempted to access nonexistent global variable 'nosuch' script: e, on @user_function:3.", misused},
}

func TestVerdicts(t *testing.T) {
	for _, r := range replies {
		t.Run(r.text, func(t *testing.T) {
			require.Equal(t, r.verdict, judge(r.text))
			require.Equal(t, r.verdict, judge(strings.TrimPrefix(r.text, "ERR ")), "as the client hands it out")
		})
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

func TestRedact(t *testing.T) {
	for text, want := range map[string]string{
		"unknown command 'FCALL', with args beginning with: 'fanout_append' '3' 'fanout:h:{secret}' 'payload'": "unknown command 'FCALL'",
		"unknown command `FCALL`, with args beginning with: `x`, ":                                             "unknown command `FCALL`",
		"WRONGTYPE Operation against a key script: fanout_append_0, on @user_function:12.":                     "WRONGTYPE Operation against a key",
		"MOVED 12 10.0.0.1:6379": "MOVED 12 10.0.0.1:6379",
		"":                       "",
	} {
		require.Equal(t, want, redact(text))
	}
	require.LessOrEqual(t, len(redact(strings.Repeat("ä", 1000))), maxText+len("…"))
}

func FuzzVerdicts(f *testing.F) {
	for _, r := range replies {
		f.Add(r.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		require.Equal(t, judge(text), judge("ERR "+strings.TrimPrefix(text, "ERR ")))
		short := redact(text)
		require.LessOrEqual(t, len(short), maxText+len("…"))
		require.True(t, utf8.ValidString(short))
		require.NotContains(t, short, "with args beginning with")
		require.NotContains(t, short, "script:")
		_ = isHasty(text)
	})
}
