// Package presence finds out who is in a room on all hubs. The hub is the unit
// of failure: each hub announces its own members, and each hub that is
// subscribed to the room follows all hubs, itself included.
//
//	members of this hub                        all hubs
//	  Join ─┐                                  Receive ─┐
//	 Leave ─┼▶ Local ─ Announcement ─▶ channel ─────────┼▶ Follower ─▶ Change
//	SetInfo ┘    ▲    life, seq, count, digest          │      │
//	             └───── Snapshot ◀───── who missed something ◀─┘
//
// [Local] gathers changes for a window of time, and then announces their sum: a
// member that comes and goes within the window is not announced. A user whose
// connection ends is held for a grace period, so that one that comes back, on
// any hub, is no event. An announcement has a number within the life of a
// Local, and the count and a digest of all members after it.
//
// [Follower] has a list for each hub:
//
//	            a number is missing, count or digest differ, or Doubt
//	┌───────────┐ ─────────────────────────────────────▶ ┌───────┐
//	│ Following │                                        │ Stale │
//	└───────────┘ ◀───────────────────────────────────── └───────┘
//	      │           Snapshot, or Same; then the              │
//	      │           announcements that waited                │
//	      │ Left       ┌─────────┐                       Left  │
//	      └──────────▶ │ Leaving │ ◀───────────────────────────┘
//	                   └─────────┘ ─▶ nothing, in one step
//
// From these lists it derives changes of people: connections with the same user
// are one person. Followers that get the same announcements in the same order
// derive the same changes. A list with changes applied to it, from the number
// after the list's on, is again the list of who is there.
//
// Rooms above a certain size are announced by counts and a sample.
//
// The package has no lock, clock, goroutine or I/O. Its owner's lock guards
// both.
package presence
