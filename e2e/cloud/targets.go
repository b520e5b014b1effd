package cloud

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

var targetActions = map[string]func(*call) doc{
	"CreateTargetGroup": createTargetGroup, "DescribeTargetGroups": describeTargetGroups, "ModifyTargetGroup": modifyTargetGroup, "DeleteTargetGroup": deleteTargetGroup,
	"RegisterTargets": registerTargets, "DeregisterTargets": deregisterTargets, "DescribeTargetHealth": describeTargetHealth,
}

// target is one of a target group.
type target struct {
	id    string // of an instance, or an address
	port  int
	state string // initial, healthy, unhealthy, draining

	ended context.Context // when it is no longer registered
	end   context.CancelFunc
	// serving is what its connections live in: until it ends, or is found unhealthy.
	serving context.Context
	cut     context.CancelFunc
}

// serve begins anew with connections.
func (x *target) serve() {
	if x.cut != nil {
		x.cut()
	}
	x.serving, x.cut = context.WithCancel(x.ended)
}

// check is how a target group finds out who is healthy: elements, and what is so by default.
var check = map[string]string{"HealthCheckProtocol": "TCP", "HealthCheckPort": "traffic-port", "HealthCheckPath": "", "HealthCheckIntervalSeconds": "30",
	"HealthCheckTimeoutSeconds": "10", "HealthyThresholdCount": "5", "UnhealthyThresholdCount": "2", "Matcher.HttpCode": ""}

func (q *call) setCheck(d doc, defaults map[string]string) {
	for name, otherwise := range defaults {
		v := q.or(name, otherwise)
		if name == "Matcher.HttpCode" && v != "" {
			d["Matcher"] = doc{"HttpCode": v}
		} else if v != "" {
			d[name] = v
		}
	}
	if p := fmt.Sprint(d["HealthCheckProtocol"]); strings.HasPrefix(p, "HTTP") {
		d["HealthCheckPath"] = cmp.Or(strings.Join(values(d, "HealthCheckPath"), ""), "/")
		if d["Matcher"] == nil {
			d["Matcher"] = doc{"HttpCode": "200-399"}
		}
	}
	for name, limits := range map[string][2]int{"HealthCheckIntervalSeconds": {5, 300}, "HealthCheckTimeoutSeconds": {2, 120}, "HealthyThresholdCount": {2, 10}, "UnhealthyThresholdCount": {2, 10}} {
		if n := (params{name: {fmt.Sprint(d[name])}}).num(name, 0); n < limits[0] || n > limits[1] {
			fail("ValidationError", "%s %d is invalid: from %d to %d", name, n, limits[0], limits[1])
		}
	}
}

func createTargetGroup(q *call) doc {
	if tg := q.same("target-group", "TargetGroupName", "DuplicateTargetGroupName"); tg != nil {
		return doc{"TargetGroups": []*resource{tg}}
	}
	vpc := q.find("vpc", q.str("VpcId"))
	if vpc == nil || !vpc.seen() {
		fail("ValidationError", "The VPC ID '%s' is not found", q.str("VpcId"))
	}
	kind := q.or("TargetType", "instance")
	d := doc{"TargetGroupName": q.str("Name"), "Port": q.num("Port", 0), "Protocol": q.str("Protocol"), "VpcId": vpc.id, "vpcId": vpc.id, "TargetType": kind,
		"HealthCheckEnabled": true, "IpAddressType": q.or("IpAddressType", "ipv4")}
	if !slices.Contains([]string{"TCP", "UDP", "TCP_UDP", "TLS"}, q.str("Protocol")) {
		fail("ValidationError", "the stand-in has target groups of network load balancers only, not of protocol '%s'", q.str("Protocol"))
	}
	q.setCheck(d, check)
	tg := q.put(kindOf("target-group"), q.arn("elasticloadbalancing", "targetgroup/"+q.str("Name")+"/"+newID("", 8)), d)
	tg.show = func() doc {
		lbs := []string{}
		for _, l := range q.with("listener", "DefaultActions.TargetGroupArn", tg.id) {
			lbs = append(lbs, l.str("LoadBalancerArn"))
		}
		return doc{"LoadBalancerArns": slices.Compact(lbs)}
	}
	tg.config = q.params
	tg.setTags(q.each("Tags"))
	tg.attrs = map[string]string{"deregistration_delay.timeout_seconds": "300", "deregistration_delay.connection_termination.enabled": "false", "proxy_protocol_v2.enabled": "false",
		"preserve_client_ip.enabled": fmt.Sprint(kind == "instance" || q.str("Protocol") == "UDP"), "stickiness.enabled": "false", "stickiness.type": "source_ip",
		"load_balancing.cross_zone.enabled": "use_load_balancer_configuration", "target_health_state.unhealthy.connection_termination.enabled": "true",
		"target_health_state.unhealthy.draining_interval_seconds": "0", "target_group_health.dns_failover.minimum_healthy_targets.count": "1",
		"target_group_health.dns_failover.minimum_healthy_targets.percentage": "off", "target_group_health.unhealthy_state_routing.minimum_healthy_targets.count": "1",
		"target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage": "off"}
	return doc{"TargetGroups": []*resource{tg}}
}

func describeTargetGroups(q *call) doc {
	found := q.named("target-group", "TargetGroupArns", "Names", "TargetGroupName")
	if arn := q.str("LoadBalancerArn"); arn != "" {
		lb := q.get("load-balancer", arn)
		found = slices.DeleteFunc(found, func(r *resource) bool { return !slices.Contains(values(r, "LoadBalancerArns"), lb.id) })
	}
	return q.marked("TargetGroups", found)
}

