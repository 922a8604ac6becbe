// The oracle answers for those who are not here: Helm, and an API server. It is their own code, as libraries.
//
//	oracle render CHART [VALUES…]      what `helm template weir CHART -n weir-system -f VALUES` writes
//	oracle lint CHART [VALUES…]        what `helm lint --strict` finds
//	oracle sets FILE                   what `--set` and `--set-string` make of each line, as JSON; null: nothing
//	oracle objects CRDS FILE…          what the API server's types and schemas say of objects: one JSON line a fault
//	oracle definitions CRDS            what it says of the CRDs themselves, the cost of their rules included
//	oracle restricted PODS…            what Pod Security has against pods at that level: one line a pod
//
// Exit code 0: asked and answered, faults included; 1: it could not be asked.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 3 {
		fail(fmt.Errorf("usage: oracle render|lint|sets|objects|definitions|restricted PATH…"))
	}
	var err error
	switch command, paths := os.Args[1], os.Args[2:]; command {
	case "render":
		err = render(paths[0], paths[1:])
	case "lint":
		err = check(paths[0], paths[1:])
	case "sets":
		err = sets(paths[0])
	case "objects":
		err = objects(paths[0], paths[1:])
	case "definitions":
		err = definitions(paths[0])
	case "restricted":
		err = restricted(os.Args[2:])
	default:
		err = fmt.Errorf("unknown command %q", command)
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
