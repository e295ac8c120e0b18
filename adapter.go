package fanout

import "github.com/fanoutgo/fanout/adapter"

// An Adapter joins a hub with others: it carries their frames. Packages
// sharded, adapter/redis and adapter/memory have adapters. Authors of backends
// find the contract, with its optional capabilities, in package adapter.
type Adapter = adapter.Adapter

// A Receiver gets what an Adapter carries; a Hub has one.
type Receiver = adapter.Receiver

// Retention is how much history a room keeps: its latest messages, as long as
// they are not too old.
type Retention = adapter.Retention
