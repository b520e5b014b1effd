package cloud

import (
	"net/netip"
	"slices"
	"strings"
)

var groupActions = map[string]func(*call) doc{
	"CreateSecurityGroup": createGroup, "DeleteSecurityGroup": deleteGroup,
	"AuthorizeSecurityGroupIngress": func(q *call) doc { return q.authorize(false) }, "AuthorizeSecurityGroupEgress": func(q *call) doc { return q.authorize(true) },
	"RevokeSecurityGroupIngress": func(q *call) doc { return q.revoke(false) }, "RevokeSecurityGroupEgress": func(q *call) doc { return q.revoke(true) },
	"CreateNetworkInterface": createInterface, "DeleteNetworkInterface": deleteInterface, "ModifyNetworkInterfaceAttribute": modifyInterface,
}

// rule is one of a security group: who may send to whom on which ports. One of CIDR, CIDR6 and Group is set.
type rule struct {
	Protocol           string
	From, To           int
	CIDR, CIDR6, Group string
}

func createGroup(q *call) doc {
	vpc := q.get("vpc", q.str("VpcId"))
	name, description := q.str("GroupName"), q.str("GroupDescription")
	switch {
	case description == "":
		fail("MissingParameter", "The request must contain the parameter GroupDescription")
	case name == "" || strings.HasPrefix(name, "sg-") || len(name) > 255:
		fail("InvalidParameterValue", "Value (%s) for parameter GroupName is invalid. Group names have up to 255 characters, and do not begin with sg-.", name)
	}
	for _, g := range q.with("security-group", "vpcId", vpc.id) {
		if g.is("groupName", name) {
			fail("InvalidGroup.Duplicate", "The security group '%s' already exists for VPC '%s'", name, vpc.id)
		}
	}
	q.limit("security-group", 2500, len(slices.Collect(q.of("security-group"))), "SecurityGroupLimitExceeded")
	g := q.addGroup(vpc.id, name, description)
	return doc{"groupId": g.id, "securityGroupArn": q.arn("ec2", "security-group/"+g.id), "tagSet": g.tagList(), "return": true}
}

// addGroup makes a group that lets everything out.
func (q *call) addGroup(vpc, name, description string) *resource {
	g := q.add("security-group", doc{"vpcId": vpc, "groupName": name, "groupDescription": description, "ownerId": q.Account})
	g.show = func() doc {
		return doc{"ipPermissions": q.permissions(g.id, false), "ipPermissionsEgress": q.permissions(g.id, true)}
	}
	(&call{Call: q.Call, c: q.c, params: params{}}).addRule(g, true, rule{Protocol: "-1", From: -1, To: -1, CIDR: "0.0.0.0/0"}).lag = 0
	return g
}

func (q *call) addRule(g *resource, egress bool, r rule) *resource {
	d := doc{"groupId": g.id, "groupOwnerId": q.Account, "isEgress": egress, "ipProtocol": r.Protocol, "fromPort": r.From, "toPort": r.To}
	switch {
	case r.Group != "":
		d["referencedGroupInfo"] = doc{"groupId": r.Group, "userId": q.Account}
	case r.CIDR6 != "":
		d["cidrIpv6"] = r.CIDR6
	default:
		d["cidrIpv4"] = r.CIDR
	}
	made := q.add("security-group-rule", d)
	made.own, made.lag = true, 0
	return made
}

func ruleOf(r *resource) rule {
	return rule{r.str("ipProtocol"), r.doc["fromPort"].(int), r.doc["toPort"].(int), r.str("cidrIpv4"), r.str("cidrIpv6"), r.str("referencedGroupInfo.groupId")}
}

