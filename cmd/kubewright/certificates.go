package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/phases"
)

// readKey is readToken for the certificate key.
func (o *hostOptions) readKey() (addons.CertificateKey, error) {
	s, err := secret("certificate-key", o.key, o.keyFile)
	if err != nil || s == "" {
		return addons.CertificateKey{}, err
	}
	return addons.ParseCertificateKey(s)
}

// secret is a flag's value, or the content of the file that FLAG-file names; empty where
// neither was given.
func secret(flag, value, file string) (string, error) {
	switch {
	case value != "" && file != "":
		return "", fmt.Errorf("--%s and --%s-file: give one of them", flag, flag)
	case file == "":
		return value, nil
	case file == "-":
		file = "/dev/stdin"
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("--%s-file: %w", flag, err)
	}
	if s := strings.TrimSpace(string(b)); s != "" {
		return s, nil
	}
	return "", fmt.Errorf("--%s-file: %s is empty", flag, file)
}

// uploadsAlone tells that nothing else is asked for: the cluster runs, and knows its document.
func uploadsAlone(list []phases.Phase) bool {
	return len(list) == 1 && list[0].Name == "upload-certs"
}

func (o *initOptions) printKey(t *phases.Target) error {
	if o.out() == "json" {
		return json.NewEncoder(os.Stdout).Encode(map[string]string{"kind": "UploadCerts", "certificateKey": t.CertificateKey.Reveal()})
	}
	_, err := fmt.Println(t.CertificateKey.Reveal())
	return err
}

const uploadDone = `
Make other hosts control planes as well, within two hours: after that, upload the
certificates again with "kubewright init phase upload-certs --upload-certs". The key is a secret:

  %s
`
