package phases

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/pki"
)

// uploadCerts puts what all control planes share into the cluster, encrypted, for two hours.
// It is done when it is asked for, and then each time: with another key.
func uploadCerts(ctx context.Context, t *Target) error {
	if !t.UploadCerts {
		return nil
	}
	token := addons.CertificatesToken(time.Now().Add(addons.CertificatesTTL))
	if err := t.apply(ctx, append(addons.CertificatesRBAC(), token)...); err != nil {
		return err
	}
	owner, err := t.API.Until(ctx, token, func(addons.Object) bool { return true }) // the API server gives it its uid
	if err != nil {
		return err
	}
	secret := addons.CertificatesSecret(t.CertificateKey, owner, certificatesByKey(t.Secrets.Shared()))
	// One of before may have another owner, and there can be one alone.
	if err := t.API.Delete(ctx, secret); err != nil {
		return err
	}
	return t.apply(ctx, secret)
}

// certificatesByKey names files as the Secret kubeadm-certs does: etcd/ca.crt is etcd-ca.crt.
// What the cluster does not have at hand is empty.
func certificatesByKey(files map[string][]byte) map[string][]byte {
	out := map[string][]byte{}
	for _, path := range pki.SharedPaths() {
		out[certificateKeyOf(path)] = files[path]
	}
	return out
}

func certificateKeyOf(path string) string {
	return strings.ReplaceAll(strings.TrimPrefix(path, pki.Dir+"/"), "/", "-")
}

// LiveCluster is the document of the cluster whose control plane this host is.
func LiveCluster(ctx context.Context, h host.Host) (*config.Cluster, error) {
	kubeconfig, err := h.ReadFile(ctx, pki.AdminConf)
	if err != nil {
		return nil, fmt.Errorf("%w: run this as root on a control plane", err)
	}
	api, err := NewClient(h, kubeconfig)
	if err != nil {
		return nil, err
	}
	d := &Discovery{API: api}
	if err := d.read(ctx); err != nil {
		return nil, fmt.Errorf("read the cluster's document: %w", err)
	}
	return d.Cluster, nil
}

const uploadCommand = "kubewright init phase upload-certs --upload-certs"

// sharedCertificates are, by path, what this host lacks of the files that all control planes
// share: out of the cluster, where there is a key to them.
func (t *Target) sharedCertificates(ctx context.Context, key addons.CertificateKey, ca []byte) (map[string][]byte, error) {
	infos, err := t.Host.Stat(ctx, pki.SharedPaths()...)
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, path := range pki.SharedPaths() {
		if _, ok := infos[path]; !ok {
			missing = append(missing, path)
		}
	}
	if len(missing) == 0 {
		return nil, nil // of an earlier run, or copied by hand; the Secret may be gone by now
	}
	if key == (addons.CertificateKey{}) {
		if len(infos) > 0 {
			return nil, nil // pki says what can't be done without
		}
		return nil, fmt.Errorf("a control plane needs the cluster's certificates, and neither are they on this host nor was a key to them given: run `%s` on a control plane and pass the key that it prints with --certificate-key-file, or copy these files from there: %s", uploadCommand, strings.Join(missing, " "))
	}
	secret, err := t.API.Get(ctx, ref("v1", "Secret", "kube-system", addons.CertificatesName))
	if isNotFound(err) {
		return nil, fmt.Errorf("the cluster holds no certificates for control planes any more, as they are removed after %s: upload them again on a control plane with `%s`, and pass the key that it prints", addons.CertificatesTTL, uploadCommand)
	}
	if err != nil {
		return nil, fmt.Errorf("read the cluster's certificates: %w", err)
	}
	content, err := addons.Certificates(key, secret)
	if err != nil {
		return nil, fmt.Errorf("%w; upload them again on a control plane with `%s`, and pass the key that it prints", err, uploadCommand)
	}
	shared := map[string][]byte{}
	for _, path := range missing {
		if b, ok := content[certificateKeyOf(path)]; ok {
			shared[path] = b
		}
	}
	if have, ok := shared[pki.CA+".crt"]; ok && !bytes.Equal(bytes.TrimSpace(have), bytes.TrimSpace(ca)) {
		return nil, errors.New("the uploaded certificates hold another CA than cluster-info: upload them again on a control plane with `" + uploadCommand + "`")
	}
	return shared, nil
}
