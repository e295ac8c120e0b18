// Package fanout carries what is said in a room to everyone in that room,
// however many processes the room spans.
package fanout
