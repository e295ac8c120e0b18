//go:build !lockcheck

package locks

import "sync"

// A Mutex is a sync.Mutex.
type Mutex[R Rank] struct{ sync.Mutex }

// AssertHeld says that the caller holds the lock. It checks nothing in this
// build.
func (*Mutex[R]) AssertHeld() {}

// A RWMutex is a sync.RWMutex.
type RWMutex[R Rank] struct{ sync.RWMutex }

// AssertHeld says that the caller holds the lock for writing. It checks nothing
// in this build.
func (*RWMutex[R]) AssertHeld() {}
