package cloud

import (
	"maps"
	"slices"
	"strings"
)

const tagLimit = 50

// setTags adds to the tags, or changes them: each has Key and Value.
func (r *resource) setTags(tags []params) {
	all := maps.Clone(r.tags)
	for _, t := range tags {
		key := t.str("Key")
		if key == "" || len(key) > 128 || len(t.str("Value")) > 256 || strings.HasPrefix(key, "aws:") {
			fail("InvalidParameterValue", "Tag key '%s' is invalid: 1 to 128 characters, not beginning with aws:, and values of up to 256", key)
		}
		all[key] = t.str("Value")
	}
	if len(all) > tagLimit {
		fail("TagLimitExceeded", "The maximum number of tags of %s, %d, has been reached", r.id, tagLimit)
	}
	r.tags = all
}

// tagList is how tags are shown. EC2 begins names with small letters, the other services with capitals.
func (r *resource) tagList() []doc {
	list := []doc{}
	for _, k := range slices.Sorted(maps.Keys(r.tags)) {
		if r.tagElement == "tagSet" {
			list = append(list, doc{"key": k, "value": r.tags[k]})
		} else {
			list = append(list, doc{"Key": k, "Value": r.tags[k]})
		}
	}
	return list
}

// tagged are the resources of a CreateTags or DeleteTags, of any kind.
func (q *call) tagged() (all []*resource) {
	for _, id := range q.strs("ResourceId") {
		i := slices.IndexFunc(q.c.all, func(r *resource) bool { return r.id == id && r.home == q.home() })
		if i >= 0 && q.c.all[i].seen() {
			all = append(all, q.c.all[i])
			continue
		}
		prefix, _, _ := strings.Cut(id, "-")
		for _, k := range kinds {
			if k.prefix == prefix {
				fail(k.missing, "The %s ID '%s' does not exist", k.name, id)
			}
		}
		fail("InvalidID", "The ID '%s' is not valid", id)
	}
	return all
}

func createTags(q *call) doc {
	for _, r := range q.tagged() {
		r.setTags(q.each("Tag"))
	}
	return doc{"return": true}
}

func deleteTags(q *call) doc {
	for _, r := range q.tagged() {
		all := r.tags
		for _, t := range q.each("Tag") {
			if _, has := t["Value"]; !has || all[t.str("Key")] == t.str("Value") {
				delete(all, t.str("Key"))
			}
		}
		if len(q.each("Tag")) == 0 {
			clear(all)
		}
	}
	return doc{"return": true}
}

var tagKind = kind{name: "tag", set: "tagSet", filters: "key resource-id resource-type value"}

func describeTags(q *call) doc {
	filters := q.filters(&tagKind)
	var found []*resource
	for _, r := range q.c.all {
		if r.home != q.home() || r.describe == "" {
			continue
		}
		for _, k := range slices.Sorted(maps.Keys(r.tags)) {
			t := &resource{kind: &tagKind, doc: doc{"key": k, "value": r.tags[k], "resourceId": r.id, "resourceType": r.name}}
			if !slices.ContainsFunc(filters, func(f func(*resource) bool) bool { return !f(t) }) {
				found = append(found, t)
			}
		}
	}
	return q.page("tagSet", found, false)
}
