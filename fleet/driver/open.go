package driver

import (
	"context"

	"sluice/fleet"
)

// Open takes the client ID of a CONNECT. The connection is open if a.Kind is fleet.ActOpened; with fleet.ActLost a later
// CONNECT has the client ID, with fleet.ActRefused another principal. Without an answer until ctx ends, or if none can
// be given now, the error is ErrNotNow, and says what was waited for.
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
		if err = p.abandon(at); err != nil {
			return nil, a, err
		}
		a = <-at.answer
	}
	return c, a, nil
}
