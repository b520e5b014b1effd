package manifests

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kubeletv1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"
)

// What a patch can be for, beside the static pods.
const (
	KubeletConfigurationTarget = "kubeletconfiguration"
	CoreDNSDeploymentTarget    = "corednsdeployment"
)

// Patches are the user's last word on what is computed here. The zero value has none.
type Patches struct {
	// Ignored are files whose names say neither a target nor yaml or json. kubeadm passes
	// over them too; the caller should say so, as it may be a slip of the pen.
	Ignored []string

	all []patch
}

type patch struct {
	file, target, kind string
	json               []byte
}

// PatchFileForm is what the names of patch files look like.
const PatchFileForm = "TARGET[SUFFIX][+strategic|merge|json].{yaml,json}, TARGET one of etcd, kube-apiserver, " +
	"kube-controller-manager, kube-scheduler, kubeletconfiguration, corednsdeployment"

var (
	patchExtension = regexp.MustCompile(`.+\.(json|yaml)$`)
	patchName      = regexp.MustCompile(`^(etcd|kube-apiserver|kube-controller-manager|kube-scheduler|kubeletconfiguration|corednsdeployment)` +
		`[^.+\n]*(\+)?(json|merge|strategic)?`)
)

// LoadPatches reads all patch files of a directory and those below it, in the order of
// their paths, which is the order of application. A file may hold several documents.
func LoadPatches(fsys fs.FS) (Patches, error) {
	var p Patches
	err := fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := patchName.FindStringSubmatch(d.Name())
		if name == nil || !patchExtension.MatchString(d.Name()) {
			p.Ignored = append(p.Ignored, path)
			return nil
		}
		target, plus, kind := name[1], name[2], name[3]
		if plus != "" && kind == "" {
			return fmt.Errorf("patch %s: unknown type after the +: name it %s", path, PatchFileForm)
		}
		if kind == "" {
			kind = "strategic"
		}
		b, err := fs.ReadFile(fsys, path)
		if err != nil {
			return err
		}
		documents, err := split(b)
		if err != nil {
			return fmt.Errorf("patch %s: %w", path, err)
		}
		for _, d := range documents {
			p.all = append(p.all, patch{file: path, target: target, kind: kind, json: d})
		}
		return nil
	})
	return p, err
}

// split takes YAML documents apart and turns each into JSON.
func split(b []byte) ([][]byte, error) {
	var documents [][]byte
	r := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(b)))
	for {
		d, err := r.Read()
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return nil, err
		}
		if len(bytes.TrimSpace(d)) == 0 {
			continue
		}
		j, err := yaml.YAMLToJSON(d)
		if err != nil {
			return nil, err
		}
		documents = append(documents, j)
	}
}

// Apply patches a YAML or JSON document of one of the targets. The result is YAML; without a
// patch for the target it is the document itself.
func (p Patches) Apply(target string, doc []byte) ([]byte, error) {
	var of any
	switch target {
	case Etcd, APIServer, ControllerManager, Scheduler:
		of = corev1.Pod{}
	case KubeletConfigurationTarget:
		of = kubeletv1.KubeletConfiguration{}
	case CoreDNSDeploymentTarget:
		of = appsv1.Deployment{}
	default:
		return nil, fmt.Errorf("nothing named %q can be patched: name patch files %s", target, PatchFileForm)
	}
	var patches []patch
	for _, c := range p.all {
		if c.target == target {
			patches = append(patches, c)
		}
	}
	if len(patches) == 0 {
		return doc, nil
	}
	patched, err := yaml.YAMLToJSON(doc)
	if err != nil {
		return nil, err
	}
	for _, c := range patches {
		if patched, err = c.apply(patched, of); err != nil {
			return nil, fmt.Errorf("patch %s does not apply to %s: %w: %s", c.file, target, err, strings.TrimSpace(string(c.json)))
		}
	}
	return yaml.JSONToYAML(patched)
}

func (c patch) apply(doc []byte, of any) ([]byte, error) {
	switch c.kind {
	case "json":
		operations, err := jsonpatch.DecodePatch(c.json)
		if err != nil {
			return nil, err
		}
		return operations.Apply(doc)
	case "merge":
		return jsonpatch.MergePatch(doc, c.json)
	default:
		return strategicpatch.StrategicMergePatch(doc, c.json, of)
	}
}