// permissions are the rules of a group as the older form has them: by protocol and ports.
func (q *call) permissions(group string, egress bool) []doc {
	all := []doc{}
	for _, r := range q.with("security-group-rule", "groupId", group) {
		if r.doc["isEgress"] != egress {
			continue
		}
		rl := ruleOf(r)
		i := slices.IndexFunc(all, func(d doc) bool {
			return d["ipProtocol"] == rl.Protocol && (d["fromPort"] == rl.From && d["toPort"] == rl.To || d["fromPort"] == nil)
		})
		if i < 0 {
			d := doc{"ipProtocol": rl.Protocol, "groups": []doc{}, "ipRanges": []doc{}, "ipv6Ranges": []doc{}, "prefixListIds": []doc{}}
			if ported(rl.Protocol) {
				d["fromPort"], d["toPort"] = rl.From, rl.To
			}
			all, i = append(all, d), len(all)
		}
		put := func(list string, d doc) {
			if text := r.str("description"); text != "" {
				d["description"] = text
			}
			all[i][list] = append(all[i][list].([]doc), d)
		}
		switch {
		case rl.Group != "":
			put("groups", doc{"groupId": rl.Group, "userId": q.Account})
		case rl.CIDR6 != "":
			put("ipv6Ranges", doc{"cidrIpv6": rl.CIDR6})
		default:
			put("ipRanges", doc{"cidrIp": rl.CIDR})
		}
	}
	return all
}

// ported says whether a protocol has ports, or ICMP's types.
func ported(protocol string) bool {
	return slices.Contains([]string{"tcp", "udp", "icmp", "icmpv6"}, protocol)
}

// rules are those of a request, with their descriptions.
func (q *call) rules() (all []rule, descriptions []string) {
	permissions := q.each("IpPermissions")
	if q.str("IpProtocol") != "" {
		permissions = append(permissions, params{"IpProtocol": q.params["IpProtocol"], "FromPort": q.params["FromPort"], "ToPort": q.params["ToPort"], "IpRanges.1.CidrIp": q.params["CidrIp"]})
	}
	for _, p := range permissions {
		base := rule{Protocol: strings.ToLower(p.str("IpProtocol")), From: p.num("FromPort", -1), To: p.num("ToPort", -1)}
		if name := map[string]string{"6": "tcp", "17": "udp", "1": "icmp", "58": "icmpv6"}[base.Protocol]; name != "" {
			base.Protocol = name
		}
		if !ported(base.Protocol) {
			base.From, base.To = -1, -1
		} else if base.Protocol == "tcp" || base.Protocol == "udp" {
			if base.From < 0 || base.To < base.From || base.To > 65535 {
				fail("InvalidParameterValue", "Invalid TCP/UDP port range (%d:%d)", base.From, base.To)
			}
		}
		add := func(list, field string, set func(*rule, string)) {
			for _, x := range p.each(list) {
				r := base
				set(&r, x.str(field))
				all, descriptions = append(all, r), append(descriptions, x.str("Description"))
			}
		}
		add("IpRanges", "CidrIp", func(r *rule, v string) { r.CIDR = masked(v) })
		add("Ipv6Ranges", "CidrIpv6", func(r *rule, v string) { r.CIDR6 = masked(v) })
		add("Groups", "GroupId", func(r *rule, v string) { r.Group = q.get("security-group", v).id })
	}
	return all, descriptions
}

func masked(cidr string) string {
	p, err := netip.ParsePrefix(cidr)
	if err != nil {
		fail("InvalidParameterValue", "CIDR block %s is malformed", cidr)
	}
	return p.Masked().String()
}

func (q *call) authorize(egress bool) doc {
	g := q.get("security-group", q.str("GroupId"))
	rules, descriptions := q.rules()
	if len(rules) == 0 {
		fail("MissingParameter", "The request must contain the parameter ipPermissions")
	}
	have := q.rulesOf(g, egress)
	for _, r := range rules {
		if slices.ContainsFunc(have, func(h *resource) bool { return ruleOf(h) == r }) {
			fail("InvalidPermission.Duplicate", "the specified rule \"peer: %s%s%s, %s, from port: %d, to port: %d, ALLOW\" already exists", r.CIDR, r.CIDR6, r.Group, r.Protocol, r.From, r.To)
		}
	}
	q.limit("rules", 60, len(have)+len(rules)-1, "RulesPerSecurityGroupLimitExceeded")
	made := []*resource{}
	for i, r := range rules {
		x := q.addRule(g, egress, r)
		if descriptions[i] != "" {
			x.doc["description"] = descriptions[i]
		}
		made = append(made, x)
	}
	return doc{"return": true, "securityGroupRuleSet": made}
}

