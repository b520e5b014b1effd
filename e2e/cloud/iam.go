package cloud

import (
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// iamActions are roles, their policies, and instance profiles. Things of IAM are known by name.
func iamActions() map[string]func(*call) doc {
	all := map[string]func(*call) doc{
		"CreateRole": createRole, "DeleteRole": deleteRole, "UpdateAssumeRolePolicy": updateTrust,
		"PutRolePolicy": putRolePolicy, "GetRolePolicy": getRolePolicy, "DeleteRolePolicy": deleteRolePolicy, "ListRolePolicies": listRolePolicies,
		"AttachRolePolicy": attachRolePolicy, "DetachRolePolicy": detachRolePolicy, "ListAttachedRolePolicies": listAttached,
		"CreatePolicy": createPolicy, "DeletePolicy": deletePolicy, "GetPolicyVersion": getPolicyVersion,
		"CreateInstanceProfile": createProfile, "DeleteInstanceProfile": deleteProfile, "AddRoleToInstanceProfile": addRole, "RemoveRoleFromInstanceProfile": removeRole,
		"ListInstanceProfilesForRole": profilesOfRole,
	}
	for _, k := range []struct{ kind, action, param, list string }{
		{"role", "Role", "RoleName", "Roles"}, {"instance-profile", "InstanceProfile", "InstanceProfileName", "InstanceProfiles"}, {"policy", "Policy", "PolicyArn", "Policies"},
	} {
		all["Get"+k.action] = func(q *call) doc { return doc{k.action: q.get(k.kind, q.str(k.param))} }
		all["List"+k.list] = func(q *call) doc {
			found := []*resource{}
			for r := range q.of(k.kind) {
				if strings.HasPrefix(r.str("Path"), q.or("PathPrefix", "/")) {
					found = append(found, r)
				}
			}
			return q.marked(k.list, found)
		}
		all["Tag"+k.action] = func(q *call) doc { q.get(k.kind, q.str(k.param)).setTags(q.each("Tags")); return doc{} }
		all["Untag"+k.action] = func(q *call) doc {
			for _, key := range q.strs("TagKeys") {
				delete(q.get(k.kind, q.str(k.param)).tags, key)
			}
			return doc{}
		}
		all["List"+k.action+"Tags"] = func(q *call) doc {
			return doc{"Tags": q.get(k.kind, q.str(k.param)).tagList(), "IsTruncated": false}
		}
	}
	return all
}

// document is a policy of the request, as answers have it.
func (q *call) document(name string) string {
	var p struct {
		Version   string
		Statement any
	}
	if err := json.Unmarshal([]byte(q.str(name)), &p); err != nil || p.Statement == nil {
		fail("MalformedPolicyDocument", "Syntax errors in policy: %v", err)
	}
	return url.QueryEscape(q.str(name))
}

// addNamed makes a thing with a name and a path.
func (q *call) addNamed(kindName, name, idPrefix string, d doc) *resource {
	k := kindOf(kindName)
	id, path := q.str(name), q.or("Path", "/")
	d["Path"], d["CreateDate"], d["Arn"] = path, now(), "arn:"+q.Partition+":iam::"+q.Account+":"+kindName+path+id
	if kindName == "policy" {
		id = d["Arn"].(string)
	}
	if id == "" {
		fail("ValidationError", "%s must be given", name)
	}
	if q.find(kindName, id) != nil {
		fail("EntityAlreadyExists", "%s with name %s already exists.", kindName, q.str(name))
	}
	q.limit(kindName, 1000, len(slices.Collect(q.of(kindName))), "LimitExceeded")
	r := q.put(k, id, d)
	d[idPrefix] = strings.ToUpper(newID("AIDA", 9))[:21]
	r.setTags(q.each("Tags"))
	return r
}

func createRole(q *call) doc {
	return doc{"Role": q.addNamed("role", "RoleName", "RoleId", doc{"AssumeRolePolicyDocument": q.document("AssumeRolePolicyDocument"), "Description": q.str("Description"),
		"MaxSessionDuration": q.num("MaxSessionDuration", 3600)})}
}

func (q *call) role() *resource { return q.get("role", q.str("RoleName")) }

// Policies of a role are among its attrs: inline ones by name, attached ones by ARN.
const inline, attached = "inline ", "attached "

func (r *resource) policies(how string) (names []string) {
	for _, k := range slices.Sorted(maps.Keys(r.attrs)) {
		if name, ok := strings.CutPrefix(k, how); ok {
			names = append(names, name)
		}
	}
	return names
}

func deleteRole(q *call) doc {
	r := q.role()
	switch {
	case len(q.with("instance-profile", "Roles.RoleName", r.id)) > 0:
		fail("DeleteConflict", "Cannot delete entity, must remove roles from instance profile first.")
	case len(r.policies(inline)) > 0:
		fail("DeleteConflict", "Cannot delete entity, must delete policies first.")
	case len(r.policies(attached)) > 0:
		fail("DeleteConflict", "Cannot delete entity, must detach all policies first.")
	}
	q.c.remove(r)
	return doc{}
}

func updateTrust(q *call) doc {
	q.role().doc["AssumeRolePolicyDocument"] = q.document("PolicyDocument")
	return doc{}
}

func putRolePolicy(q *call) doc {
	text := q.document("PolicyDocument")
	if len(q.str("PolicyDocument")) > 10240 {
		fail("LimitExceeded", "Maximum policy size of 10240 bytes exceeded for role %s", q.str("RoleName"))
	}
	q.role().attrs[inline+q.str("PolicyName")] = text
	return doc{}
}

// inlinePolicy is the document of a role's policy.
func (q *call) inlinePolicy() (r *resource, text string) {
	r = q.role()
	text = r.attrs[inline+q.str("PolicyName")]
	if text == "" {
		fail("NoSuchEntity", "The role policy with name %s cannot be found.", q.str("PolicyName"))
	}
	return r, text
}

func getRolePolicy(q *call) doc {
	r, text := q.inlinePolicy()
	return doc{"RoleName": r.id, "PolicyName": q.str("PolicyName"), "PolicyDocument": text}
}

func deleteRolePolicy(q *call) doc {
	r, _ := q.inlinePolicy()
	delete(r.attrs, inline+q.str("PolicyName"))
	return doc{}
}

func listRolePolicies(q *call) doc {
	return doc{"PolicyNames": q.role().policies(inline), "IsTruncated": false}
}

// Policies of AWS's own are known by this.
const managedByAWS = "arn:aws:iam::aws:policy/"

func attachRolePolicy(q *call) doc {
	r, arn := q.role(), q.str("PolicyArn")
	if !strings.HasPrefix(arn, managedByAWS) {
		q.get("policy", arn)
	}
	q.limit("attached", 10, len(r.policies(attached)), "LimitExceeded")
	r.attrs[attached+arn] = arn[strings.LastIndex(arn, "/")+1:]
	return doc{}
}

func detachRolePolicy(q *call) doc {
	r, arn := q.role(), q.str("PolicyArn")
	if r.attrs[attached+arn] == "" {
		fail("NoSuchEntity", "Policy %s was not found.", arn)
	}
	delete(r.attrs, attached+arn)
	return doc{}
}

func listAttached(q *call) doc {
	r := q.role()
	all := []doc{}
	for _, arn := range r.policies(attached) {
		all = append(all, doc{"PolicyArn": arn, "PolicyName": r.attrs[attached+arn]})
	}
	return doc{"AttachedPolicies": all, "IsTruncated": false}
}

func createPolicy(q *call) doc {
	text := q.document("PolicyDocument")
	p := q.addNamed("policy", "PolicyName", "PolicyId", doc{"PolicyName": q.str("PolicyName"), "DefaultVersionId": "v1", "IsAttachable": true, "Description": q.str("Description")})
	p.attrs["document"] = text
	p.show = func() doc { return doc{"AttachmentCount": len(q.attachedTo(p.id))} }
	return doc{"Policy": p}
}

func (q *call) attachedTo(policy string) (roles []string) {
	for r := range q.of("role") {
		if r.attrs[attached+policy] != "" {
			roles = append(roles, r.id)
		}
	}
	return roles
}

func deletePolicy(q *call) doc {
	p := q.get("policy", q.str("PolicyArn"))
	if len(q.attachedTo(p.id)) > 0 {
		fail("DeleteConflict", "Cannot delete a policy attached to entities.")
	}
	q.c.remove(p)
	return doc{}
}

func getPolicyVersion(q *call) doc {
	p := q.get("policy", q.str("PolicyArn"))
	return doc{"PolicyVersion": doc{"VersionId": "v1", "IsDefaultVersion": true, "Document": p.attrs["document"], "CreateDate": p.doc["CreateDate"]}}
}

func createProfile(q *call) doc {
	return doc{"InstanceProfile": q.addNamed("instance-profile", "InstanceProfileName", "InstanceProfileId", doc{"Roles": []doc{}})}
}

func (q *call) profileNamed() *resource {
	return q.get("instance-profile", q.str("InstanceProfileName"))
}

func deleteProfile(q *call) doc {
	p := q.profileNamed()
	if len(p.doc["Roles"].([]doc)) > 0 {
		fail("DeleteConflict", "Cannot delete entity, must remove roles from instance profile first.")
	}
	q.c.remove(p)
	return doc{}
}

func addRole(q *call) doc {
	p, r := q.profileNamed(), q.role()
	if len(p.doc["Roles"].([]doc)) > 0 {
		fail("LimitExceeded", "Cannot exceed quota for InstanceSessionsPerInstanceProfile: 1")
	}
	p.doc["Roles"] = []doc{r.shown()}
	p.attrs["lag"] = strings.Repeat("x", q.c.options.Lag) // EC2 sees it later than IAM
	return doc{}
}

func removeRole(q *call) doc {
	p := q.profileNamed()
	if !p.is("Roles.RoleName", q.str("RoleName")) {
		fail("NoSuchEntity", "Role %s cannot be found in the instance profile.", q.str("RoleName"))
	}
	p.doc["Roles"] = []doc{}
	return doc{}
}

func profilesOfRole(q *call) doc {
	return q.marked("InstanceProfiles", q.with("instance-profile", "Roles.RoleName", q.role().id))
}

// profile is the instance profile that an instance is to have, as EC2 shows it.
func (q *call) profile() doc {
	name := q.str("IamInstanceProfile.Name")
	if arn := q.str("IamInstanceProfile.Arn"); arn != "" {
		name = arn[strings.LastIndex(arn, "/")+1:]
	}
	if name == "" {
		return nil
	}
	global := &call{params: q.params, c: q.c, Call: q.Call}
	global.Region = ""
	p := global.find("instance-profile", name)
	if p == nil || p.attrs["lag"] != "" {
		if p != nil {
			p.attrs["lag"] = p.attrs["lag"][1:]
		}
		fail("InvalidParameterValue", "Value (%s) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name", name)
	}
	if len(p.doc["Roles"].([]doc)) == 0 {
		fail("InvalidParameterValue", "IAM Instance Profile \"%s\" has no associated IAM Roles", p.str("Arn"))
	}
	return doc{"arn": p.str("Arn"), "id": p.str("InstanceProfileId")}
}
