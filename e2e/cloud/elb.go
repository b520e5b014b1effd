package cloud

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// elbActions are what network load balancers need. Those of other types are refused.
func elbActions() map[string]func(*call) doc {
	all := map[string]func(*call) doc{
		"CreateLoadBalancer": createLB, "DescribeLoadBalancers": describeLBs, "DeleteLoadBalancer": deleteLB, "SetSecurityGroups": setSecurityGroups, "SetSubnets": setSubnets,
		"CreateListener": createListener, "DescribeListeners": describeListeners, "ModifyListener": modifyListener, "DeleteListener": deleteListener,
		"AddTags": addTags, "RemoveTags": removeTags, "DescribeTags": describeELBTags,
	}
	maps.Copy(all, targetActions)
	for action, kind := range map[string]string{"LoadBalancer": "load-balancer", "TargetGroup": "target-group"} {
		id := action + "Arn"
		all["Describe"+action+"Attributes"] = func(q *call) doc { return doc{"Attributes": q.get(kind, q.str(id)).attributes()} }
		all["Modify"+action+"Attributes"] = func(q *call) doc {
			r := q.get(kind, q.str(id))
			for _, a := range q.each("Attributes") {
				if _, ok := r.attrs[a.str("Key")]; !ok {
					fail("ValidationError", "%s attribute key '%s' is not recognized", action, a.str("Key"))
				}
			}
			for _, a := range q.each("Attributes") {
				r.attrs[a.str("Key")] = a.str("Value")
			}
			return doc{"Attributes": r.attributes()}
		}
	}
	return all
}

func (r *resource) attributes() []doc {
	all := []doc{}
	for _, k := range slices.Sorted(maps.Keys(r.attrs)) {
		all = append(all, doc{"Key": k, "Value": r.attrs[k]})
	}
	return all
}

