package presence

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func changes() []*Change {
	ann := Person{User: "ann", Since: 1_700_000_000_000, Info: []byte("info")}
	bob := Person{Hub: 0x0123456789abcdef, Member: 300, Info: []byte{}}
	gone := Person{User: "{*} 🎲", Since: 1}
	return []*Change{
		{},
		{Number: 1, Reset: true, Joined: []Person{ann, bob}, Count: 2},
		{Number: 300, Large: true, Reset: true, Count: 100_000, Joined: []Person{bob}},
		{Number: 2, Joined: []Person{bob}, Updated: []Person{ann}, Left: []Person{gone, {Hub: 1, Member: 2}}},
	}
}

func TestEncode(t *testing.T) {
	for _, c := range changes() {
		b := c.Append(nil)
		got, err := Decode(b)
		require.NoError(t, err)
		require.Equal(t, c, got)
		for n := range b {
			_, err := Decode(b[:n])
			require.ErrorIs(t, err, ErrMalformed)
		}
	}
	_, err := Decode([]byte{2, 0, 0, 0, 0, 0, 0})
	require.ErrorIs(t, err, ErrMalformed)
}

func FuzzDecode(f *testing.F) {
	for _, c := range changes() {
		f.Add(c.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(c.Append(nil))
		require.NoError(t, err)
		require.Equal(t, c, again)
	})
}

func BenchmarkDecode(b *testing.B) {
	for _, n := range []int{1, 10, 600} {
		c := &Change{Number: 1}
		for i := range n {
			c.Joined = append(c.Joined, Person{User: fmt.Sprint("user ", i), Since: 1_700_000_000_000, Info: []byte("some info")})
		}
		data := c.Append(nil)
		b.Run(fmt.Sprint("people=", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Decode(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
