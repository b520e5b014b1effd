package cloud

import (
	"cmp"
	"encoding/base64"
	"slices"
)

var instanceActions = map[string]func(*call) doc{
	"RunInstances": runInstances, "DescribeInstances": describeInstances, "TerminateInstances": terminateInstances, "DescribeInstanceStatus": describeInstanceStatus,
	"ModifyInstanceAttribute": modifyInstance, "DescribeInstanceAttribute": describeInstanceAttribute, "ModifyInstanceMetadataOptions": modifyMetadata,
	"GetConsoleOutput": consoleOutput,
}

var stateCodes = map[string]int{"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}

func (r *resource) become(state string) {
	r.doc["instanceState"] = doc{"code": stateCodes[state], "name": state}
}

// end is what is left of an instance: it stays visible, without a network.
func (q *call) end(r *resource) {
	r.become("terminated")
	for _, e := range q.with("network-interface", "attachment.instanceId", r.id) {
		if e.is("attachment.deleteOnTermination", "true") {
			q.c.remove(e)
			continue
		}
		delete(e.doc, "attachment")
		e.doc["status"] = "available"
	}
	for _, v := range q.with("volume", "attachmentSet.instanceId", r.id) {
		if v.is("attachmentSet.deleteOnTermination", "true") {
			q.c.remove(v)
			continue
		}
		v.doc["attachmentSet"], v.doc["status"] = []doc{}, "available"
	}
	for _, k := range []string{"privateIpAddress", "privateDnsName", "ipAddress", "dnsName", "subnetId", "vpcId"} {
		delete(r.doc, k)
	}
}

// halt removes the machine. The instance is terminated when that is gone.
func (q *call) halt(r *resource) {
	m := q.c.options.Machines
	if m == nil {
		q.later("instance", func() { q.end(r) })
		return
	}
	q.c.running.Go(func() {
		err := m.Stop(r.id)
		q.c.mu.Lock()
		defer q.c.mu.Unlock()
		if log := q.c.options.Log; err != nil && log != nil {
			log("instance %s: stop its machine: %v", r.id, err)
		}
		q.later("instance", func() { q.end(r) })
	})
}

func describeInstances(q *call) doc {
	if q.has("InstanceId.1") && q.has("MaxResults") {
		fail("InvalidParameterCombination", "The parameter instancesSet cannot be used with the parameter maxResults")
	}
	answer := q.describe(kindOf("instance"))
	all := []doc{}
	for _, r := range answer["reservationSet"].([]*resource) {
		id := r.attrs["reservation"]
		i := slices.IndexFunc(all, func(d doc) bool { return d["reservationId"] == id })
		if i < 0 {
			all, i = append(all, doc{"reservationId": id, "ownerId": q.Account, "groupSet": []doc{}, "instancesSet": []*resource{}}), len(all)
		}
		all[i]["instancesSet"] = append(all[i]["instancesSet"].([]*resource), r)
	}
	answer["reservationSet"] = all
	return answer
}

func terminateInstances(q *call) doc {
	var all []*resource
	for _, id := range q.strs("InstanceId") {
		r := q.get("instance", id)
		if r.attrs["disableApiTermination"] == "true" {
			fail("OperationNotPermitted", "The instance '%s' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again.", id)
		}
		all = append(all, r)
	}
	changes := []doc{}
	for _, r := range all {
		before := r.doc["instanceState"]
		if !r.ended() && !r.is("instanceState.name", "shutting-down") {
			r.become("shutting-down")
			q.halt(r)
		}
		changes = append(changes, doc{"instanceId": r.id, "previousState": before, "currentState": r.doc["instanceState"]})
	}
	return doc{"instancesSet": changes}
}

func describeInstanceStatus(q *call) doc {
	answer := q.describe(kindOf("instance"))
	all := []doc{}
	for _, r := range answer["reservationSet"].([]*resource) {
		if r.is("instanceState.name", "running") || q.yes("IncludeAllInstances") {
			status := map[bool]string{true: "ok", false: "not-applicable"}[r.is("instanceState.name", "running")]
			all = append(all, doc{"instanceId": r.id, "availabilityZone": r.str("placement.availabilityZone"), "instanceState": r.doc["instanceState"],
				"instanceStatus": doc{"status": status}, "systemStatus": doc{"status": status}})
		}
	}
	delete(answer, "reservationSet")
	answer["instanceStatusSet"] = all
	return answer
}

func modifyInstance(q *call) doc {
	r := q.get("instance", q.str("InstanceId"))
	for _, eni := range q.with("network-interface", "attachment.instanceId", r.id) {
		if q.has("SourceDestCheck.Value") {
			eni.doc["sourceDestCheck"] = q.yes("SourceDestCheck.Value")
		}
		if ids := q.strs("GroupId"); len(ids) > 0 {
			eni.doc["groupSet"] = q.groupSet(ids, r.str("vpcId"))
		}
	}
	if v := q.str("DisableApiTermination.Value"); v != "" {
		r.attrs["disableApiTermination"] = v
	}
	return doc{"return": true}
}

func describeInstanceAttribute(q *call) doc {
	r, name := q.get("instance", q.str("InstanceId")), q.str("Attribute")
	d := doc{"instanceId": r.id}
	switch name {
	case "userData":
		d[name] = doc{"value": base64.StdEncoding.EncodeToString([]byte(r.attrs["userData"]))}
	case "groupSet":
		d[name] = r.shown()["groupSet"]
	case "sourceDestCheck":
		d[name] = doc{"value": r.shown()["sourceDestCheck"]}
	default:
		value := cmp.Or(r.attrs[name], r.str(name))
		if value == "" {
			fail("InvalidParameterValue", "Value (%s) for parameter attribute is invalid", name)
		}
		d[name] = doc{"value": value}
	}
	return d
}

func modifyMetadata(q *call) doc {
	r := q.get("instance", q.str("InstanceId"))
	return doc{"instanceId": r.id, "instanceMetadataOptions": metadataOptions(q.str, r.doc["metadataOptions"].(doc))}
}

func consoleOutput(q *call) doc {
	r := q.get("instance", q.str("InstanceId"))
	text := "a stand-in's " + r.id + ": it has no console\n"
	return doc{"instanceId": r.id, "timestamp": now(), "output": base64.StdEncoding.EncodeToString([]byte(text))}
}
