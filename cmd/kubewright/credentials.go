package main

import (
	"errors"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// credentials are those of whoever runs this for a registry, HOST[:PORT], as Docker's config
// has them (~/.docker/config.json, DOCKER_CONFIG, credential helpers), else podman's auth.json.
func credentials(registry string) (user, password string, err error) {
	r, err := name.NewRegistry(registry)
	if err != nil {
		return "", "", err
	}
	a, err := authn.DefaultKeychain.Resolve(r)
	if err != nil {
		return "", "", errors.Join(errors.New("read Docker's config"), err)
	}
	c, err := a.Authorization()
	if err != nil {
		return "", "", err
	}
	if c.IdentityToken != "" || c.RegistryToken != "" {
		return "", "", errors.New("Docker's config has an identity token, which container runtimes cannot be given: `docker login` with a user and a password, or log out there and give pods imagePullSecrets")
	}
	return c.Username, c.Password, nil
}
