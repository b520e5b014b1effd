package cloud

import "net/http"

var volumeActions = map[string]func(*call) doc{
	"CreateVolume": createVolume, "DeleteVolume": deleteVolume, "AttachVolume": attachVolume, "DetachVolume": detachVolume,
}

// rootVolumes are those of the image, as the request changes them, and more.
func (q *call) rootVolumes(r, image *resource) {
	mappings := q.each("BlockDeviceMapping")
	root := params{"DeviceName": {"/dev/sda1"}, "Ebs.VolumeSize": {"8"}, "Ebs.VolumeType": {"gp3"}, "Ebs.DeleteOnTermination": {"true"}}
	all := []params{root}
	for _, m := range mappings {
		if m.str("DeviceName") != "/dev/sda1" {
			all = append(all, m)
			continue
		}
		for k, v := range m {
			root[k] = v
		}
	}
	shown := []doc{}
	for _, m := range all {
		v := q.add("volume", doc{"size": m.num("Ebs.VolumeSize", 8), "volumeType": m.or("Ebs.VolumeType", "gp2"), "encrypted": m.yes("Ebs.Encrypted"),
			"availabilityZone": r.str("placement.availabilityZone"), "createTime": now()})
		keep := m.or("Ebs.DeleteOnTermination", "true") == "true"
		v.doc["attachmentSet"] = []doc{attachment(v, r, m.str("DeviceName"), keep)}
		v.doc["status"] = "in-use"
		shown = append(shown, doc{"deviceName": m.str("DeviceName"), "ebs": doc{"volumeId": v.id, "status": "attached", "attachTime": now(), "deleteOnTermination": keep}})
	}
	r.doc["blockDeviceMapping"] = shown
}

func attachment(v, r *resource, device string, end bool) doc {
	return doc{"volumeId": v.id, "instanceId": r.id, "device": device, "status": "attached", "attachTime": now(), "deleteOnTermination": end}
}

func createVolume(q *call) doc {
	size := q.num("Size", 0)
	if size < 1 || size > 16384 {
		fail("InvalidParameterValue", "Volume size %d is invalid: 1 to 16384 GiB", size)
	}
	v := q.add("volume", doc{"size": size, "volumeType": q.or("VolumeType", "gp2"), "encrypted": q.yes("Encrypted"), "availabilityZone": q.zone(q.str("AvailabilityZone")),
		"createTime": now(), "status": "creating", "attachmentSet": []doc{}})
	q.later("volume", func() {
		if v.is("status", "creating") {
			v.doc["status"] = "available"
		}
	})
	d := v.shown()
	return d
}

func deleteVolume(q *call) doc {
	v := q.get("volume", q.str("VolumeId"))
	if v.is("status", "in-use") {
		fail("VolumeInUse", "Volume %s is currently attached to %s", v.id, v.str("attachmentSet.instanceId"))
	}
	q.c.remove(v)
	return doc{"return": true}
}

func attachVolume(q *call) doc {
	v, r := q.get("volume", q.str("VolumeId")), q.get("instance", q.str("InstanceId"))
	if !v.is("status", "available") {
		panic(&Error{"IncorrectState", v.id + " is not 'available'", http.StatusBadRequest})
	}
	if !v.is("availabilityZone", r.str("placement.availabilityZone")) {
		fail("InvalidVolume.ZoneMismatch", "The volume '%s' is not in the same availability zone as instance '%s'", v.id, r.id)
	}
	a := attachment(v, r, q.str("Device"), false)
	v.doc["attachmentSet"], v.doc["status"] = []doc{a}, "in-use"
	r.doc["blockDeviceMapping"] = append(r.doc["blockDeviceMapping"].([]doc), doc{"deviceName": q.str("Device"), "ebs": doc{"volumeId": v.id, "status": "attached", "attachTime": now(), "deleteOnTermination": false}})
	return a
}

func detachVolume(q *call) doc {
	v := q.get("volume", q.str("VolumeId"))
	if !v.is("status", "in-use") {
		fail("IncorrectState", "Volume '%s' is in the 'available' state.", v.id)
	}
	a := v.doc["attachmentSet"].([]doc)[0]
	r := q.get("instance", a["instanceId"].(string))
	kept := []doc{}
	for _, m := range r.doc["blockDeviceMapping"].([]doc) {
		if m["ebs"].(doc)["volumeId"] != v.id {
			kept = append(kept, m)
		}
	}
	r.doc["blockDeviceMapping"] = kept
	v.doc["attachmentSet"], v.doc["status"] = []doc{}, "available"
	a["status"] = "detached"
	return a
}
