package redispubsub

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseRole(t *testing.T) {
	for text, want := range map[string]string{
		`["master", 3129659, [["127.0.0.1", "9001", "3129242"]]]`: "master",
		`["slave", "127.0.0.1", 9000, "connected", 3167038]`:      "slave",
		`["sentinel", ["mymaster"]]`:                              "sentinel",
		`[]`:                                                      "",
		`[7]`:                                                     "",
		`[null]`:                                                  "",
		`"master"`:                                                "",
		`null`:                                                    "",
		`an error`:                                                "",
	} {
		role, err := parseRole(fromJSON(text))
		require.Equal(t, want, role, text)
		require.Equal(t, want == "", err != nil, text)
	}
	require.False(t, isReplicaRole("master"))
	require.False(t, isReplicaRole(""), "it does not tell")
	require.True(t, isReplicaRole("slave"))
	require.True(t, isReplicaRole("replica"))
}

func TestField(t *testing.T) {
	const info = "# Replication\r\nrole:slave\r\nmaster_host:a:b\r\n\r\nempty:\r\nlast:no line break"
	for name, want := range map[string]string{
		"role":          "slave",
		"master_host":   "a:b",
		"empty":         "",
		"last":          "no line break",
		"rol":           "",
		"host":          "",
		"# Replication": "",
	} {
		require.Equal(t, want, field(info, name), name)
	}
	require.Empty(t, field("", "role"))
}

func FuzzInfo(f *testing.F) {
	f.Add("# Server\r\nrun_id:1\r\n", "run_id", `["master", 0, []]`)
	f.Fuzz(func(t *testing.T, info, name, role string) {
		value := field(info, name)
		require.NotContains(t, value, "\n")
		require.True(t, value == "" || strings.Contains(info, value))
		if got, err := parseRole(fromJSON(role)); err != nil {
			require.Empty(t, got)
		}
	})
}
