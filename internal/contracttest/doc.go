// Package contracttest has what tests need to run the adapter contract on
// adapters that stand on others: faults of adapters in memory, partitions that
// leave and come back, and migrations that begin after their flip.
package contracttest
