package chassis

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"

	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

// Env reads settings from the environment and remembers the first one that made no sense,
// so that reading many of them stays a list.
type Env struct{ err error }

// Err says which variable was wrong, if any was.
func (e *Env) Err() error { return e.err }

// Int is the number in a variable, or the fallback where it is unset or empty.
func (e *Env) Int(name string, fallback int) int {
	text := os.Getenv(name)
	if text == "" {
		return fallback
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		e.refuse(name, text, "a number from 0")
		return fallback
	}
	return n
}

// Text is what a variable says, or the fallback where it is unset or empty.
func (e *Env) Text(name, fallback string) string {
	if text := os.Getenv(name); text != "" {
		return text
	}
	return fallback
}

// Seconds is a duration given in whole seconds.
func (e *Env) Seconds(name string, fallback int) time.Duration {
	return time.Duration(e.Int(name, fallback)) * time.Second
}

// Knobs are the faults to start with.
func (e *Env) Knobs() *boutiquev1.Knobs {
	return &boutiquev1.Knobs{
		LatencyMs: int32(e.Int("LATENCY_MS", 0)),
		ErrorPct:  int32(e.Int("ERROR_PCT", 0)),
		Code:      int32(e.code("ERROR_CODE")),
		Slots:     int32(e.Int("SLOTS", 0)),
		ServiceMs: int32(e.Int("SERVICE_MS", 0)),
	}
}

// code reads a gRPC status, by name (UNAVAILABLE) or by number (14).
func (e *Env) code(name string) codes.Code {
	text := os.Getenv(name)
	if text == "" {
		return codes.OK
	}
	var code codes.Code
	if code.UnmarshalJSON([]byte(text)) != nil && code.UnmarshalJSON([]byte(`"`+text+`"`)) != nil {
		e.refuse(name, text, "a gRPC status like UNAVAILABLE or 14")
	}
	return code
}

func (e *Env) refuse(name, text, expected string) {
	if e.err == nil {
		e.err = fmt.Errorf("%s=%q: expected %s", name, text, expected)
	}
}
