package cloud

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// What AWS has before anybody makes anything: zones, sizes of machines, images.
var factActions = map[string]func(*call) doc{
	"DescribeAvailabilityZones": describeZones, "DescribeRegions": describeRegions,
	"DescribeInstanceTypes": describeTypes, "DescribeInstanceTypeOfferings": describeOfferings, "DescribeImages": describeImages,
	// Of machines of these sizes there is nothing to say.
	"DescribeInstanceTopology": func(*call) doc { return doc{"instanceSet": []doc{}} },
}

// instanceTypes: virtual CPUs, MiB, architecture.
var instanceTypes = map[string]struct {
	CPUs, MiB int
	Arch      string
}{
	"t3.micro": {2, 1024, "x86_64"}, "t3.small": {2, 2048, "x86_64"}, "t3.medium": {2, 4096, "x86_64"}, "t3.large": {2, 8192, "x86_64"}, "t3.xlarge": {4, 16384, "x86_64"},
	"t4g.nano": {2, 512, "arm64"}, "t4g.micro": {2, 1024, "arm64"}, "t4g.small": {2, 2048, "arm64"}, "t4g.medium": {2, 4096, "arm64"}, "t4g.large": {2, 8192, "arm64"},
	"t3.nano": {2, 512, "x86_64"}, "m7g.large": {2, 8192, "arm64"}, "m7g.xlarge": {4, 16384, "arm64"}, "m7i.large": {2, 8192, "x86_64"}, "m7i.xlarge": {4, 16384, "x86_64"},
	"m5.large": {2, 8192, "x86_64"}, "m5.xlarge": {4, 16384, "x86_64"}, "m6i.large": {2, 8192, "x86_64"}, "m6i.xlarge": {4, 16384, "x86_64"}, "m6g.large": {2, 8192, "arm64"},
	"c7g.large": {2, 4096, "arm64"}, "c7i.large": {2, 4096, "x86_64"}, "r7g.large": {2, 16384, "arm64"}, "r7i.large": {2, 16384, "x86_64"},
}

// canonical is the account that publishes Ubuntu; in partitions of their own it has others.
const canonical = "099720109477"

var canonicals = map[string]string{"aws-cn": "837727238323", "aws-us-gov": "513442679011"}

func partitionOf(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}