func modifyTargetGroup(q *call) doc {
	tg := q.get("target-group", q.str("TargetGroupArn"))
	now := map[string]string{}
	for name := range check {
		now[name] = strings.Join(values(tg.doc, name), "")
	}
	q.setCheck(tg.doc, now)
	return doc{"TargetGroups": []*resource{tg}}
}

func deleteTargetGroup(q *call) doc {
	tg := q.find("target-group", q.str("TargetGroupArn"))
	if tg == nil {
		return doc{}
	}
	if len(q.with("listener", "DefaultActions.TargetGroupArn", tg.id)) > 0 {
		fail("ResourceInUse", "Target group '%s' is currently in use by a listener or a rule", tg.id)
	}
	q.c.remove(tg)
	for _, x := range q.c.targets[tg.id] {
		x.end()
	}
	delete(q.c.targets, tg.id)
	return doc{}
}

func registerTargets(q *call) doc {
	tg := q.get("target-group", q.str("TargetGroupArn"))
	for _, t := range q.each("Targets") {
		if tg.is("TargetType", "ip") {
			if _, err := netip.ParseAddr(t.str("Id")); err != nil {
				fail("ValidationError", "'%s' is not a valid IP address", t.str("Id"))
			}
			continue
		}
		i := q.find("instance", t.str("Id"))
		if i == nil || !i.seen() {
			fail("InvalidTarget", "The following targets are not valid instances: '%s'", t.str("Id"))
		} else if !i.is("instanceState.name", "running") {
			fail("InvalidTarget", "The following targets are not in a running state and cannot be registered: '%s'", i.id)
		} else if !i.is("vpcId", tg.str("VpcId")) {
			fail("InvalidTarget", "The following targets are not in the target group VPC '%s': '%s'", tg.str("VpcId"), i.id)
		}
	}
	for _, t := range q.each("Targets") {
		id, port := t.str("Id"), t.num("Port", tg.doc["Port"].(int))
		known := slices.IndexFunc(q.c.targets[tg.id], func(x *target) bool { return x.id == id && x.port == port })
		if known >= 0 && q.c.targets[tg.id][known].state != "draining" {
			continue
		} else if known >= 0 {
			q.c.targets[tg.id][known].state = "initial"
			continue
		}
		x := &target{id: id, port: port, state: "initial"}
		x.ended, x.end = context.WithCancel(q.c.ctx)
		x.serve()
		q.c.targets[tg.id] = append(q.c.targets[tg.id], x)
		q.watch(tg, x)
		if q.c.options.Machines == nil { // nobody is there to answer a check
			q.later("target", func() {
				if x.state == "initial" {
					x.state = "unhealthy"
				}
			})
		}
	}
	return doc{}
}

func deregisterTargets(q *call) doc {
	tg := q.get("target-group", q.str("TargetGroupArn"))
	for _, t := range q.each("Targets") {
		for _, x := range q.c.targets[tg.id] {
			if x.id == t.str("Id") && (!t.has("Port") || x.port == t.num("Port", 0)) {
				x.state = "draining"
				q.later("target", func() {
					if x.state == "draining" {
						x.end()
					}
					q.c.targets[tg.id] = slices.DeleteFunc(q.c.targets[tg.id], func(y *target) bool { return y == x && y.state == "draining" })
				})
			}
		}
	}
	return doc{}
}

func describeTargetHealth(q *call) doc {
	tg := q.get("target-group", q.str("TargetGroupArn"))
	used := len(q.with("listener", "DefaultActions.TargetGroupArn", tg.id)) > 0
	reasons := map[string]string{"initial": "Elb.RegistrationInProgress", "unhealthy": "Target.FailedHealthChecks", "draining": "Target.DeregistrationInProgress", "unused": "Target.NotInUse"}
	all := []doc{}
	for _, x := range q.c.targets[tg.id] {
		state := x.state
		if !used {
			state = "unused"
		} else if i := q.find("instance", x.id); tg.is("TargetType", "instance") && (i == nil || !i.is("instanceState.name", "running")) {
			state = "unused"
		}
		health := doc{"State": state}
		if r := reasons[state]; r != "" {
			health["Reason"] = r
		}
		wanted := q.each("Targets")
		if len(wanted) == 0 || slices.ContainsFunc(wanted, func(t params) bool { return t.str("Id") == x.id }) {
			all = append(all, doc{"Target": doc{"Id": x.id, "Port": x.port}, "HealthCheckPort": fmt.Sprint(x.port), "TargetHealth": health})
		}
	}
	return doc{"TargetHealthDescriptions": all}
}

// elbTagged are the resources of a call about tags.
func (q *call) elbTagged() (all []*resource) {
	for _, arn := range q.strs("ResourceArns") {
		kind := "load-balancer"
		if strings.Contains(arn, ":targetgroup/") {
			kind = "target-group"
		} else if strings.Contains(arn, ":listener/") {
			kind = "listener"
		}
		all = append(all, q.get(kind, arn))
	}
	if len(all) > 20 {
		fail("ValidationError", "At most 20 resources may be named")
	}
	return all
}

func addTags(q *call) doc {
	for _, r := range q.elbTagged() {
		r.setTags(q.each("Tags"))
	}
	return doc{}
}

func removeTags(q *call) doc {
	for _, r := range q.elbTagged() {
		for _, k := range q.strs("TagKeys") {
			delete(r.tags, k)
		}
	}
	return doc{}
}

func describeELBTags(q *call) doc {
	all := []doc{}
	for _, r := range q.elbTagged() {
		all = append(all, doc{"ResourceArn": r.id, "Tags": r.tagList()})
	}
	return doc{"TagDescriptions": all}
}
