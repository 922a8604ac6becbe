package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"path"
	"sort"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"helm.sh/helm/v3/pkg/strvals"
)

const namespace = "weir-system"

func init() {
	// That the shop's YAML is a link is meant.
	log.SetOutput(io.Discard)
}

func render(folder string, files []string) error {
	chart, err := loader.Load(folder)
	if err != nil {
		return err
	}
	values, err := merged(files)
	if err != nil {
		return err
	}
	release := chartutil.ReleaseOptions{Name: chart.Name(), Namespace: namespace, Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(chart, values, release, chartutil.DefaultCapabilities)
	if err != nil {
		return err
	}
	files_, err := engine.Render(chart, all)
	if err != nil {
		return err
	}
	var names []string
	for name := range files_ {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		text := strings.TrimSpace(files_[name])
		if text == "" || strings.HasPrefix(path.Base(name), "_") {
			continue
		}
		if path.Base(name) == "NOTES.txt" {
			fmt.Printf("---\n# NOTES\n# %s\n", strings.ReplaceAll(text, "\n", "\n# "))
			continue
		}
		fmt.Printf("---\n# %s\n%s\n", strings.TrimPrefix(name, chart.Name()+"/templates/"), strings.TrimPrefix(text, "---\n"))
	}
	return nil
}

func merged(files []string) (map[string]interface{}, error) {
	values := map[string]interface{}{}
	for _, file := range files {
		more, err := chartutil.ReadValuesFile(file)
		if err != nil {
			return nil, err
		}
		values = chartutil.CoalesceTables(more.AsMap(), values)
	}
	return values, nil
}

func check(folder string, files []string) error {
	values, err := merged(files)
	if err != nil {
		return err
	}
	for _, found := range lint.All(folder, values, namespace, true).Messages {
		if found.Severity > support.InfoSev {
			fmt.Println(found.Error())
		}
	}
	return nil
}

func sets(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for _, line := range strings.Split(strings.TrimRight(string(text), "\n"), "\n") {
		answer := struct {
			Set   string                 `json:"set"`
			Typed map[string]interface{} `json:"typed"`
			Text  map[string]interface{} `json:"text"`
		}{Set: line}
		if typed, err := strvals.Parse(line); err == nil {
			answer.Typed = typed
		}
		if text, err := strvals.ParseString(line); err == nil {
			answer.Text = text
		}
		if err := out.Encode(answer); err != nil {
			return err
		}
	}
	return nil
}
