package aws

import (
	"encoding/json"
	"fmt"
)

// place is where a cluster's resources are, and whose: what their names (ARNs) begin with.
type place struct {
	partition string // aws, aws-cn, aws-us-gov
	region    string
	account   string
	cluster   string
}

func (p place) arn(service, resource string) string {
	return fmt.Sprintf("arn:%s:%s:%s:%s:%s", p.partition, service, p.region, p.account, resource)
}

// statement lets a role do something. Policies have no room for a reason.
type statement struct {
	Why       string `json:"-"`
	Effect    string
	Action    []string
	Resource  []string
	Condition map[string]map[string]any `json:",omitempty"`
}

// policy is a document of IAM's.
type policy struct {
	Version   string
	Statement []statement
}

// JSON is the document as IAM takes it.
func (p policy) JSON() string {
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // nothing but strings in it
	}
	return string(b)
}

// Tags that the cloud controller and the EBS CSI driver give to what they make. Beside the cluster's own tag, which our own load balancer
// and the machines carry, too, they tell what is theirs.
const (
	serviceTag = "kubernetes.io/service-name"
	volumeTag  = "ebs.csi.aws.com/cluster"
)

func (p place) ownTag() string { return "kubernetes.io/cluster/" + p.cluster }

// of wants tags on what is asked for, or in the request itself (which is "Request" or "Resource"); the value of the second one does not matter.
func (p place) of(which, second string) map[string]map[string]any {
	c := map[string]map[string]any{"StringEquals": {"aws:" + which + "Tag/" + p.ownTag(): "owned"}}
	if second != "" {
		c["Null"] = map[string]any{"aws:" + which + "Tag/" + second: "false"}
	}
	return c
}

// controlPlanePolicy is what control planes may do: what the cloud controller asks for to know nodes and to give Services a
// network load balancer, and with volumes what the EBS CSI driver does. Classic load balancers, security groups of a Service's own, routes,
// snapshots and keys of one's own are left out: who wants these brings an instance profile. Workers have no role at all: neither the kubelet nor the
// driver's part on nodes asks the cloud for anything, and a pod might come by what its machine may do.
func controlPlanePolicy(p place, volumes bool) policy {
	all := []statement{{
		Why: "EC2 lists without regard to single resources, so that there is nothing else to name: machines, and what is around them",
		Action: []string{"ec2:DescribeAvailabilityZones", "ec2:DescribeInstances", "ec2:DescribeInstanceTopology", "ec2:DescribeRouteTables",
			"ec2:DescribeSecurityGroups", "ec2:DescribeSubnets"},
		Resource: []string{"*"},
	}, {
		Why:      "as above, and asked by ELB in the name of whoever makes a load balancer",
		Action:   []string{"ec2:DescribeAccountAttributes", "ec2:DescribeAddresses", "ec2:DescribeInternetGateways", "ec2:DescribeVpcs"},
		Resource: []string{"*"},
	}, {
		Why: "ELB lists without regard to single resources, as well",
		Action: []string{"elasticloadbalancing:DescribeListeners", "elasticloadbalancing:DescribeLoadBalancerAttributes", "elasticloadbalancing:DescribeLoadBalancers",
			"elasticloadbalancing:DescribeTargetGroupAttributes", "elasticloadbalancing:DescribeTargetGroups", "elasticloadbalancing:DescribeTargetHealth"},
		Resource: []string{"*"},
	}, {
		Why:       "what a Service listens at gets to the nodes; ids are not known before, and the tag tells which group",
		Action:    []string{"ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress"},
		Resource:  []string{p.arn("ec2", "security-group/*")},
		Condition: p.of("Resource", ""),
	}, {
		Why:       "names are made of a Service's; what is made must say whose it is",
		Action:    []string{"elasticloadbalancing:CreateLoadBalancer", "elasticloadbalancing:CreateTargetGroup"},
		Resource:  []string{p.arn("elasticloadbalancing", "loadbalancer/net/*"), p.arn("elasticloadbalancing", "targetgroup/*")},
		Condition: p.of("Request", serviceTag),
	}, {
		Why:      "tags are given by a right of its own, here only while something is made",
		Action:   []string{"elasticloadbalancing:AddTags"},
		Resource: []string{p.arn("elasticloadbalancing", "loadbalancer/net/*"), p.arn("elasticloadbalancing", "targetgroup/*"), p.arn("elasticloadbalancing", "listener/net/*")},
		Condition: map[string]map[string]any{"StringEquals": {
			"elasticloadbalancing:CreateAction": []string{"CreateListener", "CreateLoadBalancer", "CreateTargetGroup"}}},
	}, {
		Why: "ids are random; the tags tell that it is a Service's of this cluster, and not, say, the load balancer of the API servers",
		Action: []string{"elasticloadbalancing:CreateListener", "elasticloadbalancing:DeleteListener", "elasticloadbalancing:DeleteLoadBalancer",
			"elasticloadbalancing:DeleteTargetGroup", "elasticloadbalancing:DeregisterTargets", "elasticloadbalancing:ModifyListener",
			"elasticloadbalancing:ModifyLoadBalancerAttributes", "elasticloadbalancing:ModifyTargetGroup", "elasticloadbalancing:ModifyTargetGroupAttributes",
			"elasticloadbalancing:RegisterTargets"},
		Resource:  []string{p.arn("elasticloadbalancing", "loadbalancer/net/*"), p.arn("elasticloadbalancing", "targetgroup/*"), p.arn("elasticloadbalancing", "listener/net/*")},
		Condition: p.of("Resource", serviceTag),
	}}
	if volumes {
		all = append(all, p.volumes()...)
	}
	for i := range all {
		all[i].Effect = "Allow"
	}
	return policy{"2012-10-17", all}
}

