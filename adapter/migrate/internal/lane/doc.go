// Package lane puts what two backends bring for one channel into one order,
// while hubs change from the old backend to the new one.
//
//	     the hubs have        something comes by the        nothing more comes
//	     flipped              new one, or the old breaks    by the old one
//	Old ───────────▶ Quiet ──────────────▶ Draining ───────────▶ New ◀──▶ Sorting
//	 │ the old one    │ the old one          ▲ what the new       ▲ the new one
//	 │ counts         │ counts               │ one brings         │ counts
//	 │                │                      │ is held            │
//	 │                └──────────────────────┼────────────────────┘
//	 └───────────────────────────────────────┘ nothing more comes by the old one
//	     something comes by the new one
//
// All hubs have stopped publishing to the old backend before the first
// publishes to the new one. So what the old one brings comes first. All of it
// has come when a marker has come, a frame that this hub, or another one, has
// published to the old backend after that; or when the old one reports an
// interruption. The owner finds out meanwhile where the history ended at the
// old one. After the flip it does both for quiet channels, too: from then on it
// does not matter to them if the old backend breaks. Quiet and Draining are
// three states each, by what is known so far: nothing, that nothing more comes,
// or where the history ended.
//
// The new backend brings copies of what the old one had, which are not
// delivered again. They have the offsets that they had, in an epoch of the new
// backend. Another history may begin there instead, with the same offsets. So
// the first frame that may be a copy is held, with what comes after it, until
// the owner knows whether it is one: that is Sorting. If that takes too long,
// or too much is held, all of it is delivered. The receiver then compares the
// positions with the history, as it does with any other frame.
//
// While a copy is being made, frames with its offsets are taken for parts of
// it. If it turns out that another history had continued there, the receiver is
// told of an interruption, so that it reads the history.
//
// A frame of the old backend that arrives after the lane has become New comes
// from a hub that does not know of the flip, or did not know when it published
// the frame. It is delivered when it arrives.
//
// A Lane has no lock, clock, goroutine or I/O. Its owner's lock guards it while
// a method runs, and while the calls that it returns are made.
package lane
