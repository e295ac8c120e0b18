// Package adapter is the contract between a hub and a backend, for authors of
// backends. Users of package fanout do not need it.
//
// An [Adapter] carries frames between hubs; a [Receiver] gets them. A backend
// that can do more implements the optional capabilities [HealthChecker],
// [AsyncPublisher] and [Historian]. Package adapter/adaptertest is the contract
// as a test suite.
//
// The package imports nothing else of its module.
package adapter
