package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/fanoutgo/fanout/internal/soak/check"
)

// A table is the results of a number of runs, by server, seed and fault.
type table struct {
	w *tabwriter.Writer
}

const legend = `
published, received   messages that Publish accepted; those that all clients received, together
errors                calls of Publish that returned an error
missed, unknown       in rooms without history: reported missing; gaps of unknown size
lost, trimmed         in rooms with history: reported missing because servers lost them; because
                      the history keeps no more
alarms                there: gaps of unknown size with nothing missing (replicas took over, servers restarted)
silent                missing without a word: must be 0
lists                 of people in rooms with presence, as clients were told, compared with Members and with who was in
order                 messages in another order for some, where that is documented
outage                the longest that a client heard nothing in a room
service               from the beginning of the fault until everybody heard everybody
`

func newTable(out io.Writer) *table {
	t := &table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	fmt.Fprintln(t.w, "server\tseed\tfault\tpublished\terrors\treceived\tmissed\tunknown\tlost\ttrimmed\talarms\tsilent\tlists\torder\toutage\tservice\tfailures")
	return t
}

func (t *table) row(server, seed string, f check.Figures) {
	fmt.Fprintf(t.w, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%v\t%v\t%d\n", server, seed, f.Fault,
		f.Published, f.Refused, f.Received, f.Missed, f.Unknown, f.Lost-f.Trimmed, f.Trimmed, f.Alarms, f.Silent, f.Lists, f.Order,
		round(f.Outage), round(f.Service), f.Failures)
}

func (t *table) flush() { t.w.Flush() }

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// summed adds up figures of the same fault, in the order in which the faults
// first appear, followed by the sum of all.
func summed(lists ...[]check.Figures) []check.Figures {
	var sums []check.Figures
	at := make(map[string]int)
	all := check.Figures{Fault: "all"}
	for _, list := range lists {
		for _, f := range list {
			i, known := at[f.Fault]
			if !known {
				i = len(sums)
				at[f.Fault] = i
				sums = append(sums, check.Figures{Fault: f.Fault})
			}
			sums[i].Add(f)
			all.Add(f)
		}
	}
	return append(sums, all)
}
