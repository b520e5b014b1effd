package cloud

import (
	"net/netip"
	"slices"
	"strings"
)

var gatewayActions = map[string]func(*call) doc{
	"CreateInternetGateway": createInternetGateway, "AttachInternetGateway": attachInternetGateway, "DetachInternetGateway": detachInternetGateway, "DeleteInternetGateway": deleteInternetGateway,
	"AllocateAddress": allocateAddress, "ReleaseAddress": releaseAddress, "CreateNatGateway": createNAT, "DeleteNatGateway": deleteNAT,
	"CreateRouteTable": createRouteTable, "DeleteRouteTable": deleteRouteTable, "CreateRoute": createRoute, "ReplaceRoute": replaceRoute, "DeleteRoute": deleteRoute,
	"AssociateRouteTable": associateRouteTable, "DisassociateRouteTable": disassociateRouteTable, "ReplaceRouteTableAssociation": replaceAssociation,
}

func createInternetGateway(q *call) doc {
	q.limit("internet-gateway", 5, len(slices.Collect(q.of("internet-gateway"))), "InternetGatewayLimitExceeded")
	return doc{"internetGateway": q.add("internet-gateway", doc{"ownerId": q.Account, "attachmentSet": []doc{}})}
}

func attachInternetGateway(q *call) doc {
	igw, vpc := q.get("internet-gateway", q.str("InternetGatewayId")), q.get("vpc", q.str("VpcId"))
	if id := igw.str("attachmentSet.vpcId"); id != "" {
		fail("Resource.AlreadyAssociated", "resource %s is already attached to network %s", igw.id, id)
	}
	if len(q.with("internet-gateway", "attachmentSet.vpcId", vpc.id)) > 0 {
		fail("InvalidParameterValue", "Network %s already has an internet gateway attached", vpc.id)
	}
	igw.doc["attachmentSet"] = []doc{{"vpcId": vpc.id, "state": "available"}}
	return doc{"return": true}
}

func detachInternetGateway(q *call) doc {
	igw, vpc := q.get("internet-gateway", q.str("InternetGatewayId")), q.get("vpc", q.str("VpcId"))
	if !igw.is("attachmentSet.vpcId", vpc.id) {
		fail("Gateway.NotAttached", "resource %s is not attached to network %s", igw.id, vpc.id)
	}
	for _, eni := range q.with("network-interface", "vpcId", vpc.id) {
		if eni.str("association.publicIp") != "" {
			fail("DependencyViolation", "Network %s has some mapped public address(es). Please unmap those public address(es) before detaching the gateway.", vpc.id)
		}
	}
	igw.doc["attachmentSet"] = []doc{}
	return doc{"return": true}
}

func deleteInternetGateway(q *call) doc {
	igw := q.get("internet-gateway", q.str("InternetGatewayId"))
	if igw.str("attachmentSet.vpcId") != "" {
		fail("DependencyViolation", "The internetGateway '%s' has dependencies and cannot be deleted.", igw.id)
	}
	q.c.remove(igw)
	return doc{"return": true}
}

func allocateAddress(q *call) doc {
	q.limit("elastic-ip", 5, len(slices.Collect(q.of("elastic-ip"))), "AddressLimitExceeded")
	if d := q.or("Domain", "vpc"); d != "vpc" {
		fail("InvalidParameterValue", "Value (%s) for parameter domain is invalid", d)
	}
	ip := netip.MustParseAddr("198.51.100.10")
	for len(q.with("elastic-ip", "publicIp", ip.String())) > 0 {
		ip = ip.Next()
	}
	r := q.add("elastic-ip", doc{"publicIp": ip.String(), "domain": "vpc", "publicIpv4Pool": "amazon", "networkBorderGroup": q.Region})
	return doc{"allocationId": r.id, "publicIp": ip.String(), "domain": "vpc", "publicIpv4Pool": "amazon", "networkBorderGroup": q.Region}
}

func releaseAddress(q *call) doc {
	eip := q.get("elastic-ip", q.str("AllocationId"))
	if eip.str("associationId") != "" {
		fail("InvalidIPAddress.InUse", "Address %s is in use.", eip.str("publicIp"))
	}
	q.c.remove(eip)
	return doc{"return": true}
}

