package aws

import (
	"path/filepath"
	"strconv"
	"strings"
)

func (a *Cloud) sshConfigFile() string { return filepath.Join(a.dir, "ssh_config") }

// SSHConfig writes, when the document has its hosts, what has ssh reach them by their addresses: ssh -F FILE ADDRESS. The jump host gets key and known
// hosts, too, which -J would not give it; one of the user's own is what ~/.ssh/config has of it.
func (a *Cloud) SSHConfig() (file string, err error) {
	file = a.sshConfigFile()
	quote := func(path string) string { return strconv.Quote(strings.ReplaceAll(path, "%", "%%")) } // which begins a token
	known := []string{"  IdentityFile " + quote(a.keyFile()), "  UserKnownHostsFile " + quote(a.knownHosts()), "  StrictHostKeyChecking accept-new"}
	var lines, addresses []string
	jump, user := "none", a.aws.SSH.User
	for _, n := range a.c.Spec.Hosts {
		addresses = append(addresses, n.SSH.Address)
		if user = n.SSH.User; n.SSH.ProxyJump != "" {
			jump = n.SSH.ProxyJump
		}
	}
	if _, bastion, _ := strings.Cut(jump, "@"); a.hasBastion() && bastion != "" {
		lines = append(append(lines, "Host "+bastion, "  ProxyJump none"), known...)
	}
	if len(addresses) > 0 {
		lines = append(append(lines, "Host "+strings.Join(addresses, " "), "  User "+user, "  ProxyJump "+jump), known...)
	}
	return file, writeLines(file, append(lines, "Host *", "  Include ~/.ssh/config"))
}
