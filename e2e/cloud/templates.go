package cloud

import (
	"crypto"
	"crypto/ed25519"
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
)

var templateActions = map[string]func(*call) doc{
	"CreateKeyPair": createKeyPair, "ImportKeyPair": importKeyPair, "DeleteKeyPair": deleteKeyPair, "DescribeKeyPairs": describeKeyPairs,
	"CreateLaunchTemplate": createTemplate, "CreateLaunchTemplateVersion": createTemplateVersion, "DeleteLaunchTemplate": deleteTemplate, "ModifyLaunchTemplate": modifyTemplate,
	"DescribeLaunchTemplates": describeTemplates, "DescribeLaunchTemplateVersions": describeTemplateVersions,
}

// keyPair is the one of that name.
func (q *call) keyPair(name string) *resource {
	for _, k := range q.with("key-pair", "keyName", name) {
		if k.seen() {
			return k
		}
	}
	fail("InvalidKeyPair.NotFound", "The key pair '%s' does not exist", name)
	return nil
}

func (q *call) addKeyPair(public ssh.PublicKey, kind string) *resource {
	name := q.str("KeyName")
	if name == "" {
		fail("MissingParameter", "The request must contain the parameter KeyName")
	}
	if len(q.with("key-pair", "keyName", name)) > 0 {
		fail("InvalidKeyPair.Duplicate", "The keypair already exists")
	}
	k := q.add("key-pair", doc{"keyName": name, "keyType": kind, "createTime": now(), "keyFingerprint": fingerprint(public)})
	k.attrs["public"] = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))
	return k
}

// createKeyPair makes an RSA key unless it is told otherwise.
func createKeyPair(q *call) doc {
	kind := q.or("KeyType", "rsa")
	var private crypto.Signer
	var err error
	if kind == "ed25519" {
		_, private, err = ed25519.GenerateKey(nil)
	} else {
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		panic(err)
	}
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		panic(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		panic(err)
	}
	k := q.addKeyPair(public, kind)
	if kind == "rsa" { // that of one who made it, which is of the private key
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			panic(err)
		}
		sum := sha1.Sum(der)
		k.doc["keyFingerprint"] = colons(sum[:])
	}
	d := k.shown()
	d["keyMaterial"] = string(pem.EncodeToMemory(block))
	return d
}

