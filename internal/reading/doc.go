// Package reading reads the histories of rooms in the backend: for the logs of
// rooms, for members that come from behind, and for Room.History. It drives
// packages follow and replay.
//
//	             who waits          decides             reads             gets it
//	a log        nobody             follow.Follower ─▶  catchUp ───────▶  Host.Put
//	members      Await, Fetch       replay.Store ────▶  readForMembers ▶  Store.Deliver
//	a caller     List               replay.Listing ──▶  List ──────────▶  the caller
//
// A [Reader] is a hub's. A [History] is a room's: what the hub knows of it, and
// the readings that are wanted. There are at most two readings of a room at a
// time, one for its log and one for members; List has its own. The first two
// are tasks of the hub's work.Pool, which takes a page at a time, so that rooms
// take turns.
//
// The lock of the room guards a History. Methods that need it held say so with
// AssertHeld; the others take it, and wait for nothing while they have it. What
// Host.Put returns is run when the lock has been released.
//
// A reading that fails is tried again after a delay, which doubles from
// backoff.First to backoff.Max. When the backend refuses, or continues to
// announce messages that it does not return, the reading ends: the log and the
// members continue without what is missing there. See retry.
package reading
