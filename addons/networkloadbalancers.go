package addons

import (
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"

	"github.com/kubewright/kubewright/config"
)

// balancerKind is the annotation that tells the cloud controller which load balancer to make for a Service.
const balancerKind = "service.beta.kubernetes.io/aws-load-balancer-type"

// networkLoadBalancers has a Service of type LoadBalancer get a network load balancer where nobody has said otherwise. By itself the controller
// makes a classic one, whose kind is no more made better, and has no setting for it. A Service that has got a load balancer keeps its kind, for the controller would leave
// the old one behind; one with a class of its own is for another controller. Such policies are on by default since Kubernetes 1.36.
func networkLoadBalancers(c *config.Cluster) []Object {
	if !c.AtLeast("v1.36.0") {
		return nil
	}
	const name = "network-load-balancers.kubewright.dev"
	replace := strings.NewReplacer("KEY", "'"+balancerKind+"'").Replace
	policy := &admissionv1.MutatingAdmissionPolicy{
		ObjectMeta: named("", name),
		Spec: admissionv1.MutatingAdmissionPolicySpec{
			FailurePolicy:      new(admissionv1.Fail),
			ReinvocationPolicy: admissionv1.NeverReinvocationPolicy,
			MatchConstraints: &admissionv1.MatchResources{
				MatchPolicy: new(admissionv1.Equivalent),
				ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"services"}, Scope: new(admissionv1.AllScopes)},
				}}},
			},
			MatchConditions: []admissionv1.MatchCondition{
				{Name: "balanced", Expression: "object.spec.type == 'LoadBalancer' && !has(object.spec.loadBalancerClass)"},
				{Name: "unsaid", Expression: replace("!has(object.metadata.annotations) || !(KEY in object.metadata.annotations)")},
				{Name: "new-or-such", Expression: replace("request.operation == 'CREATE' || oldObject.spec.type != 'LoadBalancer' || " +
					"has(oldObject.metadata.annotations) && KEY in oldObject.metadata.annotations && oldObject.metadata.annotations[KEY] == 'nlb'")},
			},
			Mutations: []admissionv1.Mutation{{
				PatchType:          admissionv1.PatchTypeApplyConfiguration,
				ApplyConfiguration: &admissionv1.ApplyConfiguration{Expression: replace("Object{metadata: Object.metadata{annotations: {KEY: 'nlb'}}}")},
			}},
		},
	}
	binding := &admissionv1.MutatingAdmissionPolicyBinding{ObjectMeta: named("", name), Spec: admissionv1.MutatingAdmissionPolicyBindingSpec{PolicyName: name}}
	return objects(policy, binding)
}
