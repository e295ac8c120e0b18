// Package roomlog is the log of a room and the cursors that read it.
//
// A log is a chain of segments, each holding the items of one append (or a part
// of them). A cursor walks the chain without a lock. Between two segments there
// is a link. A cursor that has read everything is on the last link, which holds
// no items, so segments that every cursor has passed are garbage.
//
//	link ─▶ segment ─▶ link ─▶ segment ─▶ link      (end: the next append hangs here)
//	         [a b c]            [d]         ▲
//	           ▲                            └─ cursors that have read everything
//	           └─ a cursor that lags
//
// For cursors that lag the log remembers a window, bounded in items and bytes.
// A segment that leaves the window is cut off the link before it, so a cursor
// that is stuck keeps that one link alive (or the one segment it is in) and not
// the chain behind it. When it continues it finds the cut, and learns the
// number of items it missed. When all cursors have read everything, and parked,
// the log forgets the window and holds nothing.
//
// Nothing is queued per cursor. A cursor whose owner has nothing else to do
// parks; an append takes all that are parked and wakes them, once each. A
// cursor that is awake costs an append nothing.
//
// A gap that the log's user reports (messages were lost on their way to the
// log) is a segment of its own in the chain: every cursor meets it at its place
// in the order.
package roomlog