func (q *call) rulesOf(g *resource, egress bool) (all []*resource) {
	for _, r := range q.with("security-group-rule", "groupId", g.id) {
		if r.doc["isEgress"] == egress {
			all = append(all, r)
		}
	}
	return all
}

func (q *call) revoke(egress bool) doc {
	g := q.get("security-group", q.str("GroupId"))
	have := q.rulesOf(g, egress)
	var gone []*resource
	for _, id := range q.strs("SecurityGroupRuleId") {
		i := slices.IndexFunc(have, func(r *resource) bool { return r.id == id })
		if i < 0 {
			fail("InvalidSecurityGroupRuleId.NotFound", "The security group rule ID '%s' does not exist", id)
		}
		gone = append(gone, have[i])
	}
	rules, _ := q.rules()
	for _, rl := range rules {
		i := slices.IndexFunc(have, func(r *resource) bool { return ruleOf(r) == rl })
		if i < 0 {
			fail("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
		}
		gone = append(gone, have[i])
	}
	q.c.remove(gone...)
	return doc{"return": true}
}

// deleteGroup refuses while an interface has the group, or a rule of another one names it.
func deleteGroup(q *call) doc {
	g := q.get("security-group", q.str("GroupId"))
	if g.own {
		fail("CannotDelete", "the specified group: \"%s\" name: \"default\" cannot be deleted by a user", g.id)
	}
	if len(q.with("network-interface", "groupSet.groupId", g.id)) > 0 {
		fail("DependencyViolation", "resource %s has a dependent object", g.id)
	}
	for _, r := range q.with("security-group-rule", "referencedGroupInfo.groupId", g.id) {
		if !r.is("groupId", g.id) {
			fail("DependencyViolation", "resource %s has a dependent object", g.id)
		}
	}
	q.c.remove(append(q.with("security-group-rule", "groupId", g.id), g)...)
	return doc{"return": true, "groupId": g.id}
}

// groupSet is how interfaces and instances show their groups, which must be of the VPC.
func (q *call) groupSet(ids []string, vpc string) []doc {
	all := []doc{}
	for _, id := range ids {
		g := q.get("security-group", id)
		if !g.is("vpcId", vpc) {
			fail("InvalidParameter", "Security group %s and subnet belong to different networks.", id)
		}
		all = append(all, doc{"groupId": g.id, "groupName": g.str("groupName")})
	}
	if len(all) > 5 {
		fail("SecurityGroupsPerInterfaceLimitExceeded", "The maximum number of security groups per interface has been reached: 5")
	}
	return all
}

func createInterface(q *call) doc {
	return doc{"networkInterface": q.addInterface(q.get("subnet", q.str("SubnetId")), q.str("Description"), q.strs("SecurityGroupId"), nil)}
}

func deleteInterface(q *call) doc {
	eni := q.get("network-interface", q.str("NetworkInterfaceId"))
	switch {
	case eni.doc["requesterManaged"] == true:
		fail("AuthFailure", "You do not have permission to access the specified resource.")
	case eni.is("status", "in-use"):
		fail("InvalidParameterValue", "Network interface '%s' is currently in use.", eni.id)
	}
	q.c.remove(eni)
	return doc{"return": true}
}

func modifyInterface(q *call) doc {
	eni := q.get("network-interface", q.str("NetworkInterfaceId"))
	if ids := q.strs("SecurityGroupId"); len(ids) > 0 {
		eni.doc["groupSet"] = q.groupSet(ids, eni.str("vpcId"))
	}
	if q.has("SourceDestCheck.Value") {
		eni.doc["sourceDestCheck"] = q.yes("SourceDestCheck.Value")
	}
	return doc{"return": true}
}
