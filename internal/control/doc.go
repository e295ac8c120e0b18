// Package control is the format of what hubs tell each other besides messages:
// questions, commands and their answers, who is in a room, and which hubs there
// are. A control payload is sent in a notice of its own: see package wire.
//
//	version  kind  fields of the kind …            (later fields)
//	┌──────┬──────┬────────────────────────────┬ ─ ─ ─ ─ ─ ─ ─ ┐
//	│  01  │  01  │ uvarints, texts, lists     │  are skipped
//	└──────┴──────┴────────────────────────────┴ ─ ─ ─ ─ ─ ─ ─ ┘
//
// Numbers are uvarints. A text is its length and its bytes; a list is the
// number of its entries and the entries; a digest is 8 bytes, big-endian. A
// kind grows by fields at its end, which older readers skip and newer ones take
// for zero if they are not there.
//
// Each kind is a struct with an Append method; [Decode] checks a payload and
// returns the struct. What it returns shares the payload's bytes, except for
// names. Payloads may be forged: all bounds are checked before memory is
// allocated, and no more is allocated than a small multiple of the payload.
package control