// images are names, architectures and dates of what is published; one is by somebody who only looks like Canonical.
var images = []struct{ owner, name, arch, date string }{
	{canonical, "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-amd64-server-20260912", "x86_64", "2026-09-12"},
	{canonical, "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-arm64-server-20260912", "arm64", "2026-09-12"},
	{canonical, "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20260915", "x86_64", "2026-09-15"},
	{canonical, "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-arm64-server-20260915", "arm64", "2026-09-15"},
	{canonical, "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20261020", "x86_64", "2026-10-20"},
	{canonical, "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-arm64-server-20261020", "arm64", "2026-10-20"},
	{canonical, "ubuntu-minimal/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-minimal-20261022", "x86_64", "2026-10-22"},
	{"444455556666", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20261101", "x86_64", "2026-11-01"},
}

// addImages publishes the images in every region, under ids that are always the same.
func (c *Cloud) addImages() {
	for _, i := range images {
		c.Publish(i.owner, i.name, i.arch, i.date)
	}
}

// Publish adds an image in every region.
func (c *Cloud) Publish(owner, name, arch, date string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, region := range slices.Sorted(maps.Keys(c.options.Regions)) {
		owner := owner
		if other := canonicals[partitionOf(region)]; other != "" && owner == canonical {
			owner = other
		}
		id := fmt.Sprintf("ami-%x", sha256.Sum256([]byte(region+owner+name)))[:21]
		c.all = append(c.all, &resource{kind: kindOf("image"), id: id, home: "/" + region, own: true, c: c, doc: doc{"imageId": id, "name": name, "imageLocation": owner + "/" + name,
			"imageOwnerId": owner, "architecture": arch, "creationDate": date + "T04:05:06.000Z", "imageState": "available", "isPublic": true, "imageType": "machine",
			"rootDeviceType": "ebs", "rootDeviceName": "/dev/sda1", "virtualizationType": "hvm", "hypervisor": "xen", "enaSupport": true, "platformDetails": "Linux/UNIX",
			"blockDeviceMapping": []doc{{"deviceName": "/dev/sda1", "ebs": doc{"deleteOnTermination": true, "volumeSize": 8, "volumeType": "gp3", "encrypted": false}}}}})
	}
}

func describeImages(q *call) doc {
	answer := q.describe(kindOf("image"))
	if owners := q.strs("Owner"); len(owners) > 0 {
		answer["imagesSet"] = slices.DeleteFunc(answer["imagesSet"].([]*resource), func(r *resource) bool {
			owner := r.str("imageOwnerId")
			return !slices.Contains(owners, owner) && (!slices.Contains(owners, "self") || owner != q.Account)
		})
	}
	return answer
}

// facts answers a Describe of what is no resource, with its filters.
func (q *call) facts(set, filters string, all []doc) doc {
	k := &kind{name: "fact", set: set, filters: filters}
	var found []*resource
	for _, d := range all {
		r := &resource{kind: k, doc: d}
		if !slices.ContainsFunc(q.filters(k), func(f func(*resource) bool) bool { return !f(r) }) {
			found = append(found, r)
		}
	}
	return q.page(set, found, false)
}

func describeZones(q *call) doc {
	var all []doc
	for _, z := range q.c.options.Regions[q.Region] {
		if names := q.strs("ZoneName"); len(names) == 0 || slices.Contains(names, z) {
			all = append(all, doc{"zoneName": z, "zoneId": zoneID(z), "zoneState": "available", "regionName": q.Region, "zoneType": "availability-zone",
				"groupName": q.Region, "networkBorderGroup": q.Region, "optInStatus": "opt-in-not-required"})
		}
	}
	for _, name := range q.strs("ZoneName") {
		q.zone(name)
	}
	return q.facts("availabilityZoneInfo", "state=zoneState zone-state zone-type zone-name zone-id region-name opt-in-status group-name", all)
}

func describeRegions(q *call) doc {
	var all []doc
	for _, r := range slices.Sorted(maps.Keys(q.c.options.Regions)) {
		all = append(all, doc{"regionName": r, "regionEndpoint": "ec2." + r + ".amazonaws.com", "optInStatus": "opt-in-not-required"})
	}
	return q.facts("regionInfo", "region-name opt-in-status", all)
}

func describeTypes(q *call) doc {
	names := q.strs("InstanceType")
	for _, name := range names {
		if _, ok := instanceTypes[name]; !ok {
			fail("InvalidInstanceType", "The following supplied instance types do not exist: [%s]", name)
		}
	}
	var all []doc
	for _, name := range slices.Sorted(maps.Keys(instanceTypes)) {
		t := instanceTypes[name]
		if len(names) > 0 && !slices.Contains(names, name) {
			continue
		}
		all = append(all, doc{"instanceType": name, "currentGeneration": true, "bareMetal": false, "burstablePerformanceSupported": name[0] == 't', "hypervisor": "nitro",
			"vCpuInfo": doc{"defaultVCpus": t.CPUs, "defaultCores": t.CPUs / 2, "defaultThreadsPerCore": 2}, "memoryInfo": doc{"sizeInMiB": t.MiB},
			"processorInfo":         doc{"supportedArchitectures": []string{t.Arch}},
			"networkInfo":           doc{"maximumNetworkInterfaces": 3, "ipv4AddressesPerInterface": 6, "enaSupport": "required"},
			"supportedUsageClasses": []string{"on-demand", "spot"}, "supportedVirtualizationTypes": []string{"hvm"}})
	}
	return q.facts("instanceTypeSet", "instance-type processor-info.supported-architecture=processorInfo.supportedArchitectures current-generation bare-metal", all)
}

func describeOfferings(q *call) doc {
	places := []string{q.Region}
	where := q.or("LocationType", "region")
	if where == "availability-zone" {
		places = q.c.options.Regions[q.Region]
	}
	var all []doc
	for _, name := range slices.Sorted(maps.Keys(instanceTypes)) {
		for _, p := range places {
			if !q.c.options.Unsupported[name+"/"+p] {
				all = append(all, doc{"instanceType": name, "location": p, "locationType": where})
			}
		}
	}
	return q.facts("instanceTypeOfferingSet", "instance-type location", all)
}

// zoneID is euw1-az1 for eu-west-1a.
func zoneID(zone string) string {
	f := strings.Split(zone, "-")
	if len(f) == 4 { // us-gov-west-1a
		f = append([]string{f[0] + "g"}, f[2:]...)
	}
	if len(f) != 3 || len(f[2]) != 2 {
		return zone
	}
	short := map[string]string{"east": "e", "west": "w", "central": "c", "southeast": "se", "northeast": "ne", "south": "s", "north": "n"}[f[1]]
	return fmt.Sprintf("%s%s%c-az%d", f[0], short, f[2][0], f[2][1]-'a'+1)
}

// constrained are zones that AWS does not extend any more.
var constrained = []string{"apne1-az3", "cac1-az3", "use1-az3", "usw1-az2"}

// privateName is ip-10-0-1-2.eu-west-1.compute.internal; us-east-1 has a shorter one.
func (q *call) privateName(ip netip.Addr) string {
	domain := q.Region + ".compute.internal"
	if q.Region == "us-east-1" {
		domain = "ec2.internal"
	}
	return "ip-" + strings.ReplaceAll(ip.String(), ".", "-") + "." + domain
}
