package cloud

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// metadata is what an instance is told of itself: the instance metadata service, version 2, and 1 where an instance
// allows it. Who asks is told by the address that the request comes from.
type metadata struct{ c *Cloud }

type token struct {
	instance string
	until    time.Time
}

// The connection of a request is in its context.
type connKey struct{}

// Metadata is the service of a cloud's instances.
func Metadata(c *Cloud) http.Handler { return &metadata{c} }

func metadataServer(c *Cloud) *http.Server {
	return &http.Server{Handler: Metadata(c), ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, conn)
	}}
}

func (m *metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	code, text := m.answer(r)
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Server", "EC2ws")
	if r.Method == http.MethodPut {
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds"))
	}
	w.WriteHeader(code)
	_, _ = fmt.Fprint(w, text) // who asked may be gone
}

func (m *metadata) answer(r *http.Request) (int, string) {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	m.c.settle()
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return http.StatusBadRequest, err.Error()
	}
	i := m.c.instanceAt(from.Addr())
	if i == nil {
		return http.StatusNotFound, "no instance has the address " + from.Addr().String()
	}
	options := i.doc["metadataOptions"].(doc)
	path := strings.Trim(r.URL.Path, "/")
	switch {
	case options["httpEndpoint"] == "disabled":
		return http.StatusForbidden, ""
	case r.Method == http.MethodPut && path == "latest/api/token":
		seconds, err := strconv.Atoi(r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds"))
		if err != nil || seconds < 1 || seconds > 21600 {
			return http.StatusBadRequest, ""
		} else if r.Header.Get("X-Forwarded-For") != "" {
			return http.StatusForbidden, ""
		}
		hops(r, options["httpPutResponseHopLimit"])
		t := newID("", 20)
		m.c.sessions[t] = token{i.id, time.Now().Add(time.Duration(seconds) * time.Second)}
		return http.StatusOK, t
	case r.Method != http.MethodGet:
		return http.StatusMethodNotAllowed, ""
	}
	given := r.Header.Get("X-Aws-Ec2-Metadata-Token")
	if t := m.c.sessions[given]; given != "" && (t.instance != i.id || t.until.Before(time.Now())) || given == "" && options["httpTokens"] == "required" {
		return http.StatusUnauthorized, ""
	}
	if text, ok := m.look(i, path); ok {
		return http.StatusOK, text
	}
	return http.StatusNotFound, ""
}

// hops limits how far the answer with a token goes: one hop does not lead into a pod's network.
func hops(r *http.Request, limit any) {
	n, err := strconv.Atoi(fmt.Sprint(limit))
	conn, ok := r.Context().Value(connKey{}).(*net.TCPConn)
	if err != nil || !ok {
		return
	}
	if raw, err := conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, n) }) // it is a kindness to who debugs, no more
	}
}

// look finds a path among all that the instance is told; a folder is a list.
func (m *metadata) look(i *resource, path string) (string, bool) {
	path = "latest/" + strings.TrimPrefix(strings.TrimPrefix(path, "latest"), "/")
	all := m.c.metadataOf(i)
	if text, ok := all[strings.TrimSuffix(path, "/")]; ok {
		return text, true
	}
	var names []string
	for _, p := range slices.Sorted(maps.Keys(all)) {
		rest, ok := strings.CutPrefix(p, strings.TrimSuffix(path, "/")+"/")
		name, _, deeper := strings.Cut(rest, "/")
		if deeper {
			name += "/"
		}
		if ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, "\n"), len(names) > 0
}

// on is a call of nobody's on behalf of a resource: it sees what that one's owner does.
func (c *Cloud) on(r *resource) *call {
	account, region, _ := strings.Cut(r.home, "/")
	return &call{c: c, params: params{}, Call: Call{Account: account, Region: region, Partition: partitionOf(region)}}
}

func (c *Cloud) instanceAt(a netip.Addr) *resource {
	for _, r := range c.all {
		if r.name == "instance" && r.str("privateIpAddress") == a.String() {
			return r
		}
	}
	return nil
}

