package aws

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/kubewright/kubewright/e2e/cloud"
)

func TestAKeyThatWouldNotLetUsInIsRefused(t *testing.T) {
	start(t, cloud.Options{})
	a := connect(t, parse(t, small))
	files := map[string]string{}
	for _, kind := range []ec2types.KeyType{"rsa", "ed25519"} {
		made := "made-" + string(kind)
		out, err := a.ec2.CreateKeyPair(t.Context(), &ec2.CreateKeyPairInput{KeyName: &made, KeyType: kind})
		if err != nil {
			t.Fatal(err)
		}
		files[made] = filepath.Join(t.TempDir(), made)
		if err := os.WriteFile(files[made], []byte(*out.KeyMaterial), 0o600); err != nil {
			t.Fatal(err)
		}
		public, err := makeKey(files[made], "") // it is there
		if err != nil {
			t.Fatal(err)
		}
		imported := "imported-" + string(kind)
		if _, err := a.ec2.ImportKeyPair(t.Context(), &ec2.ImportKeyPairInput{KeyName: &imported, PublicKeyMaterial: public}); err != nil {
			t.Fatal(err)
		}
		files[imported] = files[made]
	}
	another := filepath.Join(t.TempDir(), "another")
	if _, err := makeKey(another, ""); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"made-rsa", "imported-rsa", "made-ed25519", "imported-ed25519"} {
		for file, fits := range map[string]bool{files[name]: true, files["made-rsa"]: name == "made-rsa" || name == "imported-rsa", another: false} {
			_, err := connect(t, parse(t, fmt.Sprintf("ssh: {keyName: %s, identityFile: %s}", name, file))).Plan(t.Context())
			if fits != (err == nil) {
				t.Errorf("%s with %s: %v", name, file, err)
			}
			if !fits {
				wants(t, err, name, "another key than "+file, "ssh.identityFile")
			}
		}
	}
	for _, none := range []string{another + "-none", "~/" + filepath.Base(t.TempDir()) + "/none"} {
		_, err := connect(t, parse(t, fmt.Sprintf("ssh: {keyName: made-rsa, identityFile: %s}", none))).Plan(t.Context())
		wants(t, err, "ssh.identityFile", "no such file")
	}
	own := connect(t, parse(t, small))
	if _, err := own.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(another, own.keyFile()); err != nil {
		t.Fatal(err)
	}
	_, err := connect(t, parse(t, small+"\nssh: {bastion: t4g.micro}")).Plan(t.Context())
	if err != nil {
		t.Errorf("nothing is to be made: %v", err)
	}
	_, err = connect(t, parse(t, "controlPlane: {count: 3}\npools: [{name: workers, count: 3}]")).Plan(t.Context())
	wants(t, err, "another key than "+own.keyFile(), "copy that file")
}
