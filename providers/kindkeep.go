package providers

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host/container"
)

// keep looks at containers that are there already: kind adds none to a cluster.
func (k *Kind) keep(ctx context.Context, c *config.Cluster, have []container.Container, expires time.Time) error {
	next := fmt.Sprintf("choose another name with --name, or remove it with `kubewright down --provider kind --name %s`", c.Metadata.Name)
	var wanted, stopped []string
	is := names(have)
	for _, h := range have {
		if !h.Running {
			stopped = append(stopped, h.Name)
		}
	}
	for _, n := range c.Spec.Hosts {
		wanted = append(wanted, n.Name)
	}
	slices.Sort(wanted)
	switch {
	case stopped != nil:
		return fmt.Errorf("the cluster %s is there, and stopped: %s: start them with `%s start %s`, and run this again", c.Metadata.Name, strings.Join(stopped, ", "), k.Engine, strings.Join(stopped, " "))
	case !slices.Equal(is, wanted):
		return fmt.Errorf("the cluster %s is there, of %s, and is to be of %s: containers are not added to it or taken away: %s", c.Metadata.Name, strings.Join(is, ", "), strings.Join(wanted, ", "), next)
	}
	was, err := k.marked(ctx, first(c).Name)
	if err != nil { // of one whose making was cut short before it was signed, nothing of Kubernetes is there yet
		looked, err := k.Engine.Do(ctx, "exec", first(c).Name, "sh", "-c", "! [ -e /etc/kubernetes/kubelet.conf ] || echo foreign")
		if err == nil && looked != "" {
			err = fmt.Errorf("the cluster %s is there, and was made by kind, not by kubewright: %s", c.Metadata.Name, next)
		}
		if err != nil {
			return err
		}
	}
	if made, err := config.Parse([]byte(was.Cluster)); err == nil && was.Cluster != "" {
		if others := differences(shape(made), shape(c)); others != nil {
			return fmt.Errorf("the cluster %s is there, and was made with other settings of its containers (%s): containers are not changed: %s", c.Metadata.Name, strings.Join(others, ", "), next)
		}
		for i, h := range c.Spec.Hosts {
			if wanted, had := &c.Spec.Provider.Kind.Nodes[i].Image, imageOf(made, h.Name); *wanted != had {
				k.Say("%s stays of the image %s, not %s: containers are not changed", h.Name, had, *wanted)
				*wanted = had
			}
		}
	}
	if err := k.lost(ctx, c, next); err != nil {
		return err
	}
	document, err := c.Print()
	if err != nil || expires.IsZero() && was.Cluster == string(document) {
		return err
	}
	if expires.IsZero() {
		expires = was.Expires
	}
	wished := &marked{Expires: expires, Cluster: string(document)}
	if was.Cluster == "" {
		k.unsigned = wished
	} else {
		k.wished = wished
	}
	return nil
}

// lost tells of control planes that have come back with other addresses, as they have noted at boot: see readdress.
func (k *Kind) lost(ctx context.Context, c *config.Cluster, next string) error {
	planes := slices.DeleteFunc(slices.Clone(c.Spec.Hosts), func(n config.Node) bool { return !n.Has(config.ControlPlaneRole) })
	if len(planes) == 1 {
		return nil
	}
	for _, n := range planes {
		if said, err := k.Engine.Read(ctx, n.Name, "/kind/lost"); err == nil {
			return fmt.Errorf("%s: %s: %s", n.Name, strings.TrimSpace(string(said)), next)
		}
	}
	return ctx.Err()
}

// first is the control plane that kind knows as one.
func first(c *config.Cluster) config.Node {
	return c.Spec.Hosts[slices.IndexFunc(c.Spec.Hosts, func(n config.Node) bool { return n.Has(config.ControlPlaneRole) })]
}

func (k *Kind) sign(ctx context.Context, c *config.Cluster, m marked) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return k.Engine.Write(ctx, first(c).Name, mark, b)
}

func (k *Kind) marked(ctx context.Context, container string) (m marked, err error) {
	b, err := k.Engine.Read(ctx, container, mark)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	return m, err
}

// shape is what the containers of a cluster are made with and keep, but for their images.
func shape(c *config.Cluster) string {
	p := c.Spec.Provider.Kind
	nodes := map[string]config.KindNode{}
	for i, n := range p.Nodes {
		nodes[c.Spec.Hosts[i].Name] = config.KindNode{Role: n.Role, ExtraMounts: n.ExtraMounts, ExtraPortMappings: n.ExtraPortMappings}
	}
	p.Nodes, p.Image = nil, ""
	b, err := json.Marshal(map[string]any{"provider": p, "nodes": nodes, "family": family(c.Spec.Network.PodCIDR, c.Spec.Network.ServiceCIDR)})
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func imageOf(c *config.Cluster, name string) string {
	return c.Spec.Provider.Kind.Nodes[slices.IndexFunc(c.Spec.Hosts, func(n config.Node) bool { return n.Name == name })].Image
}
