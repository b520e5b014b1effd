package cloud

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

func runInstances(q *call) doc {
	q.withTemplate()
	size, ok := instanceTypes[q.or("InstanceType", "m1.small")]
	if !ok {
		fail("InvalidParameterValue", "Invalid value '%s' for InstanceType.", q.str("InstanceType"))
	}
	if q.str("ImageId") == "" {
		fail("MissingParameter", "The request must contain the parameter ImageId")
	}
	image := q.get("image", q.str("ImageId"))
	if !image.is("architecture", size.Arch) {
		fail("InvalidParameterValue", "The architecture '%s' of the specified instance type does not match the architecture '%s' of the specified AMI. Specify an instance type and an AMI that have matching architectures, and try again.", size.Arch, image.str("architecture"))
	}
	nics := q.each("NetworkInterface")
	if len(nics) == 0 {
		nics = []params{{"SubnetId": {q.str("SubnetId")}, "DeviceIndex": {"0"}}}
		for i, g := range q.strs("SecurityGroupId") {
			nics[0][fmt.Sprint("SecurityGroupId.", i+1)] = []string{g}
		}
	} else if q.has("SubnetId") || q.has("SecurityGroupId.1") {
		fail("InvalidParameterCombination", "Network interfaces and an instance-level subnet ID or security groups may not be specified on the same request")
	}
	if nics[0].str("SubnetId") == "" {
		fail("VPCIdNotSpecified", "No default VPC for this user. GroupName is only supported for EC2-Classic and default VPC.")
	}
	if q.num("MinCount", 0) < 1 || q.num("MaxCount", 0) < q.num("MinCount", 0) {
		fail("InvalidParameterValue", "MinCount must be at least 1, and MaxCount no less")
	}
	subnet := q.get("subnet", nics[0].str("SubnetId"))
	q.room(subnet.str("availabilityZone"), size.CPUs)
	if name := q.str("KeyName"); name != "" {
		q.keyPair(name)
	}
	userData, err := base64.StdEncoding.DecodeString(q.str("UserData"))
	if err != nil {
		fail("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data")
	} else if len(userData) > 16<<10 {
		fail("InvalidParameterValue", "User data is limited to 16384 bytes")
	}
	profile := q.profile()
	for _, nic := range nics {
		q.groupSet(nic.strs("SecurityGroupId"), subnet.str("vpcId"))
	}
	reservation := newID("r-", 9)[:19]
	made := []*resource{}
	for i := range q.num("MaxCount", 1) {
		made = append(made, q.launch(image, subnet, nics, i, userData, profile, reservation))
	}
	return doc{"reservationId": reservation, "ownerId": q.Account, "groupSet": []doc{}, "instancesSet": made}
}

// room says whether the zone has machines of that type, and the account may have more.
func (q *call) room(zone string, cpus int) {
	name := q.str("InstanceType")
	place := name + "/" + zone
	if q.c.options.Unsupported[place] {
		fail("Unsupported", "Your requested instance type (%s) is not supported in your requested Availability Zone (%s). Please retry your request by not specifying an Availability Zone or choosing another.", name, zone)
	}
	if q.c.options.NoCapacity[place] {
		panic(&Error{"InsufficientInstanceCapacity", fmt.Sprintf("We currently do not have sufficient %s capacity in the Availability Zone you requested (%s). Our system will be working on provisioning additional capacity.", name, zone), http.StatusInternalServerError})
	}
	used := -1 // so many CPUs that one more would be too many
	for i := range q.of("instance") {
		if !i.ended() {
			used += instanceTypes[i.str("instanceType")].CPUs
		}
	}
	code := "VcpuLimitExceeded"
	if q.str("InstanceMarketOptions.MarketType") == "spot" {
		code = "MaxSpotInstanceCountExceeded"
	}
	q.limit("vcpu", 1000, used+cpus*q.num("MaxCount", 1), code)
}