func importKeyPair(q *call) doc {
	text, err := base64.StdEncoding.DecodeString(q.str("PublicKeyMaterial"))
	if err != nil {
		fail("InvalidKey.Format", "Key is not in valid OpenSSH public key format")
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil || public.Type() != ssh.KeyAlgoED25519 && public.Type() != ssh.KeyAlgoRSA {
		fail("InvalidKey.Format", "Key is not in valid OpenSSH public key format")
	}
	return q.addKeyPair(public, map[string]string{ssh.KeyAlgoRSA: "rsa", ssh.KeyAlgoED25519: "ed25519"}[public.Type()]).shown()
}

// fingerprint is that of a key that is imported: of RSA the MD5 of its DER, whatever the documentation says of RFC 4716.
func fingerprint(public ssh.PublicKey) string {
	if public.Type() != ssh.KeyAlgoRSA {
		sum := sha256.Sum256(public.Marshal())
		return base64.StdEncoding.EncodeToString(sum[:])
	}
	der, err := x509.MarshalPKIXPublicKey(public.(ssh.CryptoPublicKey).CryptoPublicKey())
	if err != nil {
		panic(err)
	}
	sum := md5.Sum(der)
	return colons(sum[:])
}

func colons(sum []byte) string { return strings.ReplaceAll(fmt.Sprintf("% x", sum), " ", ":") }

// deleteKeyPair deletes one that is not there, too.
func deleteKeyPair(q *call) doc {
	for r := range q.of("key-pair") {
		if r.id == q.str("KeyPairId") || r.is("keyName", q.str("KeyName")) {
			q.c.remove(r)
		}
	}
	return doc{"return": true, "keyPairId": q.str("KeyPairId")}
}

func describeKeyPairs(q *call) doc {
	for _, name := range q.strs("KeyName") {
		q.keyPair(name)
	}
	answer := q.describe(kindOf("key-pair"))
	all := []doc{}
	for _, k := range answer["keySet"].([]*resource) {
		if names := q.strs("KeyName"); len(names) > 0 && !slices.Contains(names, k.str("keyName")) {
			continue
		}
		d := k.shown()
		if q.yes("IncludePublicKey") {
			d["publicKey"] = k.attrs["public"]
		}
		all = append(all, d)
	}
	answer["keySet"] = all
	return answer
}

// template is the one that is named by LaunchTemplateId or LaunchTemplateName.
func (q *call) template(p params) *resource {
	q.noted("LaunchTemplateId")
	q.noted("LaunchTemplateName")
	if id := p.str("LaunchTemplateId"); id != "" {
		return q.get("launch-template", id)
	}
	for _, t := range q.with("launch-template", "launchTemplateName", p.str("LaunchTemplateName")) {
		if t.seen() {
			return t
		}
	}
	fail("InvalidLaunchTemplateName.NotFoundException", "The specified launch template, with template name %s, does not exist.", p.str("LaunchTemplateName"))
	return nil
}

func createTemplate(q *call) doc {
	name := q.str("LaunchTemplateName")
	if len(q.with("launch-template", "launchTemplateName", name)) > 0 {
		fail("InvalidLaunchTemplateName.AlreadyExistsException", "Launch template name already in use.")
	}
	if len(name) < 3 || len(name) > 128 {
		fail("InvalidLaunchTemplateName.MalformedException", "A launch template name must be between 3 and 128 characters")
	}
	t := q.add("launch-template", doc{"launchTemplateName": name, "createTime": now(), "createdBy": q.arn("iam", "user/test"), "defaultVersionNumber": 1, "latestVersionNumber": 0})
	q.addVersion(t)
	return doc{"launchTemplate": t}
}

// addVersion keeps the data of the request as the newest version: what is kept is parameters, as RunInstances takes them.
func (q *call) addVersion(t *resource) doc {
	data := q.under("LaunchTemplateData")
	if len(data) == 0 {
		fail("MissingParameter", "The request must contain the parameter LaunchTemplateData")
	}
	n := t.doc["latestVersionNumber"].(int) + 1
	if t.config == nil {
		t.config = params{}
	}
	for k, v := range data {
		t.config[fmt.Sprint(n, ".", k)] = v
	}
	t.doc["latestVersionNumber"] = n
	return q.showVersion(t, n)
}

func (q *call) showVersion(t *resource, n int) doc {
	return doc{"launchTemplateId": t.id, "launchTemplateName": t.str("launchTemplateName"), "versionNumber": n, "createTime": t.doc["createTime"],
		"defaultVersion": t.doc["defaultVersionNumber"] == n, "launchTemplateData": t.config.under(fmt.Sprint(n)).tree()}
}

func createTemplateVersion(q *call) doc {
	return doc{"launchTemplateVersion": q.addVersion(q.template(q.params))}
}

func deleteTemplate(q *call) doc {
	t := q.template(q.params)
	q.c.remove(t)
	return doc{"launchTemplate": t}
}

func modifyTemplate(q *call) doc {
	t := q.template(q.params)
	if v := q.str("SetDefaultVersion"); v != "" {
		t.doc["defaultVersionNumber"] = t.version(v)
	}
	return doc{"launchTemplate": t}
}

// version is the number for "3", "$Latest", "$Default" or nothing.
func (r *resource) version(v string) int {
	latest := r.doc["latestVersionNumber"].(int)
	switch v {
	case "$Latest":
		return latest
	case "", "$Default":
		return r.doc["defaultVersionNumber"].(int)
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > latest {
		fail("InvalidLaunchTemplateId.VersionNotFound", "Could not find launch template version %s", v)
	}
	return n
}

func describeTemplates(q *call) doc {
	if names := q.strs("LaunchTemplateName"); len(names) > 0 {
		found := []*resource{}
		for _, name := range names {
			found = append(found, q.template(params{"LaunchTemplateName": {name}}))
		}
		return q.page("launchTemplates", found, false)
	}
	return q.describe(kindOf("launch-template"))
}

func describeTemplateVersions(q *call) doc {
	t := q.template(q.params)
	all := []doc{}
	for n := 1; n <= t.doc["latestVersionNumber"].(int); n++ {
		if wanted := q.strs("LaunchTemplateVersion"); len(wanted) == 0 || slices.ContainsFunc(wanted, func(v string) bool { return t.version(v) == n }) {
			all = append(all, q.showVersion(t, n))
		}
	}
	return doc{"launchTemplateVersionSet": all}
}

// withTemplate adds what the launch template says and the request does not.
func (q *call) withTemplate() {
	if !q.has("LaunchTemplate") {
		return
	}
	p := q.under("LaunchTemplate")
	t := q.template(p)
	first := func(k string) string { f, _, _ := strings.Cut(k, "."); return f }
	said := map[string]bool{}
	q.params = maps.Clone(q.params)
	for k := range q.params {
		said[first(k)] = true
	}
	for k, v := range t.config.under(fmt.Sprint(t.version(p.str("Version")))) {
		if !said[first(k)] {
			q.params[k] = v
		}
	}
}

// Lists have other names in answers than in requests.
var listNames = map[string]string{"SecurityGroupId": "securityGroupIdSet", "Tag": "tagSet"}

// tree is the parameters as an answer has them.
func (p params) tree() doc {
	d := doc{}
	for k := range p {
		name, rest, nested := strings.Cut(k, ".")
		element := strings.ToLower(name[:1]) + name[1:]
		if !nested {
			d[element] = p.str(k)
			continue
		}
		if rest[0] < '0' || rest[0] > '9' {
			d[element] = p.under(name).tree()
			continue
		}
		set := listNames[name]
		if set == "" {
			set = element + "Set"
		}
		if values := p.strs(name); len(values) > 0 {
			if name == "SecurityGroupId" && p.has("DeviceIndex") {
				d["groupSet"] = named{"groupId", values}
				continue
			}
			d[set] = values
			continue
		}
		list := []doc{}
		for _, sub := range p.each(name) {
			list = append(list, sub.tree())
		}
		d[set] = list
	}
	return d
}