// metadataOf is all that an instance is told, by path.
func (c *Cloud) metadataOf(i *resource) map[string]string {
	q := c.on(i)
	zone := i.str("placement.availabilityZone")
	all := map[string]string{
		"ami-id": i.str("imageId"), "instance-id": i.id, "instance-type": i.str("instanceType"), "local-ipv4": i.str("privateIpAddress"), "ami-launch-index": i.str("amiLaunchIndex"),
		"local-hostname": i.str("privateDnsName"), "hostname": i.str("privateDnsName"), "public-ipv4": i.str("ipAddress"), "public-hostname": i.str("dnsName"),
		"placement/availability-zone": zone, "placement/availability-zone-id": zoneID(zone), "placement/region": q.Region, "reservation-id": i.attrs["reservation"],
		"instance-life-cycle": "on-demand", "services/domain": "amazonaws.com", "services/partition": q.Partition, "security-groups": strings.Join(values(i, "groupSet.groupName"), "\n"),
	}
	if i.str("instanceLifecycle") == "spot" {
		all["instance-life-cycle"] = "spot"
	}
	for _, k := range q.with("key-pair", "keyName", i.str("keyName")) {
		all["public-keys/0/openssh-key"] = k.attrs["public"] + "\n"
	}
	for _, e := range q.with("network-interface", "attachment.instanceId", i.id) {
		subnet, vpc := q.find("subnet", e.str("subnetId")), q.find("vpc", e.str("vpcId"))
		if e.is("attachment.deviceIndex", "0") {
			all["mac"] = e.str("macAddress")
		}
		for name, v := range map[string]string{"mac": e.str("macAddress"), "interface-id": e.id, "local-ipv4s": e.str("privateIpAddress"), "local-hostname": e.str("privateDnsName"), "device-number": e.str("attachment.deviceIndex"),
			"subnet-id": subnet.id, "subnet-ipv4-cidr-block": subnet.str("cidrBlock"), "vpc-id": vpc.id, "vpc-ipv4-cidr-block": vpc.str("cidrBlock"), "vpc-ipv4-cidr-blocks": vpc.str("cidrBlock"),
			"owner-id": q.Account, "security-group-ids": strings.Join(values(e.doc, "groupSet.groupId"), "\n"), "public-ipv4s": e.str("association.publicIp")} {
			all["network/interfaces/macs/"+e.str("macAddress")+"/"+name] = v
		}
	}
	if i.is("metadataOptions.instanceMetadataTags", "enabled") {
		for k, v := range i.tags {
			all["tags/instance/"+k] = v
		}
	}
	c.roleMetadata(i, all)
	told := map[string]string{}
	for k, v := range all {
		if v != "" {
			told["latest/meta-data/"+k] = v
		}
	}
	if text := i.attrs["userData"]; text != "" {
		told["latest/user-data"] = text
	}
	identity, _ := json.MarshalIndent(map[string]any{"accountId": q.Account, "architecture": i.str("architecture"), "availabilityZone": zone, "imageId": i.str("imageId"), "instanceId": i.id,
		"instanceType": i.str("instanceType"), "pendingTime": i.doc["launchTime"], "privateIp": i.str("privateIpAddress"), "region": q.Region, "version": "2017-09-30"}, "", "  ") // strings alone
	told["latest/dynamic/instance-identity/document"] = string(identity)
	return told
}

// roleMetadata are the credentials of the instance's role, which are an access key like any other.
func (c *Cloud) roleMetadata(i *resource, all map[string]string) {
	arn := i.str("iamInstanceProfile.arn")
	q := c.on(i)
	q.Region = ""
	p := q.find("instance-profile", arn[strings.LastIndex(arn, "/")+1:])
	if p == nil {
		return
	}
	role := p.str("Roles.RoleName")
	if role == "" {
		return
	}
	id := i.attrs["key "+role]
	if id == "" {
		id = strings.ToUpper(newID("ASIA", 8))
		i.attrs["key "+role] = id
		c.options.Keys = maps.Clone(c.options.Keys) // who made the options may look at theirs
		c.options.Keys[id] = Key{Secret: newID("", 20), Session: newID("", 40), Account: q.Account, Role: role, ARN: "arn:" + q.Partition + ":sts::" + q.Account + ":assumed-role/" + role + "/" + i.id}
	}
	key := c.options.Keys[id]
	at := time.Now().UTC()
	credentials, _ := json.MarshalIndent(map[string]string{"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": at.Format(time.RFC3339), "Expiration": at.Add(6 * time.Hour).Format(time.RFC3339),
		"AccessKeyId": id, "SecretAccessKey": key.Secret, "Token": key.Session}, "", "  ") // strings alone
	info, _ := json.MarshalIndent(map[string]string{"Code": "Success", "LastUpdated": at.Format(time.RFC3339), "InstanceProfileArn": arn, "InstanceProfileId": i.str("iamInstanceProfile.id")}, "", "  ")
	all["iam/info"], all["iam/security-credentials/"+role] = string(info), string(credentials)
}