// launch makes one instance, its interfaces and its volumes.
func (q *call) launch(image, subnet *resource, nics []params, index int, userData []byte, profile doc, reservation string) *resource {
	r := q.add("instance", doc{"imageId": image.id, "instanceType": q.str("InstanceType"), "keyName": q.str("KeyName"), "launchTime": now(), "amiLaunchIndex": index,
		"architecture": image.str("architecture"), "subnetId": subnet.id, "vpcId": subnet.str("vpcId"), "clientToken": q.str("ClientToken"), "hypervisor": "xen",
		"virtualizationType": "hvm", "rootDeviceName": "/dev/sda1", "rootDeviceType": "ebs", "ebsOptimized": q.yes("EbsOptimized"), "enaSupport": true,
		"placement":             doc{"availabilityZone": subnet.str("availabilityZone"), "tenancy": "default", "groupName": ""},
		"monitoring":            doc{"state": "disabled"},
		"metadataOptions":       metadataOptions(q.under("MetadataOptions").str, doc{"httpTokens": "optional", "httpPutResponseHopLimit": "1", "httpEndpoint": "enabled", "instanceMetadataTags": "disabled", "state": "applied"}),
		"privateDnsNameOptions": doc{"hostnameType": q.or("PrivateDnsNameOptions.HostnameType", "ip-name"), "enableResourceNameDnsARecord": false}})
	r.become("pending")
	r.attrs["reservation"], r.attrs["userData"] = reservation, string(userData)
	r.attrs["disableApiTermination"] = q.or("DisableApiTermination", "false")
	if profile != nil {
		r.doc["iamInstanceProfile"] = profile
	}
	if q.str("InstanceMarketOptions.MarketType") == "spot" {
		r.doc["instanceLifecycle"], r.doc["spotInstanceRequestId"] = "spot", newID("sir-", 4)
	}
	for _, nic := range nics {
		q.attach(r, subnet, nic)
	}
	r.show = func() doc { return q.instanceNetwork(r) }
	q.rootVolumes(r, image)
	q.boot(r)
	return r
}

// metadataOptions are those of d, and what is said of them.
func metadataOptions(said func(string) string, d doc) doc {
	for param, element := range map[string]string{"HttpTokens": "httpTokens", "HttpPutResponseHopLimit": "httpPutResponseHopLimit", "HttpEndpoint": "httpEndpoint", "InstanceMetadataTags": "instanceMetadataTags"} {
		if v := said(param); v != "" {
			d[element] = v
		}
	}
	return d
}

// attach gives the instance a network interface, with a public address if that or the subnet asks for it.
func (q *call) attach(r, subnet *resource, nic params) {
	index := nic.num("DeviceIndex", 0)
	if id := nic.str("SubnetId"); id != "" {
		subnet = q.get("subnet", id)
	}
	eni := q.addInterface(subnet, nic.str("Description"), nic.strs("SecurityGroupId"), doc{"status": "in-use",
		"attachment": doc{"attachmentId": newID("eni-attach-", 9)[:28], "instanceId": r.id, "instanceOwnerId": q.Account, "deviceIndex": index, "status": "attached",
			"attachTime": now(), "deleteOnTermination": nic.or("DeleteOnTermination", "true") == "true"}})
	ip := eni.str("privateIpAddress")
	if index > 0 {
		return
	}
	r.doc["privateIpAddress"], r.doc["privateDnsName"] = ip, eni.doc["privateDnsName"]
	if nic.or("AssociatePublicIpAddress", subnet.str("mapPublicIpOnLaunch")) != "true" {
		return
	}
	public := ip // a machine of a lab has one address
	if q.c.options.Machines == nil {
		q.c.publicIPs++
		a := netip.MustParseAddr("203.0.113.0").As4()
		a[3] = byte(q.c.publicIPs)
		public = netip.AddrFrom4(a).String()
	}
	name := "ec2-" + strings.ReplaceAll(public, ".", "-") + "." + q.Region + ".compute.amazonaws.com"
	r.doc["ipAddress"], r.doc["dnsName"] = public, name
	eni.doc["association"] = doc{"publicIp": public, "publicDnsName": name, "ipOwnerId": "amazon"}
}

// instanceNetwork is what an instance shows of its interfaces.
func (q *call) instanceNetwork(r *resource) doc {
	enis := q.with("network-interface", "attachment.instanceId", r.id)
	d := doc{"networkInterfaceSet": enis}
	for _, e := range enis {
		if e.is("attachment.deviceIndex", "0") {
			d["groupSet"], d["sourceDestCheck"] = e.doc["groupSet"], e.doc["sourceDestCheck"]
		}
	}
	return d
}

// boot starts the machine. The instance runs when that does.
func (q *call) boot(r *resource) {
	running := func() {
		if r.is("instanceState.name", "pending") {
			r.become("running")
		}
	}
	m := q.c.options.Machines
	if m == nil {
		q.later("instance", running)
		return
	}
	spec := q.spec(r)
	q.c.running.Go(func() {
		err := m.Start(q.c.ctx, spec)
		if f, ok := m.(Firewall); ok && err == nil {
			q.c.admit(f, r)
		}
		q.c.mu.Lock()
		defer q.c.mu.Unlock()
		if err == nil {
			running()
			return
		}
		if log := q.c.options.Log; log != nil && q.c.ctx.Err() == nil {
			log("instance %s: %v", r.id, err)
		}
		r.doc["stateReason"] = doc{"code": "Server.InternalError", "message": "Server.InternalError: Internal error on launch"}
		q.end(r)
	})
}
