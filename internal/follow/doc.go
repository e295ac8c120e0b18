// Package follow follows the history of one room, for a hub that is subscribed
// to the room. It decides in which order frames go into the room's log, what is
// missing before them, and when the history has to be read.
//
//	           Subscribed            Head               Drained
//	    Off ──────────────▶ Opening ──────▶ CatchingUp ─────────▶ Live
//	                                         ▲  ▲   ◀─────────────
//	                                   Query │  │    a hole, Restored
//	                                         ▼  │
//	                                    Stalled │ PageEnd
//	             Refused            Read        │
//	CatchingUp ───────────▶ Blind ──────▶ Retrying
//
//	in          on                                  goes to
//	Off         Subscribed, Read                    Opening
//	Opening     Head                                CatchingUp
//	            Refused                             Off
//	Live        Receive, of a frame after a hole    CatchingUp, or Stalled
//	            Restored, Read                      CatchingUp
//	CatchingUp  Drained, when nothing is held       Live
//	            Drained, when a frame does not fit  Stalled
//	            Refused                             Blind, or Live after what was held
//	Stalled     Query                               CatchingUp
//	Blind       Receive                             Live
//	            Restored, Read                      Retrying
//	Retrying    PageEnd, of the last page           CatchingUp
//	            Refused                             Blind, or Live after what was held
//	(any)       Unsubscribed                        Off
//
// If a frame that arrives has the position after the last one, it is the next
// frame in the log. If it has another position, or if the subscription was
// interrupted, the history is read from the last position on. Frames that
// arrive meanwhile are held, so that the log gets each message once and in
// order:
//
//	log:      … 41 42 43 │               page:  44 45 46 47 48
//	arrived:             │ 46 47 48      then:  held frames that are beyond 48
//
// A held frame may have a place that the history does not have, because a
// server lags behind, because the history was flushed, or because the frame was
// forged. The history is then read again, with pauses. After about two seconds
// the frame is delivered without a position, after an Unknown gap.
//
// The goroutine that reads for a [Follower] calls, each time with the room's
// lock:
//
//	Query                 what to read; none if the room was unsubscribed
//	Head                  of the first answer of a subscription
//	Frame …, PageEnd      of any other: one call for each frame, then the end
//	Drain …, Drained      when there is no more to read: what was held
//	Refused               the history cannot be read
//
// A Follower has no lock, clock, goroutine or I/O. Its owner's lock guards it,
// and times are arguments. It knows the headers and positions of frames, not
// their contents, which it passes back as they are.
package follow
