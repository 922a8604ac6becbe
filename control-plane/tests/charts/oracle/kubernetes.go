package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/yaml"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/client-go/kubernetes/scheme"
	yamljson "sigs.k8s.io/yaml"
)

// Fault is what the API server says of one field.
type Fault struct {
	File    string `json:"file"`
	Object  string `json:"object"`
	Field   string `json:"field"`
	Message string `json:"message"`
	// Rule: told by one of the CRD's own rules; Schema: by its schema; Unknown: a field that it does not have.
	From string `json:"from"`
}

// kind is one CRD, ready to judge objects.
type kind struct {
	structural *structuralschema.Structural
	schema     validation.SchemaValidator
	rules      *cel.Validator
}

func definitions(file string) error {
	found, err := read(file)
	if err != nil {
		return err
	}
	for _, definition := range found {
		for _, wrong := range crdvalidation.ValidateCustomResourceDefinition(context.Background(), definition) {
			tell(Fault{file, definition.Name, wrong.Field, wrong.ErrorBody(), "Schema"})
		}
	}
	return nil
}

func objects(crds string, files []string) error {
	found, err := read(crds)
	if err != nil {
		return err
	}
	kinds := map[string]kind{}
	for _, definition := range found {
		judge, err := judging(definition)
		if err != nil {
			return fmt.Errorf("%s: %w", definition.Name, err)
		}
		kinds[definition.Spec.Group+"/"+definition.Spec.Versions[0].Name+" "+definition.Spec.Names.Kind] = judge
	}
	for _, file := range files {
		documents, err := split(file)
		if err != nil {
			return err
		}
		for _, document := range documents {
			object(kinds, file, document)
		}
	}
	return nil
}

func object(kinds map[string]kind, file string, document []byte) {
	// As kubectl reads it: a field written twice is a mistake.
	strict, err := yamljson.YAMLToJSONStrict(document)
	var content map[string]interface{}
	if err == nil {
		err = json.Unmarshal(strict, &content)
	}
	if err != nil {
		tell(Fault{file, "", "", err.Error(), "Schema"})
		return
	}
	if len(content) == 0 {
		return
	}
	if items, isList := content["items"].([]interface{}); isList && content["kind"] == "List" {
		for _, item := range items {
			inner, err := json.Marshal(item)
			if err != nil {
				fail(err)
			}
			object(kinds, file, inner)
		}
		return
	}
	metadata, _ := content["metadata"].(map[string]interface{})
	name := fmt.Sprint(content["kind"], " ", metadata["name"])
	judge, ours := kinds[fmt.Sprint(content["apiVersion"], " ", content["kind"])]
	if !ours {
		codecs := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict)
		if _, _, err := codecs.UniversalDeserializer().Decode(strict, nil, nil); err != nil {
			tell(Fault{file, name, "", err.Error(), "Schema"})
		}
		return
	}
	found := judge.faults(strict)
	sort.Slice(found, func(a, b int) bool {
		return found[a].Field+found[a].Message < found[b].Field+found[b].Message
	})
	for _, wrong := range found {
		wrong.File, wrong.Object = file, name
		tell(wrong)
	}
}

// faults are found in the order in which the API server looks.
func (k kind) faults(document []byte) []Fault {
	var content map[string]interface{}
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.UseNumber()
	if err := decoder.Decode(&content); err != nil {
		return []Fault{{Message: err.Error(), From: "Schema"}}
	}
	numbers(content)
	var faults []Fault
	tracked := structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}
	for _, path := range pruning.PruneWithOptions(content, k.structural, true, tracked) {
		faults = append(faults, Fault{Field: path, Message: "unknown field", From: "Unknown"})
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(content, k.structural)
	defaulting.Default(content, k.structural)
	add := func(from string, wrongs field.ErrorList) {
		for _, wrong := range wrongs {
			message := wrong.Detail
			if message == "" {
				message = wrong.ErrorBody()
			}
			// Without a place it is told a second time, with it.
			if wrong.Field != "<nil>" {
				faults = append(faults, Fault{Field: wrong.Field, Message: message, From: from})
			}
		}
	}
	shape := validation.ValidateCustomResource(nil, content, k.schema)
	shape = append(shape, listtype.ValidateListSetsAndMaps(nil, k.structural, content)...)
	add("Schema", shape)
	// Rules are asked only about what has the right shape.
	if k.rules != nil && len(shape) == 0 {
		wrongs, _ := k.rules.Validate(context.Background(), nil, k.structural, content, nil, celconfig.RuntimeCELCostBudget)
		add("Rule", wrongs)
	}
	return faults
}

// numbers become what the API server makes of them: whole ones are int64.
func numbers(value interface{}) interface{} {
	switch value := value.(type) {
	case map[string]interface{}:
		for key, inner := range value {
			value[key] = numbers(inner)
		}
	case []interface{}:
		for index, inner := range value {
			value[index] = numbers(inner)
		}
	case json.Number:
		if whole, err := value.Int64(); err == nil {
			return whole
		}
		real, _ := value.Float64()
		return real
	}
	return value
}

func judging(definition *apiextensions.CustomResourceDefinition) (kind, error) {
	said := definition.Spec.Validation
	if said == nil {
		said = definition.Spec.Versions[0].Schema
	}
	structural, err := structuralschema.NewStructural(said.OpenAPIV3Schema)
	if err != nil {
		return kind{}, err
	}
	schema, _, err := validation.NewSchemaValidator(said.OpenAPIV3Schema)
	if err != nil {
		return kind{}, err
	}
	return kind{structural, schema, cel.NewValidator(structural, true, celconfig.PerCallLimit)}, nil
}

func read(file string) ([]*apiextensions.CustomResourceDefinition, error) {
	documents, err := split(file)
	if err != nil {
		return nil, err
	}
	var found []*apiextensions.CustomResourceDefinition
	for _, document := range documents {
		if len(bytes.TrimSpace(document)) == 0 {
			continue
		}
		var external apiextensionsv1.CustomResourceDefinition
		if err := yamljson.UnmarshalStrict(document, &external); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		apiextensionsv1.SetDefaults_CustomResourceDefinition(&external)
		apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&external.Spec)
		external.Status.StoredVersions = []string{external.Spec.Versions[0].Name}
		var internal apiextensions.CustomResourceDefinition
		if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&external, &internal, nil); err != nil {
			return nil, err
		}
		found = append(found, &internal)
	}
	return found, nil
}

func split(file string) ([][]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var documents [][]byte
	reader := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(text)))
	buffer := make([]byte, len(text)+1)
	for {
		length, err := reader.Read(buffer)
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		documents = append(documents, bytes.Clone(buffer[:length]))
	}
}

func tell(fault Fault) {
	line, err := json.Marshal(fault)
	if err != nil {
		fail(err)
	}
	fmt.Println(string(line))
}

func init() {
	if err := apiextensionsv1.AddToScheme(scheme.Scheme); err != nil {
		fail(err)
	}
}
