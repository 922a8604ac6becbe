package chassis

import (
	"context"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

func with(t *testing.T, knobs *boutiquev1.Knobs) *Faults {
	t.Helper()
	faults, err := NewFaults(knobs)
	if err != nil {
		t.Fatal(err)
	}
	return faults
}

func TestWithoutKnobsACallPassesAtOnce(t *testing.T) {
	if err := with(t, &boutiquev1.Knobs{}).Before(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestTheGivenShareOfCallsFailsWithTheGivenCode(t *testing.T) {
	faults := with(t, &boutiquev1.Knobs{ErrorPct: 30, Code: int32(codes.Aborted)})
	next := int32(0)
	faults.percent = func() int32 { next++; return next - 1 }
	failed := 0
	for i := 0; i < 100; i++ {
		if err := faults.Before(context.Background()); err != nil {
			failed++
			if status.Code(err) != codes.Aborted {
				t.Fatal(err)
			}
		}
	}
	if failed != 30 {
		t.Fatalf("%d of 100 failed", failed)
	}
}

func TestACodeOfZeroStandsForUnavailable(t *testing.T) {
	err := with(t, &boutiquev1.Knobs{ErrorPct: 100}).Before(context.Background())
	if status.Code(err) != codes.Unavailable {
		t.Fatal(err)
	}
}

func TestLatencyEndsEarlyWhenTheCallerGivesUp(t *testing.T) {
	faults := with(t, &boutiquev1.Knobs{LatencyMs: 60_000})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := faults.Before(ctx); status.Code(err) != codes.DeadlineExceeded {
		t.Fatal(err)
	}
}

func TestAFrozenCallGoesOnWhenItThaws(t *testing.T) {
	faults := with(t, &boutiquev1.Knobs{Freeze: true})
	done := make(chan error)
	go func() { done <- faults.Before(context.Background()) }()
	select {
	case err := <-done:
		t.Fatalf("not frozen: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	faults.Set(&boutiquev1.Knobs{})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestCapacityIsSlotsOverServiceTime(t *testing.T) {
	faults := with(t, &boutiquev1.Knobs{Slots: 2, ServiceMs: 100})
	start := time.Now()
	var calls sync.WaitGroup
	for i := 0; i < 6; i++ { // three rounds of two
		calls.Add(1)
		go func() { defer calls.Done(); faults.Before(context.Background()) }()
	}
	calls.Wait()
	if took := time.Since(start); took < 300*time.Millisecond {
		t.Fatalf("six calls on two slots of 100 ms took %v", took)
	}
}

func TestLiftingTheSlotsFreesTheCallsThatWaitForOne(t *testing.T) {
	faults := with(t, &boutiquev1.Knobs{Slots: 2, ServiceMs: 60_000})
	busy := func() int32 {
		faults.mu.Lock()
		defer faults.mu.Unlock()
		return faults.busy
	}
	for i := 0; i < 2; i++ {
		go faults.Before(context.Background())
	}
	for busy() < 2 { // until these are at work
		time.Sleep(time.Millisecond)
	}
	done := make(chan error)
	go func() { done <- faults.Before(context.Background()) }()
	time.Sleep(20 * time.Millisecond)
	if at := busy(); at != 2 {
		t.Fatalf("%d are at work on two slots", at)
	}
	faults.Set(&boutiquev1.Knobs{})
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("still waiting")
	}
}

func TestTheLineForTheSlotsHasAnEnd(t *testing.T) {
	faults := with(t, &boutiquev1.Knobs{Slots: 1, ServiceMs: 60_000})
	waiting := make(chan error, workMax)
	for i := 0; i < workMax; i++ {
		go func() { waiting <- faults.Before(context.Background()) }()
	}
	working := func() int {
		faults.mu.Lock()
		defer faults.mu.Unlock()
		return faults.working
	}
	for working() < workMax {
		time.Sleep(time.Millisecond)
	}
	if err := faults.Before(context.Background()); status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("beyond the end of the line: %v", err)
	}
	faults.Set(&boutiquev1.Knobs{Slots: 2})
	for i := 1; i < workMax; i++ { // all but the one that is at work
		if err := <-waiting; err != nil {
			t.Fatal(err)
		}
	}
	if err := faults.Before(context.Background()); err != nil {
		t.Errorf("once the line is gone: %v", err)
	}
}

func TestKnobsThatMakeNoSenseAreRefusedAndTheOldOnesStay(t *testing.T) {
	faults := with(t, &boutiquev1.Knobs{LatencyMs: 7})
	for _, knobs := range []*boutiquev1.Knobs{{ErrorPct: 101}, {LatencyMs: -1}, {Code: 17}, {Slots: -1}, {ServiceMs: -1}} {
		if faults.Set(knobs) == nil {
			t.Errorf("%v was accepted", knobs)
		}
	}
	if faults.Knobs().LatencyMs != 7 {
		t.Error("the old knobs are gone")
	}
}
