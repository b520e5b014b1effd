package aws

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/crypto/ssh"
)

// keyFile is the private key with which the machines are reached, from the root: ssh reads its name elsewhere, too.
func (a *Cloud) keyFile() string {
	f := a.aws.SSH.IdentityFile
	if f == "" {
		return filepath.Join(a.dir, "id_ed25519")
	}
	whole, _ := filepath.Abs(atHome(f))
	return cmp.Or(whole, f)
}

// knownHosts is where the keys of the cluster's machines are noted, as they are first seen.
func (a *Cloud) knownHosts() string { return filepath.Join(a.dir, "known_hosts") }

func (a *Cloud) ownKeyName() string { return a.named(255, "key") }
func (a *Cloud) keyName() string    { return cmp.Or(a.aws.SSH.KeyName, a.ownKeyName()) }

// key is the key pair that machines are launched with.
func (a *Cloud) key(ctx context.Context, l *look) *resource {
	if n := a.aws.SSH.KeyName; n != "" {
		r := &resource{kind: "key-pair", name: n}
		r.find = func() (string, []string, error) {
			out, err := a.ec2.DescribeKeyPairs(ctx, &ec2.DescribeKeyPairsInput{KeyNames: []string{n}})
			if codeOf(err) == "InvalidKeyPair.NotFound" || err == nil && len(out.KeyPairs) == 0 {
				err = wrong("ssh.keyName", "%s has no key pair %s: write another, or neither keyName nor identityFile, and a key is made", a.region, n)
			}
			if err != nil {
				return "", nil, err
			}
			return n, nil, a.sameKey(out.KeyPairs[0])
		}
		return r
	}
	name := a.ownKeyName()
	r := &resource{kind: "key-pair", name: name, detail: a.keyFile()}
	r.find = func() (string, []string, error) {
		all, err := l.keys()
		if err != nil {
			return "", nil, err
		}
		for _, k := range all {
			if sdk.ToString(k.KeyName) != name {
				continue
			}
			if _, err := os.Stat(a.keyFile()); errors.Is(err, fs.ErrNotExist) {
				return "", nil, a.keyLost()
			}
			return sdk.ToString(k.KeyPairId), nil, a.sameKey(k)
		}
		return "", nil, nil
	}
	r.create = func(ctx context.Context) (string, error) {
		public, err := makeKey(a.keyFile(), name)
		if err != nil {
			return "", err
		}
		out, err := a.ec2.ImportKeyPair(ctx, &ec2.ImportKeyPairInput{KeyName: &name, PublicKeyMaterial: public, TagSpecifications: a.specified(ec2types.ResourceTypeKeyPair, "key")})
		if codeOf(err) == "InvalidKeyPair.Duplicate" {
			return a.importedKey(ctx, name)
		}
		if err != nil {
			return "", err
		}
		return sdk.ToString(out.KeyPairId), nil
	}
	return r
}

// importedKey is one that a run that was cut short has imported, of which the list has not told yet.
func (a *Cloud) importedKey(ctx context.Context, name string) (string, error) {
	out, err := a.ec2.DescribeKeyPairs(ctx, &ec2.DescribeKeyPairsInput{KeyNames: []string{name}})
	if err != nil {
		return "", err
	}
	if len(out.KeyPairs) == 0 || tagOf(out.KeyPairs[0].Tags, clusterTag) != a.name {
		return "", notOurs("key pair", name, a.name)
	}
	return sdk.ToString(out.KeyPairs[0].KeyPairId), a.sameKey(out.KeyPairs[0])
}

func (a *Cloud) keyLost() error {
	return fmt.Errorf("the private key of the cluster's machines is not here: copy %s from where the cluster was made", a.keyFile())
}

// makeKey makes a private key, if there is none, and gives its public half as ssh has it.
func makeKey(path, comment string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		_, private, e := ed25519.GenerateKey(rand.Reader)
		if e != nil {
			return nil, e
		}
		block, e := ssh.MarshalPrivateKey(private, comment)
		if e != nil {
			return nil, e
		}
		b = pem.EncodeToMemory(block)
		err = writeNew(path, b)
	}
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: move it away, and another is made", path, err)
	}
	return ssh.MarshalAuthorizedKey(signer.PublicKey()), nil
}

// writeNew writes a secret whole, or not at all, and never over another.
func writeNew(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), path)
}
