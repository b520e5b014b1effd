package cloud

import (
	"slices"
	"strconv"
	"strings"
)

func createListener(q *call) doc {
	lb := q.get("load-balancer", q.str("LoadBalancerArn"))
	port, err := strconv.Atoi(q.str("Port"))
	if err != nil || port < 1 || port > 65535 {
		fail("ValidationError", "A port from 1 to 65535 must be specified")
	}
	for _, l := range q.with("listener", "LoadBalancerArn", lb.id) {
		if l.doc["Port"] == port {
			if l.config.canonical() != q.canonical() {
				fail("DuplicateListener", "A listener already exists on this port for this load balancer '%s'", lb.id)
			}
			q.params = params{} // all of it is so
			return doc{"Listeners": []*resource{l}}
		}
	}
	actions := q.actions()
	l := q.put(kindOf("listener"), strings.Replace(lb.id, ":loadbalancer/", ":listener/", 1)+"/"+newID("", 8),
		doc{"LoadBalancerArn": lb.id, "Port": port, "Protocol": q.or("Protocol", "TCP"), "DefaultActions": actions})
	l.config = q.params
	l.setTags(q.each("Tags"))
	q.balance(l)
	return doc{"Listeners": []*resource{l}}
}

// actions of a listener: forward, to one target group that no other load balancer has.
func (q *call) actions() []doc {
	all := []doc{}
	for _, a := range q.each("DefaultActions") {
		id := a.or("TargetGroupArn", a.str("ForwardConfig.TargetGroups.1.TargetGroupArn"))
		all = append(all, doc{"Type": a.str("Type"), "Order": 1, "TargetGroupArn": q.get("target-group", id).id,
			"ForwardConfig": doc{"TargetGroups": []doc{{"TargetGroupArn": id}}}})
	}
	if len(all) != 1 || all[0]["Type"] != "forward" {
		fail("ValidationError", "A listener of a network load balancer has one default action, of type forward")
	}
	return all
}

func describeListeners(q *call) doc {
	found := q.named("listener", "ListenerArns", "", "")
	if arn := q.str("LoadBalancerArn"); arn != "" {
		lb := q.get("load-balancer", arn)
		found = slices.DeleteFunc(found, func(l *resource) bool { return !l.is("LoadBalancerArn", lb.id) })
	}
	return q.marked("Listeners", found)
}

func modifyListener(q *call) doc {
	l := q.get("listener", q.str("ListenerArn"))
	if q.has("DefaultActions") {
		l.doc["DefaultActions"] = q.actions()
	}
	l.doc["Port"], l.doc["Protocol"] = q.num("Port", l.doc["Port"].(int)), q.or("Protocol", l.str("Protocol"))
	l.config = q.params
	q.rebalance(l)
	return doc{"Listeners": []*resource{l}}
}

func deleteListener(q *call) doc {
	q.c.remove(q.get("listener", q.str("ListenerArn")))
	return doc{}
}
