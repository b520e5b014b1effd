// Package apiclient is client-go's typed client for the groups that we ask. Its own clientset links those of
// all groups of the API, which are some megabytes of our binary.
package apiclient

import (
	"net/http"

	"k8s.io/client-go/discovery"
	appsv1 "k8s.io/client-go/kubernetes/typed/apps/v1"
	authorizationv1 "k8s.io/client-go/kubernetes/typed/authorization/v1"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	discoveryv1 "k8s.io/client-go/kubernetes/typed/discovery/v1"
	networkingv1 "k8s.io/client-go/kubernetes/typed/networking/v1"
	policyv1 "k8s.io/client-go/kubernetes/typed/policy/v1"
	rbacv1 "k8s.io/client-go/kubernetes/typed/rbac/v1"
	"k8s.io/client-go/rest"
)

// Interface has client-go's names, so that its Clientset is one.
type Interface interface {
	Discovery() discovery.DiscoveryInterface
	AppsV1() appsv1.AppsV1Interface
	AuthorizationV1() authorizationv1.AuthorizationV1Interface
	CoreV1() corev1.CoreV1Interface
	DiscoveryV1() discoveryv1.DiscoveryV1Interface
	NetworkingV1() networkingv1.NetworkingV1Interface
	PolicyV1() policyv1.PolicyV1Interface
	RbacV1() rbacv1.RbacV1Interface
}

type set struct {
	discovery     *discovery.DiscoveryClient
	apps          *appsv1.AppsV1Client
	authorization *authorizationv1.AuthorizationV1Client
	core          *corev1.CoreV1Client
	endpoints     *discoveryv1.DiscoveryV1Client
	networking    *networkingv1.NetworkingV1Client
	policy        *policyv1.PolicyV1Client
	rbac          *rbacv1.RbacV1Client
}

// New is kubernetes.NewForConfigAndClient; a nil client is made of the configuration.
func New(config *rest.Config, client *http.Client) (Interface, error) {
	if client == nil {
		var err error
		if client, err = rest.HTTPClientFor(config); err != nil {
			return nil, err
		}
	}
	s, err := &set{}, error(nil)
	get := func(f func() error) {
		if err == nil {
			err = f()
		}
	}
	get(func() (err error) {
		s.discovery, err = discovery.NewDiscoveryClientForConfigAndClient(config, client)
		return
	})
	get(func() (err error) { s.apps, err = appsv1.NewForConfigAndClient(config, client); return })
	get(func() (err error) {
		s.authorization, err = authorizationv1.NewForConfigAndClient(config, client)
		return
	})
	get(func() (err error) { s.core, err = corev1.NewForConfigAndClient(config, client); return })
	get(func() (err error) { s.endpoints, err = discoveryv1.NewForConfigAndClient(config, client); return })
	get(func() (err error) { s.networking, err = networkingv1.NewForConfigAndClient(config, client); return })
	get(func() (err error) { s.policy, err = policyv1.NewForConfigAndClient(config, client); return })
	get(func() (err error) { s.rbac, err = rbacv1.NewForConfigAndClient(config, client); return })
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (s *set) Discovery() discovery.DiscoveryInterface                   { return s.discovery }
func (s *set) AppsV1() appsv1.AppsV1Interface                            { return s.apps }
func (s *set) AuthorizationV1() authorizationv1.AuthorizationV1Interface { return s.authorization }
func (s *set) CoreV1() corev1.CoreV1Interface                            { return s.core }
func (s *set) DiscoveryV1() discoveryv1.DiscoveryV1Interface             { return s.endpoints }
func (s *set) NetworkingV1() networkingv1.NetworkingV1Interface          { return s.networking }
func (s *set) PolicyV1() policyv1.PolicyV1Interface                      { return s.policy }
func (s *set) RbacV1() rbacv1.RbacV1Interface                            { return s.rbac }
