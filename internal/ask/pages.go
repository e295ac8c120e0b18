package ask

import "github.com/fanoutgo/fanout/internal/control"

// MaxPage is the number of bytes of entries in a page. A page fits a frame.
const MaxPage = 48 << 10

// CreditFor returns the pages that each hub may send beyond what was consumed:
// all of them together have no more than 256 under way, which is 12 MiB, or one
// each.
func CreditFor(hubs int) uint64 {
	return uint64(min(max(256/max(hubs, 1), 1), 8))
}

// Pages is an answer of any number of pages. It keeps those that the asker may
// not have.
type Pages struct {
	first uint64   // the page that kept begins with
	kept  [][]byte // sent, and not known to have arrived
	from  uint64   // of the last credit
	upto  uint64
	ended bool
}

// NewPages returns an answer of which credit pages may be sent.
func NewPages(credit uint64) *Pages { return &Pages{upto: min(credit, maxKept)} }

// maxKept bounds the pages of an answer that are kept, whatever the asker says.
const maxKept = 8

// Next returns the number of the page that is to be made next. It is not ok if
// the asker has no room for it, or the last page was made.
func (p *Pages) Next() (number uint64, ok bool) {
	number = p.first + uint64(len(p.kept))
	return number, !p.ended && number < p.upto && len(p.kept) < maxKept
}

// Add takes the page whose number Next returned, to be sent now and kept until
// it has arrived.
func (p *Pages) Add(page []byte, last bool) {
	p.kept = append(p.kept, page)
	p.ended = last
}

// Credit takes a credit, and returns the pages to be sent again. A credit that
// says what the one before said comes from an asker that waits: what it has not
// got is sent again. It is not ok if the credit cannot be right.
func (p *Pages) Credit(c *control.Credit) (again [][]byte, ok bool) {
	next := p.first + uint64(len(p.kept))
	if c.From < p.first || c.From > next {
		return nil, false
	}
	repeated := c.From == p.from && c.Upto <= p.upto
	p.kept = p.kept[c.From-p.first:]
	p.first, p.from = c.From, c.From
	p.upto = max(p.upto, c.Upto)
	if repeated {
		return p.kept, true
	}
	return nil, true
}

// Done reports whether the asker has got everything.
func (p *Pages) Done() bool { return p.ended && len(p.kept) == 0 }