// volumes is what the controller of the EBS CSI driver does. It runs on control planes alone; on the nodes the driver asks nobody.
func (p place) volumes() []statement {
	return []statement{{
		Why:      "EC2 lists without regard to single resources",
		Action:   []string{"ec2:DescribeVolumes", "ec2:DescribeVolumesModifications"},
		Resource: []string{"*"},
	}, {
		Why:       "a volume that is made must say whose it is",
		Action:    []string{"ec2:CreateVolume"},
		Resource:  []string{p.arn("ec2", "volume/*")},
		Condition: p.of("Request", volumeTag),
	}, {
		Why:       "tags are given by a right of its own, here only while a volume is made",
		Action:    []string{"ec2:CreateTags"},
		Resource:  []string{p.arn("ec2", "volume/*")},
		Condition: map[string]map[string]any{"StringEquals": {"ec2:CreateAction": "CreateVolume"}},
	}, {
		Why:       "ids are random; the tags tell that it is a volume of this cluster, and not the disk of a machine",
		Action:    []string{"ec2:AttachVolume", "ec2:DeleteVolume", "ec2:DetachVolume", "ec2:ModifyVolume"},
		Resource:  []string{p.arn("ec2", "volume/*")},
		Condition: p.of("Resource", volumeTag),
	}, {
		Why:       "to attach needs a right to the machine, too; the tag tells that it is one of this cluster",
		Action:    []string{"ec2:AttachVolume", "ec2:DetachVolume"},
		Resource:  []string{p.arn("ec2", "instance/*")},
		Condition: p.of("Resource", ""),
	}}
}

// trustPolicy lets machines, and nobody else, take on a role.
func trustPolicy(p place) string {
	service := "ec2.amazonaws.com"
	if p.partition == "aws-cn" {
		service += ".cn"
	}
	b, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": []any{map[string]any{
		"Effect": "Allow", "Principal": map[string]any{"Service": service}, "Action": "sts:AssumeRole"}}})
	if err != nil {
		panic(err)
	}
	return string(b)
}
