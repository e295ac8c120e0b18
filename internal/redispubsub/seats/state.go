package seats

// A State is what the server has, as far as is known.
type State uint8

const (
	// None: the server has no subscription. A connection begins with all seats
	// in None. A seat that nobody wants is removed when Next finds it here.
	None State = iota

	// Asked: the command that subscribes has been sent, and the confirmation of
	// this channel has not come. An error as the reply leads back to None.
	Asked

	// On: the server has confirmed the subscription, and nothing is known to
	// contradict that.
	On

	// Again: the subscription is confirmed, but a new confirmation is needed.
	// The confirmation may be in doubt, or have been for an earlier subscriber.
	Again

	// Leaving: the command that unsubscribes has been sent. The next notice
	// that the subscription has ended is its reply. The seat stays in this
	// state until the whole command is answered, even if it is wanted again
	// meanwhile.
	Leaving
)

func (s State) String() string {
	return [...]string{"None", "Asked", "On", "Again", "Leaving"}[s]
}

// A Reply is how the server answers a command that subscribes.
type Reply uint8

const (
	// Accepted: no error. Confirmations of single channels come as notices.
	Accepted Reply = iota

	// Moved: the channels are at another node. All subscribers of the command
	// have to be placed there, or to be postponed.
	Moved

	// NotNow: the server cannot accept the command at the moment. All
	// subscribers of the command have to be postponed.
	NotNow

	// Refused: trying again does not help. Since one channel may cause the
	// refusal of all, a command with several is repeated with one command for
	// each channel. If that is refused, its subscriber is told.
	Refused
)

func (r Reply) String() string {
	return [...]string{"Accepted", "Moved", "NotNow", "Refused"}[r]
}
