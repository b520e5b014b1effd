package aws

import (
	"crypto/md5"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/crypto/ssh"
)

// sameKey refuses a key pair whose private half is not the file with which we would log in. A file that is there and can't be read is believed: an agent may
// have the key.
func (a *Cloud) sameKey(k ec2types.KeyPairInfo) error {
	is := strings.TrimRight(sdk.ToString(k.KeyFingerprint), "=")
	all := fingerprints(a.keyFile())
	if len(all) == 0 || slices.Contains(all, is) {
		return nil
	}
	const other = "%s in AWS is of another key than %s, as its fingerprint %s shows: nobody could log in: "
	if a.aws.SSH.KeyName != "" {
		return wrong("ssh.identityFile", other+"name the key pair's own private key", sdk.ToString(k.KeyName), a.keyFile(), is)
	}
	return fmt.Errorf(other+"copy that file from where the cluster was made", sdk.ToString(k.KeyName), a.keyFile(), is)
}

// fingerprints are what AWS may call the key in a file, by what it is and by who has made it; none: the file can't be read, or is no
// key, or one that shows too little without its passphrase.
func fingerprints(path string) []string {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var public ssh.PublicKey
	private, err := ssh.ParseRawPrivateKey(b)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		public = locked.PublicKey
	} else if signer, e := ssh.NewSignerFromKey(private); err == nil && e == nil {
		public = signer.PublicKey()
	} else { // whose other half an agent has
		public, _, _, _, _ = ssh.ParseAuthorizedKey(b)
	}
	if public == nil {
		return nil
	}
	if public.Type() != ssh.KeyAlgoRSA {
		return []string{strings.TrimPrefix(ssh.FingerprintSHA256(public), "SHA256:")}
	}
	key, ok := private.(*rsa.PrivateKey)
	if !ok { // behind a passphrase, or with an agent
		return nil
	}
	imported, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	made, e := x509.MarshalPKCS8PrivateKey(key) // by AWS
	if errors.Join(err, e) != nil {
		return nil
	}
	m, s := md5.Sum(imported), sha1.Sum(made)
	return []string{ssh.FingerprintLegacyMD5(public), colons(m[:]), colons(s[:])} // the first is that of RFC 4716, which AWS names and does not mean
}

// atHome is a path that may begin with ~/, and have variables in braces.
func atHome(path string) string {
	if strings.Contains(path, "${") {
		path = os.ExpandEnv(path)
	}
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	return path
}

func colons(sum []byte) string { return strings.ReplaceAll(fmt.Sprintf("% x", sum), " ", ":") }
