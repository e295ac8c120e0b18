package questions

import (
	"strconv"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/notices"
)

// A Lane is a channel that a question goes to.
type Lane struct {
	Out   notices.Channel // held
	Names []string        // of the question in this lane; nil: those of the question
	Which uint64          // the index of the lane
	// Inbox is set for the inbox of a hub, whose number is Hub.
	Inbox bool
	Hub   uint64
}

// Lanes returns the channels of a question, which are held. It may fill in
// fields of the question.
type Lanes func(*control.Question) []Lane

// InboxLanes returns the inboxes of the hubs that hold some members, each with
// the IDs of its members. The channels are held. Names that are not member IDs
// are left out.
func InboxLanes(send *notices.Sender, ids []string) (lanes []Lane) {
	byHub := make(map[uint64]int)
	for _, id := range ids {
		name, ok := item.HubOf(id)
		if !ok {
			continue
		}
		hub, _ := strconv.ParseUint(name, 16, 64) // HubOf has looked
		i, known := byHub[hub]
		if !known {
			i = len(lanes)
			byHub[hub] = i
			lanes = append(lanes, Lane{Out: send.Inbox(hub), Inbox: true, Hub: hub, Which: uint64(i)})
		}
		lanes[i].Names = append(lanes[i].Names, id)
	}
	return lanes
}

// Release releases lanes.
func Release(lanes []Lane) {
	for _, l := range lanes {
		l.Out.Release()
	}
}
