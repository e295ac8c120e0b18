package item

import (
	"strconv"
	"strings"

	"github.com/fanoutgo/fanout/internal/wire"
)

// MemberID returns the ID of a member of a hub: the hub's ID, a hyphen, and the
// member's number to the base of 36.
func MemberID(hub string, number uint64) string { return hub + "-" + strconv.FormatUint(number, 36) }

// HubOf returns the hub's part of a member ID. It is not ok if no hub can have
// given the ID.
func HubOf(memberID string) (hub string, ok bool) {
	hub, n, ok := strings.Cut(memberID, "-")
	if !ok || len(hub) != 16 || n == "" {
		return "", false
	}
	_, err := strconv.ParseUint(hub, 16, 64)
	return hub, err == nil && hub == strings.ToLower(hub)
}

// MemberNumbers returns the numbers of the members in a list that are a hub's,
// sorted and without repetitions.
func MemberNumbers(hub string, list wire.List) (numbers []uint64) {
	for id := range list.All() {
		if n, ours := memberNumber(hub, id); ours {
			if numbers == nil {
				numbers = make([]uint64, 0, min(list.Len(), 16))
			}
			numbers = append(numbers, n)
		}
	}
	return sortedSet(numbers)
}

// memberNumber returns the number in a member ID, as MemberID writes it. It is
// not ok if the ID is malformed, or not one of the hub's. It allocates nothing.
func memberNumber(hub string, id []byte) (n uint64, ok bool) {
	const most = 13 // digits of 2^64 to the base of 36
	if len(id) < len(hub)+2 || len(id) > len(hub)+1+most || string(id[:len(hub)]) != hub || id[len(hub)] != '-' {
		return 0, false
	}
	digits := id[len(hub)+1:]
	if digits[0] == '0' {
		return 0, false // members are counted from 1
	}
	for _, c := range digits {
		d := uint64(c - '0')
		if c >= 'a' && c <= 'z' {
			d = uint64(c-'a') + 10
		} else if c < '0' || c > '9' {
			return 0, false
		}
		next := n*36 + d
		if n > (1<<64-1)/36 || next < d {
			return 0, false
		}
		n = next
	}
	return n, true
}
