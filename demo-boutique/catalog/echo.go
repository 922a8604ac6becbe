package main

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

// Most that Collect keeps and that one sound of Repeat may have.
const soundBytesMax = 4 << 20

// echo says back what it hears, in each of gRPC's four kinds of call.
type echo struct {
	boutiquev1.UnimplementedEchoServer
}

func (echo) Say(_ context.Context, sound *boutiquev1.Sound) (*boutiquev1.Sound, error) {
	return sound, nil
}

func (echo) Collect(stream boutiquev1.Echo_CollectServer) error {
	var all []byte
	for {
		sound, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&boutiquev1.Sound{Payload: all})
		}
		if err != nil {
			return err
		}
		if len(all)+len(sound.Payload) > soundBytesMax {
			return status.Errorf(codes.ResourceExhausted, "more than %d bytes", soundBytesMax)
		}
		all = append(all, sound.Payload...)
	}
}

func (echo) Repeat(request *boutiquev1.RepeatRequest, stream boutiquev1.Echo_RepeatServer) error {
	if request.Size < 0 || request.Size > soundBytesMax {
		return status.Errorf(codes.InvalidArgument, "size has to be between 0 and %d", soundBytesMax)
	}
	sound := &boutiquev1.Sound{Payload: make([]byte, request.Size)}
	for i := int32(0); i < request.Count; i++ {
		if err := stream.Send(sound); err != nil {
			return err
		}
	}
	return nil
}

func (echo) Chat(stream boutiquev1.Echo_ChatServer) error {
	for {
		sound, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(sound); err != nil {
			return err
		}
	}
}