// createNAT makes a NAT gateway with its interface. One without a way out fails, some time later.
func createNAT(q *call) doc {
	subnet, eip := q.get("subnet", q.str("SubnetId")), q.get("elastic-ip", q.str("AllocationId"))
	if slices.Contains(constrained, subnet.str("availabilityZoneId")) {
		fail("NotAvailableInZone", "Nat Gateway is not available in this availability zone")
	}
	inZone := 0
	for n := range q.of("natgateway") {
		if !n.ended() && q.find("subnet", n.str("subnetId")).is("availabilityZone", subnet.str("availabilityZone")) {
			inZone++
		}
	}
	q.limit("natgateway", 5, inZone, "NatGatewayLimitExceeded")
	if eip.str("associationId") != "" {
		fail("Resource.AlreadyAssociated", "resource %s is already associated with another resource", eip.id)
	}
	nat := q.add("natgateway", doc{"subnetId": subnet.id, "vpcId": subnet.str("vpcId"), "state": "pending", "createTime": now(), "connectivityType": q.or("ConnectivityType", "public"),
		"natGatewayAddressSet": []doc{{"allocationId": eip.id}}})
	if len(q.with("internet-gateway", "attachmentSet.vpcId", subnet.str("vpcId"))) == 0 {
		q.later("natgateway", func() {
			nat.doc["state"], nat.doc["failureCode"] = "failed", "Gateway.NotAttached"
			nat.doc["failureMessage"] = "Network " + subnet.str("vpcId") + " has no Internet gateway attached"
		})
		return doc{"natGateway": nat}
	}
	eni := (&call{Call: q.Call, c: q.c, params: params{}}).addInterface(subnet, "Interface for NAT Gateway "+nat.id, nil, doc{"interfaceType": "nat_gateway",
		"requesterManaged": true, "status": "in-use", "groupSet": []doc{}, "association": doc{"publicIp": eip.str("publicIp"), "allocationId": eip.id, "ipOwnerId": q.Account}})
	eni.own = true
	association := newID("eipassoc-", 9)[:26]
	for k, v := range map[string]string{"associationId": association, "networkInterfaceId": eni.id, "privateIpAddress": eni.str("privateIpAddress")} {
		eip.doc[k] = v
	}
	nat.doc["natGatewayAddressSet"] = []doc{{"allocationId": eip.id, "publicIp": eip.str("publicIp"), "privateIp": eni.str("privateIpAddress"),
		"networkInterfaceId": eni.id, "associationId": association, "isPrimary": true, "status": "succeeded"}}
	q.later("natgateway", func() {
		if nat.is("state", "pending") {
			nat.doc["state"] = "available"
		}
	})
	return doc{"natGateway": nat}
}

func deleteNAT(q *call) doc {
	nat := q.get("natgateway", q.str("NatGatewayId"))
	if nat.ended() {
		nat.doc["state"] = "deleted"
		return doc{"natGatewayId": nat.id}
	}
	nat.doc["state"] = "deleting"
	q.later("natgateway", func() {
		nat.doc["state"], nat.doc["deleteTime"] = "deleted", now()
		for _, eip := range q.with("elastic-ip", "allocationId", nat.str("natGatewayAddressSet.allocationId")) {
			for _, k := range []string{"associationId", "networkInterfaceId", "privateIpAddress"} {
				delete(eip.doc, k)
			}
		}
		q.c.remove(q.with("network-interface", "networkInterfaceId", nat.str("natGatewayAddressSet.networkInterfaceId"))...)
		for t := range q.of("route-table") {
			for _, route := range t.doc["routeSet"].([]doc) {
				if route["natGatewayId"] == nat.id {
					route["state"] = "blackhole"
				}
			}
		}
	})
	return doc{"natGatewayId": nat.id}
}

func (q *call) addRouteTable(vpc *resource) *resource {
	return q.add("route-table", doc{"vpcId": vpc.id, "ownerId": q.Account, "associationSet": []doc{}, "propagatingVgwSet": []doc{},
		"routeSet": []doc{{"destinationCidrBlock": vpc.str("cidrBlock"), "gatewayId": "local", "state": "active", "origin": "CreateRouteTable"}}})
}

func createRouteTable(q *call) doc {
	return doc{"routeTable": q.addRouteTable(q.get("vpc", q.str("VpcId")))}
}

func deleteRouteTable(q *call) doc {
	table := q.get("route-table", q.str("RouteTableId"))
	if len(table.doc["associationSet"].([]doc)) > 0 {
		fail("DependencyViolation", "The routeTable '%s' has dependencies and cannot be deleted.", table.id)
	}
	q.c.remove(table)
	return doc{"return": true}
}

// route is the one that a request is about, and where it is in its table; -1: nowhere.
func (q *call) route() (table *resource, routes []doc, at int, route doc) {
	table = q.get("route-table", q.str("RouteTableId"))
	routes = table.doc["routeSet"].([]doc)
	to, err := netip.ParsePrefix(q.str("DestinationCidrBlock"))
	if err != nil {
		fail("InvalidParameterValue", "Value (%s) for parameter destinationCidrBlock is invalid. This is not a valid CIDR block.", q.str("DestinationCidrBlock"))
	}
	route = doc{"destinationCidrBlock": to.Masked().String(), "state": "active", "origin": "CreateRoute"}
	at = slices.IndexFunc(routes, func(r doc) bool { return r["destinationCidrBlock"] == route["destinationCidrBlock"] })
	return table, routes, at, route
}

