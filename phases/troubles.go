package phases

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// trouble is a pod that is not as it should be.
type trouble struct {
	what      string // a line
	node, pod string
	container string // that does not run; empty: none, or all do
}

// nodeOf is the node of a DaemonSet's pod, also of one that was not scheduled there yet.
func nodeOf(p *corev1.Pod) string {
	if a := p.Spec.Affinity; p.Spec.NodeName == "" && a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			for _, f := range term.MatchFields {
				if f.Key == metav1.ObjectNameField && len(f.Values) == 1 {
					return f.Values[0]
				}
			}
		}
	}
	return p.Spec.NodeName
}

func podReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// troubles says why a pod is not ready, of each container that does not run: what it waits for, and how it ended.
func troubles(p *corev1.Pod) (all []trouble) {
	node := nodeOf(p)
	name := "Pod " + p.Namespace + "/" + p.Name
	if node != "" {
		name += " on " + node
	}
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		w, ended := s.State.Waiting, s.LastTerminationState.Terminated
		if s.State.Terminated != nil && s.State.Terminated.ExitCode != 0 {
			ended = s.State.Terminated
		}
		if s.State.Running != nil || ended == nil && (w == nil || w.Message == "") {
			continue
		}
		var why []string
		if w != nil {
			why = append(why, strings.TrimSuffix(w.Reason+": "+w.Message, ": "))
		}
		if ended != nil {
			why = append(why, strings.TrimSuffix(fmt.Sprintf("it ended with code %d: %s", ended.ExitCode, strings.TrimSpace(ended.Message)), ": "))
		}
		all = append(all, trouble{what: name + ", container " + s.Name + ": " + strings.Join(why, "; "), node: node, pod: p.Name, container: s.Name})
	}
	if all != nil {
		return all
	}
	what := name + " is not ready"
	for _, c := range p.Status.Conditions { // it is not scheduled, or a probe fails
		if c.Status == corev1.ConditionFalse && c.Message != "" && c.Type != corev1.PodReady {
			what += ": " + c.Message
		}
	}
	return []trouble{{what: what, node: node}}
}

// notReady are the pods of kube-system and of the pod network that are not, and why.
func (t *Target) notReady(ctx context.Context) (all []trouble) {
	of := map[string]bool{"kube-system": true}
	applied, _ := t.networkObjects(ctx)
	for _, o := range applied {
		of[o.GetNamespace()] = true
	}
	pods, _ := t.API.List(ctx, ref("v1", "Pod", "", ""), "")
	for _, o := range pods {
		if p, err := typed[corev1.Pod](o); err == nil && of[p.Namespace] && p.Status.Phase != corev1.PodSucceeded && !podReady(p) {
			all = append(all, troubles(p)...)
		}
	}
	return all
}

// firstOf are so many as a person reads, a line each.
func firstOf(all []trouble) (lines string) {
	const most = 10
	for _, t := range all[:min(len(all), most)] {
		lines += "\n" + t.what
	}
	if len(all) > most {
		lines += fmt.Sprintf("\nand %d more", len(all)-most)
	}
	return lines
}

// lastWords are those of a container on this host, if it is one of them.
func (t *Target) lastWords(ctx context.Context, all []trouble) string {
	for _, one := range all {
		if one.container == "" || one.node != t.Node.Name {
			continue
		}
		if log := t.containerLog(ctx, one.container); log != "" {
			return fmt.Sprintf("\nthe last lines of container %s on %s:\n%s", one.container, one.node, log)
		}
	}
	return ""
}
