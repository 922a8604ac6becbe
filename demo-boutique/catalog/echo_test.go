package main

import (
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

func TestAChatSendsEachSoundBackBeforeTheNext(t *testing.T) {
	chat, err := boutiquev1.NewEchoClient(dial(t)).Chat(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"a", "", "longer"} {
		if err := chat.Send(&boutiquev1.Sound{Payload: []byte(word)}); err != nil {
			t.Fatal(err)
		}
		if sound, err := chat.Recv(); err != nil || string(sound.Payload) != word {
			t.Fatalf("got %v, %v; want %q", sound, err, word)
		}
	}
	chat.CloseSend()
	if _, err := chat.Recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("got %v, want the end", err)
	}
}

func TestCollectJoinsWhatItHearsUpToItsLimit(t *testing.T) {
	client := boutiquev1.NewEchoClient(dial(t))
	collect, err := client.Collect(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	collect.Send(&boutiquev1.Sound{Payload: []byte("ri")})
	collect.Send(&boutiquev1.Sound{Payload: []byte("ver")})
	if all, err := collect.CloseAndRecv(); err != nil || string(all.Payload) != "river" {
		t.Fatalf("got %v, %v", all, err)
	}

	collect, err = client.Collect(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	half := &boutiquev1.Sound{Payload: make([]byte, soundBytesMax/2+1)}
	collect.Send(half)
	collect.Send(half)
	if _, err := collect.CloseAndRecv(); status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("got %v", err)
	}
}

func TestRepeatAnswersAsOftenAndAsLongAsAsked(t *testing.T) {
	sounds, err := boutiquev1.NewEchoClient(dial(t)).Repeat(soon(t), &boutiquev1.RepeatRequest{Count: 3, Size: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < 3; i++ {
		if sound, err := sounds.Recv(); err != nil || len(sound.Payload) != 1000 {
			t.Fatalf("sound %d: got %d bytes, %v", i, len(sound.GetPayload()), err)
		}
	}
	if _, err := sounds.Recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("got %v, want the end", err)
	}
}
