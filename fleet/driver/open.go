package driver

import (
	"context"

	"sluice/fleet"
)

// Open takes the client ID of a CONNECT. The connection is open if a.Kind is fleet.ActOpened; with fleet.ActLost a later
// CONNECT has the client ID, with fleet.ActRefused another principal. Without an answer until ctx ends, or if none can
// be given now, the error is ErrNotNow.
func (d *Driver) Open(ctx context.Context, clientID string, req fleet.ConnectRequest, dev Device) (c *Conn, a fleet.Action, err error) {
	p := d.part(clientID)
	c = &Conn{p: p, dev: dev}
	at, err := p.begin(ctx, clientID, req, c)
	if err != nil {
		return nil, a, err
	}
	select {
	case a = <-at.answer:
	case <-ctx.Done():
		if p.abandon(at) {
			return nil, a, ErrNotNow
		}
		a = <-at.answer
	}
	return c, a, nil
}
