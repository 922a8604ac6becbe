package chassis

import (
	"testing"

	"google.golang.org/grpc/codes"
)

func TestAnErrorCodeIsANameOrANumber(t *testing.T) {
	for text, want := range map[string]codes.Code{"": 0, "14": codes.Unavailable, "RESOURCE_EXHAUSTED": codes.ResourceExhausted} {
		t.Setenv("ERROR_CODE", text)
		env := &Env{}
		if got := env.Knobs().Code; got != int32(want) || env.Err() != nil {
			t.Errorf("%q: got %d, %v", text, got, env.Err())
		}
	}
}

func TestTheFirstVariableThatMakesNoSenseIsNamed(t *testing.T) {
	t.Setenv("LATENCY_MS", "soon")
	t.Setenv("ERROR_CODE", "OOPS")
	env := &Env{}
	env.Knobs()
	if err := env.Err(); err == nil || err.Error() != `LATENCY_MS="soon": expected a number from 0` {
		t.Fatal(err)
	}
}
