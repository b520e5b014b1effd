package cloud

import (
	"net/netip"
	"slices"
	"time"
)

var vpcActions = map[string]func(*call) doc{
	"CreateVpc": createVPC, "DeleteVpc": deleteVPC, "ModifyVpcAttribute": modifyVPC, "DescribeVpcAttribute": describeVPCAttribute,
	"CreateSubnet": createSubnet, "DeleteSubnet": deleteSubnet, "ModifySubnetAttribute": modifySubnet,
	"CreateTags": createTags, "DeleteTags": deleteTags, "DescribeTags": describeTags,
}

func (q *call) cidr(name, code string, longest int) netip.Prefix {
	p, err := netip.ParsePrefix(q.str(name))
	if err != nil || !p.Addr().Is4() {
		fail("InvalidParameterValue", "Value (%s) for parameter cidrBlock is invalid. This is not a valid CIDR block.", q.str(name))
	}
	if p = p.Masked(); p.Bits() < 16 || p.Bits() > longest {
		fail(code, "The CIDR '%s' is invalid: from /16 to /%d", p, longest)
	}
	return p
}

// createVPC makes a VPC, and what comes with it: the main route table, the default security group, the default ACL.
func createVPC(q *call) doc {
	cidr := q.cidr("CidrBlock", "InvalidVpc.Range", 28)
	q.limit("vpc", 5, len(slices.Collect(q.of("vpc"))), "VpcLimitExceeded")
	vpc := q.add("vpc", doc{"state": "pending", "cidrBlock": cidr, "ownerId": q.Account, "isDefault": false, "instanceTenancy": q.or("InstanceTenancy", "default"),
		"dhcpOptionsId":           "dopt-0a1b2c3d4e5f60718",
		"cidrBlockAssociationSet": []doc{{"associationId": newID("vpc-cidr-assoc-", 9)[:33], "cidrBlock": cidr, "cidrBlockState": doc{"state": "associated"}}}})
	vpc.attrs["enableDnsSupport"], vpc.attrs["enableDnsHostnames"] = "true", "false"
	q.later("vpc", func() { vpc.doc["state"] = "available" })
	bare := &call{Call: q.Call, c: q.c, params: params{}} // tags are the VPC's alone
	table := bare.addRouteTable(vpc)
	table.doc["associationSet"] = []doc{{"main": true, "routeTableId": table.id, "routeTableAssociationId": newID("rtbassoc-", 9)[:26], "associationState": doc{"state": "associated"}}}
	acl := bare.add("network-acl", doc{"vpcId": vpc.id, "ownerId": q.Account, "default": true})
	group := bare.addGroup(vpc.id, "default", "default VPC security group")
	for _, r := range []*resource{table, acl, group} {
		r.own, r.lag = true, 0
	}
	bare.addRule(group, false, rule{Protocol: "-1", From: -1, To: -1, Group: group.id})
	return doc{"vpc": vpc}
}

func deleteVPC(q *call) doc {
	vpc := q.get("vpc", q.str("VpcId"))
	var gone []*resource
	for _, r := range q.c.all {
		if !r.is("vpcId", vpc.id) && !r.is("attachmentSet.vpcId", vpc.id) || r == vpc || r.ended() {
			continue
		}
		if !r.own && (r.describe != "" || r.name == "load-balancer") {
			fail("DependencyViolation", "The vpc '%s' has dependencies and cannot be deleted.", vpc.id)
		}
		if r.own {
			gone = append(gone, r)
		}
	}
	for _, g := range slices.Clone(gone) {
		gone = append(gone, q.with("security-group-rule", "groupId", g.id)...)
	}
	q.c.remove(append(gone, vpc)...)
	return doc{"return": true}
}

func modifyVPC(q *call) doc {
	vpc := q.get("vpc", q.str("VpcId"))
	n := 0
	for param, attr := range map[string]string{"EnableDnsSupport.Value": "enableDnsSupport", "EnableDnsHostnames.Value": "enableDnsHostnames"} {
		if v := q.str(param); v != "" {
			vpc.attrs[attr] = v
			n++
		}
	}
	if n != 1 {
		fail("InvalidParameterCombination", "Only one attribute may be modified at a time, and one must be")
	}
	return doc{"return": true}
}

func describeVPCAttribute(q *call) doc {
	vpc := q.get("vpc", q.str("VpcId"))
	name := q.str("Attribute")
	if vpc.attrs[name] == "" {
		fail("InvalidParameterValue", "Value (%s) for parameter attribute is invalid", name)
	}
	return doc{"vpcId": vpc.id, name: doc{"value": vpc.attrs[name]}}
}

