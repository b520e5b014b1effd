package phases

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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
	files, err := t.certificates(ctx)
	if err != nil {
		return err
	}
	secret := addons.CertificatesSecret(t.CertificateKey, owner, files)
	// One of before may have another owner, and there can be one alone.
	if err := t.API.Delete(ctx, secret); err != nil {
		return err
	}
	return t.apply(ctx, secret)
}

// certificatePaths are the files that all control planes share, by their keys in the Secret
// kubeadm-certs: etcd/ca.crt is etcd-ca.crt.
func certificatePaths(c *config.Cluster) map[string]string {
	paths := map[string]string{}
	for _, path := range pki.SharedPaths() {
		paths[strings.ReplaceAll(strings.TrimPrefix(path, pki.Dir+"/"), "/", "-")] = path
	}
	if e := c.Spec.Etcd.External; e != nil {
		delete(paths, "etcd-ca.crt")
		delete(paths, "etcd-ca.key")
		maps.Copy(paths, map[string]string{"external-etcd-ca.crt": e.CAFile, "external-etcd.crt": e.CertFile, "external-etcd.key": e.KeyFile})
	}
	return paths
}

// certificates are the contents of the shared files, by key. What the cluster does not have
// at hand is empty.
func (t *Target) certificates(ctx context.Context) (map[string][]byte, error) {
	shared, out := t.Secrets.Shared(), map[string][]byte{}
	for key, path := range certificatePaths(t.Cluster) {
		out[key] = shared[path]
		if strings.HasPrefix(key, "external-") && path != "" {
			var err error
			if out[key], err = t.Host.ReadFile(ctx, path); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// externalEtcdFiles are what of shared, by path, an external etcd wants of its clients.
func externalEtcdFiles(c *config.Cluster, shared map[string][]byte) (files []host.File) {
	e := c.Spec.Etcd.External
	if e == nil {
		return nil
	}
	for _, f := range []host.File{{Path: e.KeyFile, Mode: 0o600, Secret: true}, {Path: e.CertFile}, {Path: e.CAFile}} {
		if b, ok := shared[f.Path]; ok {
			f.Content = host.Bytes(b)
			files = append(files, f)
		}
	}
	return files
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
	paths := certificatePaths(t.Cluster)
	infos, err := t.Host.Stat(ctx, slices.Collect(maps.Values(paths))...)
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, path := range slices.Sorted(maps.Values(paths)) {
		if _, ok := infos[path]; !ok && path != "" {
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
	for key, path := range paths {
		if b, ok := content[key]; ok && slices.Contains(missing, path) {
			shared[path] = b
		}
	}
	if have, ok := shared[pki.CA+".crt"]; ok && !bytes.Equal(bytes.TrimSpace(have), bytes.TrimSpace(ca)) {
		return nil, errors.New("the uploaded certificates hold another CA than cluster-info: upload them again on a control plane with `" + uploadCommand + "`")
	}
	return shared, nil
}
