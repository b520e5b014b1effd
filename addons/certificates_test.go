package addons

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const keyText = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

func TestCertificatesComeOutAsTheyWentIn(t *testing.T) {
	key, err := ParseCertificateKey(keyText)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"ca.crt": []byte("certificate"), "ca.key": []byte("key"), "etcd-ca.key": nil}
	owner := CertificatesToken(time.Now().Add(CertificatesTTL))
	owner.SetUID("the-uid")
	secret := CertificatesSecret(key, owner, files)
	data := secret.Object["data"].(map[string]any)
	if v, ok := data["etcd-ca.key"]; !ok || v != "" {
		t.Errorf("what there is not must be an empty value, for kubeadm: %v", data)
	}
	got, err := Certificates(key, secret)
	want := maps.Clone(files)
	delete(want, "etcd-ca.key")
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if o := secret.GetOwnerReferences(); len(o) != 1 || o[0].Kind != "Secret" || o[0].Name != owner.GetName() || o[0].UID != "the-uid" || !*o[0].Controller {
		t.Errorf("owned by %v", o)
	}
	if again := CertificatesSecret(key, owner, files); cmp.Equal(again, secret) {
		t.Error("the same nonce twice")
	}
	if _, err := Certificates(NewCertificateKey(), secret); err == nil || !strings.Contains(err.Error(), "is not the one") {
		t.Errorf("another key: %v", err)
	}
	data["ca.crt"] = "AAAA"
	if _, err := Certificates(key, secret); err == nil || !strings.Contains(err.Error(), "ca.crt is too short") {
		t.Errorf("cut short: %v", err)
	}
}

func TestACertificateKeyHidesItself(t *testing.T) {
	key, err := ParseCertificateKey(keyText)
	if err != nil {
		t.Fatal(err)
	}
	inside := struct {
		Key    CertificateKey
		hidden CertificateKey
	}{key, key}
	j, err := json.Marshal(inside)
	if err != nil {
		t.Fatal(err)
	}
	for _, printed := range []string{fmt.Sprint(key), fmt.Sprintf("%v %+v %#v", inside, inside, inside), string(j)} {
		if strings.Contains(printed, keyText[:8]) || strings.Contains(printed, "17, 34") || strings.Contains(printed, "17 34") {
			t.Errorf("printed as %s", printed)
		}
	}
	if key.Reveal() != keyText {
		t.Errorf("revealed as %s", key.Reveal())
	}
	for _, bad := range []string{"", keyText[1:], keyText + "00", "x" + keyText[1:]} {
		if _, err := ParseCertificateKey(bad); err == nil || strings.Contains(err.Error(), "0011") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