func createSubnet(q *call) doc {
	vpc := q.get("vpc", q.str("VpcId"))
	cidr := q.cidr("CidrBlock", "InvalidSubnet.Range", 28)
	whole := netip.MustParsePrefix(vpc.str("cidrBlock"))
	if !whole.Contains(cidr.Addr()) || cidr.Bits() < whole.Bits() {
		fail("InvalidSubnet.Range", "The CIDR '%s' is invalid.", cidr)
	}
	for _, s := range q.with("subnet", "vpcId", vpc.id) {
		if netip.MustParsePrefix(s.str("cidrBlock")).Overlaps(cidr) {
			fail("InvalidSubnet.Conflict", "The CIDR '%s' conflicts with another subnet", cidr)
		}
	}
	zone := q.zone(q.str("AvailabilityZone"))
	subnet := q.add("subnet", doc{"vpcId": vpc.id, "cidrBlock": cidr, "availabilityZone": zone, "availabilityZoneId": zoneID(zone), "state": "pending",
		"ownerId": q.Account, "mapPublicIpOnLaunch": false, "defaultForAz": false, "assignIpv6AddressOnCreation": false})
	subnet.doc["subnetArn"] = q.arn("ec2", "subnet/"+subnet.id)
	subnet.show = func() doc {
		used := len(q.with("network-interface", "subnetId", subnet.id))
		return doc{"availableIpAddressCount": 1<<(32-cidr.Bits()) - 5 - used}
	}
	q.later("subnet", func() { subnet.doc["state"] = "available" })
	return doc{"subnet": subnet}
}

func (q *call) arn(service, what string) string {
	return "arn:" + q.Partition + ":" + service + ":" + q.Region + ":" + q.Account + ":" + what
}

func deleteSubnet(q *call) doc {
	subnet := q.get("subnet", q.str("SubnetId"))
	if len(q.with("network-interface", "subnetId", subnet.id)) > 0 {
		fail("DependencyViolation", "The subnet '%s' has dependencies and cannot be deleted.", subnet.id)
	}
	for t := range q.of("route-table") {
		t.doc["associationSet"] = slices.DeleteFunc(t.doc["associationSet"].([]doc), func(a doc) bool { return a["subnetId"] == subnet.id })
	}
	q.c.remove(subnet)
	return doc{"return": true}
}

func modifySubnet(q *call) doc {
	subnet := q.get("subnet", q.str("SubnetId"))
	for param, element := range map[string]string{"MapPublicIpOnLaunch.Value": "mapPublicIpOnLaunch", "AssignIpv6AddressOnCreation.Value": "assignIpv6AddressOnCreation"} {
		if q.has(param) {
			subnet.doc[element] = q.yes(param)
		}
	}
	return doc{"return": true}
}

// free is the first address of a subnet that nobody has. AWS keeps the first four and the last.
func (q *call) free(subnet *resource) netip.Addr {
	p := netip.MustParsePrefix(subnet.str("cidrBlock"))
	taken := map[string]bool{}
	for r := range q.of("network-interface") {
		taken[r.str("privateIpAddress")] = true
	}
	a := p.Addr()
	for range 4 {
		a = a.Next()
	}
	for ; p.Contains(a.Next()); a = a.Next() {
		if !taken[a.String()] {
			return a
		}
	}
	fail("InsufficientFreeAddressesInSubnet", "There are not enough free addresses in subnet '%s' to satisfy the requested number of instances.", subnet.id)
	return a
}

// addInterface makes a network interface in a subnet.
func (q *call) addInterface(subnet *resource, description string, groups []string, more doc) *resource {
	if len(groups) == 0 {
		for _, g := range q.with("security-group", "vpcId", subnet.str("vpcId")) {
			if g.own {
				groups = []string{g.id}
			}
		}
	}
	ip := q.free(subnet)
	eni := (&call{Call: q.Call, c: q.c, params: q.params}).add("network-interface", doc{"subnetId": subnet.id, "vpcId": subnet.str("vpcId"),
		"availabilityZone": subnet.str("availabilityZone"), "description": description, "ownerId": q.Account, "requesterManaged": false, "status": "available",
		"macAddress": macOf(ip), "privateIpAddress": ip.String(), "privateDnsName": q.privateName(ip), "sourceDestCheck": true, "interfaceType": "interface",
		"groupSet": q.groupSet(groups, subnet.str("vpcId")), "privateIpAddressesSet": []doc{{"primary": true, "privateIpAddress": ip.String(), "privateDnsName": q.privateName(ip)}}})
	for k, v := range more {
		eni.doc[k] = v
	}
	return eni
}

func now() time.Time { return time.Now().UTC().Truncate(time.Second) }
