package check

import "slices"

// A List is who is in a room with presence, as one member knows it, at a moment
// at which nobody came or went.
type List struct {
	Client string // whose list it is
	At     Time
	// People is made of the list and the changes that the member has received;
	// Members is what Selection.Members says on its hub; In has the clients that
	// have joined and not left. All are sorted, and have a user with several
	// connections once.
	People, Members, In []string
	Wrong               []string // changes that did not fit what was before them
}

// presence checks the lists of people.
func (c *roomCheck) presence() {
	for _, l := range c.Lists {
		c.figures(l.At).Lists++
		for _, wrong := range l.Wrong {
			c.fail(Presence, l.Client, l.At, "%s", wrong)
		}
		if !slices.Equal(l.People, l.Members) {
			c.fail(Presence, l.Client, l.At, "was told that %v are here, and Members says %v", l.People, l.Members)
		}
		if !slices.Equal(l.Members, l.In) {
			c.fail(Presence, l.Client, l.At, "Members says that %v are here, and %v are", l.Members, l.In)
		}
	}
}
