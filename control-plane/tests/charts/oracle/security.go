package main

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	yamljson "sigs.k8s.io/yaml"
)

// restricted tells, one line each, what an API server that enforces the level of that name has against pods.
func restricted(files []string) error {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return err
	}
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	for _, file := range files {
		documents, err := split(file)
		if err != nil {
			return err
		}
		for _, document := range documents {
			var pod v1.Pod
			if err := yamljson.UnmarshalStrict(document, &pod); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			result := policy.AggregateCheckResults(evaluator.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec))
			if !result.Allowed {
				fmt.Printf("%s: %s\n", pod.Name, result.ForbiddenDetail())
			}
		}
	}
	return nil
}