// target fills in where the route leads.
func (q *call) target(table *resource, route doc) doc {
	switch {
	case q.str("GatewayId") != "":
		if igw := q.find("internet-gateway", q.str("GatewayId")); igw == nil || !igw.seen() {
			fail("InvalidGatewayID.NotFound", "The gateway ID '%s' does not exist", q.str("GatewayId"))
		} else if !igw.is("attachmentSet.vpcId", table.str("vpcId")) {
			fail("InvalidParameterValue", "route table %s and network gateway %s belong to different networks", table.id, igw.id)
		}
		route["gatewayId"] = q.str("GatewayId")
	case q.str("NatGatewayId") != "":
		if nat := q.find("natgateway", q.str("NatGatewayId")); nat == nil || !nat.seen() || nat.ended() {
			fail("InvalidNatGatewayID.NotFound", "The natGateway ID '%s' does not exist", q.str("NatGatewayId"))
		}
		route["natGatewayId"] = q.str("NatGatewayId")
	case q.str("InstanceId") != "":
		i := q.get("instance", q.str("InstanceId"))
		route["instanceId"], route["instanceOwnerId"], route["networkInterfaceId"] = i.id, q.Account, i.str("networkInterfaceSet.networkInterfaceId")
	case q.str("NetworkInterfaceId") != "":
		route["networkInterfaceId"] = q.get("network-interface", q.str("NetworkInterfaceId")).id
	default:
		fail("MissingParameter", "The request must contain the parameter gatewayId, natGatewayId, instanceId or networkInterfaceId")
	}
	return route
}

func createRoute(q *call) doc {
	table, routes, at, route := q.route()
	if at >= 0 {
		fail("RouteAlreadyExists", "The route identified by %s already exists.", route["destinationCidrBlock"])
	}
	table.doc["routeSet"] = append(routes, q.target(table, route))
	return doc{"return": true}
}

func replaceRoute(q *call) doc {
	table, routes, at, route := q.route()
	if at < 0 {
		fail("InvalidParameterValue", "There is no route defined for '%s' in the route table", route["destinationCidrBlock"])
	}
	routes[at] = q.target(table, route)
	return doc{"return": true}
}

func deleteRoute(q *call) doc {
	table, routes, at, route := q.route()
	if at < 0 {
		fail("InvalidRoute.NotFound", "no route with destination-cidr-block %s in route table %s", route["destinationCidrBlock"], table.id)
	}
	table.doc["routeSet"] = slices.Delete(routes, at, at+1)
	return doc{"return": true}
}

func (q *call) associate(table *resource, subnet string) string {
	id := newID("rtbassoc-", 9)[:26]
	table.doc["associationSet"] = append(table.doc["associationSet"].([]doc), doc{"main": false, "routeTableId": table.id, "subnetId": subnet,
		"routeTableAssociationId": id, "associationState": doc{"state": "associated"}})
	return id
}

func associateRouteTable(q *call) doc {
	table, subnet := q.get("route-table", q.str("RouteTableId")), q.get("subnet", q.str("SubnetId"))
	if others := q.with("route-table", "associationSet.subnetId", subnet.id); len(others) > 0 {
		fail("Resource.AlreadyAssociated", "the specified association for route table %s conflicts with an existing association", table.id)
	}
	return doc{"associationId": q.associate(table, subnet.id), "associationState": doc{"state": "associated"}}
}

// dissociate ends an association, and returns its subnet.
func (q *call) dissociate(id string) (subnet string) {
	tables := q.with("route-table", "associationSet.routeTableAssociationId", id)
	if len(tables) == 0 {
		fail("InvalidAssociationID.NotFound", "The association ID '%s' does not exist", id)
	}
	table := tables[0]
	table.doc["associationSet"] = slices.DeleteFunc(table.doc["associationSet"].([]doc), func(a doc) bool {
		if a["routeTableAssociationId"] != id {
			return false
		}
		if a["main"] == true {
			fail("InvalidParameterValue", "cannot disassociate the main route table association %s", id)
		}
		subnet = a["subnetId"].(string)
		return true
	})
	return subnet
}

func disassociateRouteTable(q *call) doc {
	q.dissociate(q.str("AssociationId"))
	return doc{"return": true}
}

func replaceAssociation(q *call) doc {
	table := q.get("route-table", q.str("RouteTableId"))
	return doc{"newAssociationId": q.associate(table, q.dissociate(q.str("AssociationId"))), "associationState": doc{"state": "associated"}}
}

// macOf is made of the address.
func macOf(ip netip.Addr) string {
	const hex = "0123456789abcdef"
	b := ip.As4()
	m := []string{"06", "5e"}
	for _, x := range b {
		m = append(m, string([]byte{hex[x>>4], hex[x&15]}))
	}
	return strings.Join(m, ":")
}
