package cloud

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// What an instance's role may do is what its policies say, as far as the stand-in reads them: actions, resources, and
// conditions on tags and on what is created. A condition of another kind is not met. Users may do everything.

// wish is one right that a call needs.
type wish struct {
	action, resource string
	context          map[string][]string // of conditions
}

// words is a string or a list of them.
type words []string

func (w *words) UnmarshalJSON(b []byte) error {
	var one string
	if err := json.Unmarshal(b, &one); err == nil {
		*w = words{one}
		return nil
	}
	var many []string
	err := json.Unmarshal(b, &many)
	*w = many
	return err
}

type statement struct {
	Effect           string
	Action, Resource words
	Condition        map[string]map[string]words
}

// authorizeRole fails if the caller is a role that may not do this.
func (q *call) authorizeRole() {
	if q.caller.Role == "" || q.Action == "GetCallerIdentity" {
		return
	}
	statements, everything := q.statements()
	for _, w := range q.wishes() {
		allowed := everything
		for _, s := range statements {
			if !s.covers(w) {
				continue
			}
			if allowed = s.Effect == "Allow"; !allowed {
				break
			}
		}
		if !allowed {
			code := "AccessDenied"
			if q.Service == "ec2" {
				code = "UnauthorizedOperation"
			}
			panic(&Error{code, fmt.Sprintf("User: %s is not authorized to perform: %s on resource: %s because no identity-based policy allows the %s action",
				q.caller.ARN, w.action, w.resource, w.action), http.StatusForbidden})
		}
	}
}

// statements are those of the role's policies, refusals last. What AWS's own policies say is not known here: they allow everything.
func (q *call) statements() (all []statement, everything bool) {
	global := q.c.on(&resource{home: q.Account + "/"})
	role := global.find("role", q.caller.Role)
	if role == nil {
		return nil, false
	}
	texts := []string{}
	for _, name := range role.policies(inline) {
		texts = append(texts, role.attrs[inline+name])
	}
	for _, arn := range role.policies(attached) {
		if strings.HasPrefix(arn, managedByAWS) {
			everything = true
		} else if p := global.find("policy", arn); p != nil {
			texts = append(texts, p.attrs["document"])
		}
	}
	for _, text := range texts {
		var p struct{ Statement []statement }
		plain, err := url.QueryUnescape(text)
		if err == nil {
			err = json.Unmarshal([]byte(plain), &p)
		}
		if err != nil {
			fail("MalformedPolicyDocument", "the stand-in cannot read a policy of role %s: %v", role.id, err)
		}
		all = append(all, p.Statement...)
	}
	slices.SortStableFunc(all, func(a, b statement) int { return strings.Compare(a.Effect, b.Effect) }) // Allow, Deny
	return all, everything
}

func (s statement) covers(w wish) bool {
	if !anyLike(s.Action, w.action) || !anyLike(s.Resource, w.resource) {
		return false
	}
	for operator, keys := range s.Condition {
		for key, want := range keys {
			have := w.context[strings.ToLower(key)]
			var met bool
			switch operator {
			case "StringEquals":
				met = slices.ContainsFunc(have, func(v string) bool { return slices.Contains(want, v) })
			case "StringLike":
				met = slices.ContainsFunc(have, func(v string) bool { return anyLike(want, v) })
			case "Null":
				met = slices.Equal(want, []string{fmt.Sprint(len(have) == 0)})
			}
			if !met {
				return false
			}
		}
	}
	return true
}

func anyLike(patterns []string, v string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		quoted := strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(p))
		return regexp.MustCompile("(?i)^" + quoted + "$").MatchString(v)
	})
}

// made is what a creation is asked for in the name of: the resource's ARN behind the account.
var made = map[string]string{
	"CreateLoadBalancer": "loadbalancer/net/NAME/*", "CreateTargetGroup": "targetgroup/NAME/*", "CreateVolume": "volume/*", "CreateSecurityGroup": "security-group/*",
	"CreateNetworkInterface": "network-interface/*", "RunInstances": "instance/*",
}

// wishes are the rights that a call needs: its action on each resource that it is about, and tagging if it creates with
// tags. To list needs a right to everything.
func (q *call) wishes() (all []wish) {
	action := q.Service + ":" + q.Action
	tags := map[string][]string{}
	for _, t := range append(q.each("Tags"), q.each("TagSpecification.1.Tag")...) {
		tags["aws:requesttag/"+strings.ToLower(t.str("Key"))] = []string{t.str("Value")}
	}
	if strings.HasPrefix(q.Action, "Describe") || strings.HasPrefix(q.Action, "Get") || strings.HasPrefix(q.Action, "List") {
		return []wish{{action, "*", tags}}
	}
	if what := made[q.Action]; what != "" {
		arn := q.arn(q.Service, strings.Replace(what, "NAME", q.str("Name"), 1))
		all = append(all, wish{action, arn, tags})
	} else {
		for _, r := range q.about() {
			context := map[string][]string{}
			for k, v := range tags {
				context[k] = v
			}
			for k, v := range r.tags {
				context["aws:resourcetag/"+strings.ToLower(k)] = []string{v}
				context["ec2:resourcetag/"+strings.ToLower(k)] = []string{v}
			}
			all = append(all, wish{action, q.arnOf(r), context})
		}
	}
	if len(tags) > 0 && strings.HasPrefix(q.Action, "Create") && q.Action != "CreateTags" {
		tags[q.Service+":createaction"] = []string{q.Action}
		tagging := map[string]string{"ec2": "ec2:CreateTags"}[q.Service]
		if tagging == "" {
			tagging = q.Service + ":AddTags"
		}
		arn := q.arn(q.Service, strings.ReplaceAll(made[q.Action], "NAME", q.str("Name")))
		if q.Action == "CreateListener" {
			arn = strings.Replace(q.str("LoadBalancerArn"), ":loadbalancer/", ":listener/", 1) + "/*"
		}
		all = append(all, wish{tagging, arn, tags})
	}
	if len(all) == 0 {
		all = []wish{{action, "*", tags}}
	}
	return all
}

// about are the resources that a change is about.
func (q *call) about() (all []*resource) {
	var ids []string
	for _, name := range []string{"LoadBalancerArn", "TargetGroupArn", "ListenerArn", "GroupId", "InstanceId", "VolumeId", "NetworkInterfaceId", "RouteTableId", "SubnetId", "VpcId"} {
		ids = append(ids, q.str(name))
	}
	for _, name := range []string{"ResourceArns", "ResourceId", "InstanceId"} {
		ids = append(ids, q.strs(name)...)
	}
	for _, r := range q.c.all {
		if r.home == q.home() && slices.Contains(ids, r.id) {
			all = append(all, r)
		}
	}
	return all
}

func (q *call) arnOf(r *resource) string {
	if strings.HasPrefix(r.id, "arn:") {
		return r.id
	}
	return q.arn("ec2", r.name+"/"+r.id)
}