var elbName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]{0,30}[a-zA-Z0-9])?$`)

// same returns what is there under that name if it was made of the same parameters, as the real one does; of others it
// is a duplicate.
func (q *call) same(kindName, element, code string) *resource {
	name := q.str("Name")
	if !elbName.MatchString(name) || strings.HasPrefix(name, "internal-") {
		fail("ValidationError", "The name '%s' is invalid: up to 32 letters, digits and dashes, not beginning with internal-", name)
	}
	for _, r := range q.with(kindName, element, name) {
		if r.config.canonical() != q.canonical() {
			fail(code, "A %s with the same name '%s' exists, but with different settings", kindName, name)
		}
		q.params = params{} // all of it is so
		return r
	}
	return nil
}

func createLB(q *call) doc {
	if lb := q.same("load-balancer", "LoadBalancerName", "DuplicateLoadBalancerName"); lb != nil {
		return doc{"LoadBalancers": []*resource{lb}}
	}
	q.limit("load-balancer", 50, len(slices.Collect(q.of("load-balancer"))), "TooManyLoadBalancers")
	if q.str("Type") != "network" {
		fail("ValidationError", "the stand-in has load balancers of type network only, not '%s'", q.or("Type", "application"))
	}
	name, hash := q.str("Name"), newID("", 8)
	subnets := q.lbSubnets()
	for _, s := range subnets {
		if n, err := strconv.Atoi(values(s, "availableIpAddressCount")[0]); err == nil && n < 8 {
			fail("InvalidSubnet", "Not enough IP space available in %s. ELB requires at least 8 free IP addresses in each subnet.", s.id)
		}
	}
	vpc, scheme := subnets[0].str("vpcId"), q.or("Scheme", "internet-facing")
	if scheme == "internet-facing" && len(q.with("internet-gateway", "attachmentSet.vpcId", vpc)) == 0 {
		fail("InvalidSubnet", "VPC %s has no internet gateway", vpc)
	}
	groups := q.lbGroups(vpc)
	lb := q.put(kindOf("load-balancer"), q.arn("elasticloadbalancing", "loadbalancer/net/"+name+"/"+hash), doc{"LoadBalancerName": name, "Type": "network", "Scheme": scheme,
		"DNSName": name + "-" + hash + ".elb." + q.Region + ".amazonaws.com", "VpcId": vpc, "vpcId": vpc, "IpAddressType": q.or("IpAddressType", "ipv4"),
		"CanonicalHostedZoneId": "Z2IFOLAFXWLO4F", "CreatedTime": now(), "State": doc{"Code": "provisioning"}, "SecurityGroups": groups})
	lb.config = q.params
	lb.setTags(q.each("Tags"))
	lb.attrs = map[string]string{"deletion_protection.enabled": "false", "load_balancing.cross_zone.enabled": "false", "access_logs.s3.enabled": "false",
		"access_logs.s3.bucket": "", "access_logs.s3.prefix": "", "ipv6.deny_all_igw_traffic": "false", "dns_record.client_routing_policy": "any_availability_zone",
		"zonal_shift.config.enabled": "false"}
	q.lbInterfaces(lb, subnets)
	q.later("load-balancer", func() { lb.doc["State"] = doc{"Code": "active"} })
	return doc{"LoadBalancers": []*resource{lb}}
}

func (q *call) lbSubnets() (subnets []*resource) {
	ids := q.strs("Subnets")
	for _, m := range q.each("SubnetMappings") {
		ids = append(ids, m.str("SubnetId"))
	}
	zones := map[string]bool{}
	for _, id := range ids {
		s := q.find("subnet", id)
		if s == nil || !s.seen() {
			fail("SubnetNotFound", "The subnet ID '%s' does not exist", id)
		}
		if zones[s.str("availabilityZone")] {
			fail("InvalidConfigurationRequest", "A load balancer cannot be attached to multiple subnets in the same Availability Zone")
		}
		zones[s.str("availabilityZone")] = true
		if slices.Contains(constrained, s.str("availabilityZoneId")) {
			fail("ValidationError", "Load balancers with type 'network' are not supported in %s", s.str("availabilityZone"))
		}
		subnets = append(subnets, s)
	}
	if len(subnets) == 0 {
		fail("ValidationError", "At least one subnet must be specified")
	}
	return subnets
}

func (q *call) lbGroups(vpc string) []string {
	groups := q.strs("SecurityGroups")
	for _, id := range groups {
		if g := q.find("security-group", id); g == nil || !g.seen() || !g.is("vpcId", vpc) {
			fail("InvalidSecurityGroup", "One or more security groups are invalid: %s", id)
		}
	}
	return groups
}

// lbInterfaces gives a load balancer an interface in each subnet. They are not its owner's to delete.
func (q *call) lbInterfaces(lb *resource, subnets []*resource) {
	zones := []doc{}
	_, short, _ := strings.Cut(lb.id, ":loadbalancer/")
	bare := &call{Call: q.Call, c: q.c, params: params{}}
	for _, s := range subnets {
		eni := bare.addInterface(s, "ELB "+short, nil, doc{"requesterManaged": true, "requesterId": "amazon-elb", "status": "in-use", "interfaceType": "network_load_balancer",
			"groupSet": bare.groupSet(lb.doc["SecurityGroups"].([]string), s.str("vpcId"))})
		if lb.is("Scheme", "internet-facing") {
			eni.doc["association"] = doc{"publicIp": eni.str("privateIpAddress"), "ipOwnerId": "amazon"}
		}
		eni.own, eni.attrs["lb"] = true, lb.id
		zones = append(zones, doc{"ZoneName": s.str("availabilityZone"), "SubnetId": s.id, "LoadBalancerAddresses": []doc{}})
	}
	lb.doc["AvailabilityZones"] = zones
}

func (q *call) interfacesOf(lb *resource) (all []*resource) {
	for e := range q.of("network-interface") {
		if e.attrs["lb"] == lb.id {
			all = append(all, e)
		}
	}
	return all
}

// deleteLB is done when there is none, too. Its interfaces take their time, and keep subnets and groups until then.
func deleteLB(q *call) doc {
	lb := q.find("load-balancer", q.str("LoadBalancerArn"))
	if lb == nil {
		return doc{}
	}
	if lb.attrs["deletion_protection.enabled"] == "true" {
		fail("OperationNotPermitted", "Load balancer '%s' cannot be deleted because deletion protection is enabled", lb.id)
	}
	q.c.remove(append(q.with("listener", "LoadBalancerArn", lb.id), lb)...)
	q.later("network-interface", func() { q.c.remove(q.interfacesOf(lb)...) })
	return doc{}
}

func setSecurityGroups(q *call) doc {
	lb := q.get("load-balancer", q.str("LoadBalancerArn"))
	if len(lb.doc["SecurityGroups"].([]string)) == 0 {
		fail("InvalidConfigurationRequest", "Security groups cannot be set on the load balancer '%s': it was created without", lb.id)
	}
	groups := q.lbGroups(lb.str("VpcId"))
	lb.doc["SecurityGroups"] = groups
	for _, e := range q.interfacesOf(lb) {
		e.doc["groupSet"] = q.groupSet(groups, lb.str("VpcId"))
	}
	return doc{"SecurityGroupIds": groups}
}

func setSubnets(q *call) doc {
	lb := q.get("load-balancer", q.str("LoadBalancerArn"))
	subnets := q.lbSubnets()
	for _, id := range values(lb.doc, "AvailabilityZones.SubnetId") { // one of this type must keep what it has
		if !slices.ContainsFunc(subnets, func(s *resource) bool { return s.id == id }) {
			fail("InvalidConfigurationRequest", "Subnets of a network load balancer cannot be removed: specify %s, too", id)
		}
	}
	q.c.remove(q.interfacesOf(lb)...)
	q.lbInterfaces(lb, subnets)
	q.rebalance(q.with("listener", "LoadBalancerArn", lb.id)...)
	return doc{"AvailabilityZones": lb.doc["AvailabilityZones"]}
}

// named are the resources of a Describe by ARNs or names; none of either: all.
func (q *call) named(kindName, arns, names, element string) (found []*resource) {
	for _, id := range q.strs(arns) {
		found = append(found, q.get(kindName, id))
	}
	for _, name := range q.strs(names) {
		i := slices.IndexFunc(q.with(kindName, element, name), (*resource).seen)
		if i < 0 {
			fail(kindOf(kindName).missing, "One or more %ss not found: %s", kindName, name)
		}
		found = append(found, q.with(kindName, element, name)[i])
	}
	if !q.has(arns) && !q.has(names) {
		for r := range q.of(kindName) {
			if r.seen() {
				found = append(found, r)
			}
		}
	}
	return found
}

// marked is a page as all services but EC2 have them.
func (q *call) marked(set string, found []*resource) doc {
	q.params = maps.Clone(q.params)
	q.params["NextToken"] = q.params["Marker"]
	size := q.or("PageSize", q.or("MaxItems", "400"))
	q.params["MaxResults"] = []string{size}
	answer := q.page(set, found, false)
	next, more := answer["nextToken"]
	if delete(answer, "nextToken"); more && q.Service == "iam" {
		answer["Marker"] = next
	} else if more {
		answer["NextMarker"] = next
	}
	if q.Service == "iam" {
		answer["IsTruncated"] = more
	}
	return answer
}

func describeLBs(q *call) doc {
	return q.marked("LoadBalancers", q.named("load-balancer", "LoadBalancerArns", "Names", "LoadBalancerName"))
}
