package cloud

// The kinds of EC2. What is described and filtered is in this table, what is made and changed in the handlers.
var kinds = []kind{
	{name: "vpc", tagElement: "tagSet", prefix: "vpc", describe: "DescribeVpcs", set: "vpcSet", param: "VpcId", id: "vpcId", missing: "InvalidVpcID.NotFound",
		filters: "vpc-id cidr=cidrBlock cidr-block-association.cidr-block=cidrBlock state is-default owner-id dhcp-options-id"},
	{name: "subnet", tagElement: "tagSet", prefix: "subnet", describe: "DescribeSubnets", set: "subnetSet", param: "SubnetId", id: "subnetId", missing: "InvalidSubnetID.NotFound",
		filters: "vpc-id subnet-id state availability-zone cidr-block cidr=cidrBlock default-for-az owner-id map-public-ip-on-launch"},
	{name: "internet-gateway", tagElement: "tagSet", prefix: "igw", describe: "DescribeInternetGateways", set: "internetGatewaySet", param: "InternetGatewayId", id: "internetGatewayId",
		missing: "InvalidInternetGatewayID.NotFound", filters: "internet-gateway-id owner-id attachment.vpc-id=attachmentSet.vpcId attachment.state=attachmentSet.state"},
	{name: "elastic-ip", tagElement: "tagSet", prefix: "eipalloc", describe: "DescribeAddresses", set: "addressesSet", param: "AllocationId", id: "allocationId", unpaged: true,
		missing: "InvalidAllocationID.NotFound", filters: "allocation-id association-id domain instance-id network-interface-id public-ip private-ip-address"},
	{name: "natgateway", tagElement: "tagSet", prefix: "nat", describe: "DescribeNatGateways", set: "natGatewaySet", param: "NatGatewayId", id: "natGatewayId", missing: "NatGatewayNotFound",
		filters: "nat-gateway-id state subnet-id vpc-id"},
	{name: "route-table", tagElement: "tagSet", prefix: "rtb", describe: "DescribeRouteTables", set: "routeTableSet", param: "RouteTableId", id: "routeTableId", missing: "InvalidRouteTableID.NotFound",
		filters: `vpc-id route-table-id owner-id association.main=associationSet.main association.subnet-id=associationSet.subnetId association.gateway-id=associationSet.gatewayId
			association.route-table-association-id=associationSet.routeTableAssociationId route.destination-cidr-block=routeSet.destinationCidrBlock route.gateway-id=routeSet.gatewayId
			route.nat-gateway-id=routeSet.natGatewayId route.state=routeSet.state`},
	{name: "network-acl", tagElement: "tagSet", prefix: "acl", describe: "DescribeNetworkAcls", set: "networkAclSet", param: "NetworkAclId", id: "networkAclId", missing: "InvalidNetworkAclID.NotFound",
		filters: "vpc-id network-acl-id default"},
	{name: "security-group", tagElement: "tagSet", prefix: "sg", describe: "DescribeSecurityGroups", set: "securityGroupInfo", param: "GroupId", id: "groupId", missing: "InvalidGroup.NotFound",
		filters: "vpc-id group-id group-name owner-id description=groupDescription ip-permission.group-id=ipPermissions.groups.groupId ip-permission.cidr=ipPermissions.ipRanges.cidrIp"},
	{name: "security-group-rule", tagElement: "tagSet", prefix: "sgr", describe: "DescribeSecurityGroupRules", set: "securityGroupRuleSet", param: "SecurityGroupRuleId", id: "securityGroupRuleId",
		missing: "InvalidSecurityGroupRuleId.NotFound", filters: "group-id security-group-rule-id"},
	{name: "key-pair", tagElement: "tagSet", prefix: "key", describe: "DescribeKeyPairs", set: "keySet", param: "KeyPairId", id: "keyPairId", missing: "InvalidKeyPair.NotFound", unpaged: true,
		filters: "key-name key-pair-id fingerprint=keyFingerprint"},
	{name: "launch-template", tagElement: "tagSet", prefix: "lt", describe: "DescribeLaunchTemplates", set: "launchTemplates", param: "LaunchTemplateId", id: "launchTemplateId",
		missing: "InvalidLaunchTemplateId.NotFound", filters: "launch-template-name create-time"},
	{name: "instance", tagElement: "tagSet", prefix: "i", describe: "DescribeInstances", set: "reservationSet", param: "InstanceId", id: "instanceId", missing: "InvalidInstanceID.NotFound",
		filters: `instance-id vpc-id subnet-id image-id key-name private-dns-name private-ip-address ip-address instance-type architecture client-token instance-lifecycle
			instance-state-name=instanceState.name instance-state-code=instanceState.code availability-zone=placement.availabilityZone owner-id=networkInterfaceSet.ownerId
			instance.group-id=groupSet.groupId instance.group-name=groupSet.groupName group-id=groupSet.groupId group-name=groupSet.groupName
			network-interface.network-interface-id=networkInterfaceSet.networkInterfaceId network-interface.private-dns-name=networkInterfaceSet.privateDnsName
			network-interface.addresses.private-ip-address=networkInterfaceSet.privateIpAddress
			iam-instance-profile.arn=iamInstanceProfile.arn`},
	{name: "network-interface", tagElement: "tagSet", prefix: "eni", describe: "DescribeNetworkInterfaces", set: "networkInterfaceSet", param: "NetworkInterfaceId", id: "networkInterfaceId",
		missing: "InvalidNetworkInterfaceID.NotFound", filters: `vpc-id subnet-id network-interface-id status description group-id=groupSet.groupId group-name=groupSet.groupName
			attachment.instance-id=attachment.instanceId attachment.status=attachment.status interface-type requester-managed private-ip-address addresses.private-ip-address=privateIpAddress
			availability-zone requester-id owner-id`},
	{name: "volume", tagElement: "tagSet", prefix: "vol", describe: "DescribeVolumes", set: "volumeSet", param: "VolumeId", id: "volumeId", missing: "InvalidVolume.NotFound",
		filters: `volume-id status availability-zone volume-type encrypted size attachment.instance-id=attachmentSet.instanceId attachment.status=attachmentSet.status
			attachment.device=attachmentSet.device attachment.delete-on-termination=attachmentSet.deleteOnTermination`},
	{name: "image", tagElement: "tagSet", prefix: "ami", describe: "DescribeImages", set: "imagesSet", param: "ImageId", id: "imageId", missing: "InvalidAMIID.NotFound",
		filters: "name architecture image-id owner-id=imageOwnerId state=imageState virtualization-type root-device-type is-public owner-alias=imageOwnerAlias image-type hypervisor ena-support"},
}

// The kinds of other services: their handlers describe them.
var others = []kind{
	{name: "load-balancer", id: "LoadBalancerArn", missing: "LoadBalancerNotFound"},
	{name: "listener", id: "ListenerArn", missing: "ListenerNotFound"},
	{name: "target-group", id: "TargetGroupArn", missing: "TargetGroupNotFound"},
	{name: "role", id: "RoleName", missing: "NoSuchEntity", tagElement: "Tags"},
	{name: "instance-profile", id: "InstanceProfileName", missing: "NoSuchEntity", tagElement: "Tags"},
	{name: "policy", id: "Arn", missing: "NoSuchEntity", tagElement: "Tags"},
}
