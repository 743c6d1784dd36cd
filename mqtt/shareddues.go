package mqtt

import (
	"container/list"
	"time"
)

// shareDues are the shares that each device is in, or was not long ago. Guarded by Shares.mu.
type shareDues struct {
	devices map[string]map[string]*list.Element // by client ID and filter; nil: it is in it now
	left    *list.List                          // of *shareDue, in the order in which they are forgiven
}

// A shareDue is a share that a device has left.
type shareDue struct {
	clientID, filter string
	until            time.Time
}

// mostShareDues bounds what is kept of devices that have left. The oldest is forgiven for one more.
const mostShareDues = 100_000

func newShareDues() shareDues {
	return shareDues{devices: map[string]map[string]*list.Element{}, left: list.New()}
}

// mayTake says whether a device may be in one more share, if it is one more.
func (d *shareDues) mayTake(clientID, filter string, most int) bool {
	has := d.devices[clientID]
	_, known := has[filter]
	return known || len(has) < most
}

// take notes that a device is in a share.
func (d *shareDues) take(clientID, filter string) {
	d.set(clientID, filter, nil)
}

// leave notes that a device is in a share no more, and that this counts until then. Calls come in the order of that time.
func (d *shareDues) leave(clientID, filter string, until time.Time) {
	if d.left.Len() >= mostShareDues {
		d.drop(d.left.Front())
	}
	d.set(clientID, filter, d.left.PushBack(&shareDue{clientID, filter, until}))
}

func (d *shareDues) set(clientID, filter string, e *list.Element) {
	if d.devices[clientID] == nil {
		d.devices[clientID] = map[string]*list.Element{}
	}
	if old := d.devices[clientID][filter]; old != nil {
		d.left.Remove(old)
	}
	d.devices[clientID][filter] = e
}

// forgive drops what has counted long enough.
func (d *shareDues) forgive(now time.Time) {
	for e := d.left.Front(); e != nil && !now.Before(e.Value.(*shareDue).until); e = d.left.Front() {
		d.drop(e)
	}
}

func (d *shareDues) drop(e *list.Element) {
	due := d.left.Remove(e).(*shareDue)
	delete(d.devices[due.clientID], due.filter)
	if len(d.devices[due.clientID]) == 0 {
		delete(d.devices, due.clientID)
	}
}
