package chassis

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

// chaos lets whoever is inside the pod turn the knobs while the service runs.
type chaos struct {
	boutiquev1.UnimplementedChaosServer
	faults *Faults
}

func (c chaos) Set(_ context.Context, knobs *boutiquev1.Knobs) (*boutiquev1.Knobs, error) {
	if err := c.faults.Set(knobs); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return c.faults.Knobs(), nil
}
