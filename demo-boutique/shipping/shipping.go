package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

const (
	parcelUnits = 4           // dollars for a parcel,
	pieceNanos  = 750_000_000 // and three quarters of one for each piece in it
	nanos       = 1_000_000_000
	piecesMax   = 100_000
	idBytesMax  = 128
	// nowhere can be ordered from and not be sent to: orders that fail late have to be
	// possible on purpose.
	nowhere = "Atlantis"
)

type shipping struct {
	boutiquev1.UnimplementedShippingServer
	parcels *parcels
}

// GetQuote depends on how much there is to carry. Nobody counts the miles here.
func (s *shipping) GetQuote(_ context.Context, request *boutiquev1.GetQuoteRequest) (*boutiquev1.GetQuoteResponse, error) {
	pieces := int64(0)
	for _, item := range request.Items {
		pieces += int64(item.GetQuantity())
		if item.GetQuantity() < 0 || pieces > piecesMax {
			return nil, status.Error(codes.InvalidArgument, "nobody can carry that")
		}
	}
	if pieces == 0 {
		return &boutiquev1.GetQuoteResponse{CostUsd: &boutiquev1.Money{CurrencyCode: "USD"}}, nil
	}
	cost := parcelUnits*nanos + pieces*pieceNanos
	return &boutiquev1.GetQuoteResponse{
		CostUsd: &boutiquev1.Money{CurrencyCode: "USD", Units: cost / nanos, Nanos: int32(cost % nanos)},
	}, nil
}

func (s *shipping) ShipOrder(ctx context.Context, request *boutiquev1.ShipOrderRequest) (*boutiquev1.ShipOrderResponse, error) {
	var order [16]byte // one that nobody else has: every call is a parcel of its own
	if _, err := rand.Read(order[:]); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	sent, err := s.Ship(ctx, &boutiquev1.ShipRequest{OrderId: hex.EncodeToString(order[:]), Address: request.Address, Items: request.Items})
	return &boutiquev1.ShipOrderResponse{TrackingId: sent.GetTrackingId()}, err
}

func (s *shipping) Ship(_ context.Context, request *boutiquev1.ShipRequest) (*boutiquev1.ShipResponse, error) {
	country := request.Address.GetCountry()
	switch {
	case !isID(request.OrderId):
		return nil, status.Errorf(codes.InvalidArgument, "order_id has 1 to %d bytes", idBytesMax)
	case country == "":
		return nil, status.Error(codes.InvalidArgument, "there is no country in the address")
	case country == nowhere:
		return nil, status.Errorf(codes.FailedPrecondition, "nobody delivers to %s", nowhere)
	case !s.parcels.send(request.OrderId):
		return nil, status.Error(codes.FailedPrecondition, "this order was cancelled")
	}
	return &boutiquev1.ShipResponse{TrackingId: tracking(request.OrderId)}, nil
}

func (s *shipping) Cancel(_ context.Context, request *boutiquev1.CancelRequest) (*boutiquev1.CancelResponse, error) {
	if !isID(request.OrderId) {
		return nil, status.Errorf(codes.InvalidArgument, "order_id has 1 to %d bytes", idBytesMax)
	}
	if !s.parcels.cancel(request.OrderId) {
		return &boutiquev1.CancelResponse{}, nil
	}
	return &boutiquev1.CancelResponse{TrackingId: tracking(request.OrderId)}, nil
}

func isID(text string) bool { return text != "" && len(text) <= idBytesMax }
