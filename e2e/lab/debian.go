package lab

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// What the lab needs of Debian on this machine: the engine, the host's root filesystem, cgo for runc and flannel, a
// proxy for tests (without the service that its other package starts).
// Tests of packages that have no hosts of the lab's need the rest: sudo, and login shells of all kinds.
// Each is named with a file that its package installs.
func machinePackages() map[string]string {
	all := map[string]string{
		"docker.io":              "/usr/sbin/dockerd",
		"iptables":               "/usr/sbin/iptables",
		"debootstrap":            "/usr/sbin/debootstrap",
		"debian-archive-keyring": "/usr/share/keyrings/debian-archive-keyring.gpg",
		"gcc":                    "/usr/bin/gcc",
		"libc6-dev":              "/usr/include/stdlib.h",
		"libseccomp-dev":         "/usr/include/seccomp.h",
		"pkg-config":             "/usr/bin/pkg-config",
		"tinyproxy-bin":          "/usr/bin/tinyproxy",
		"openssh-client":         "/usr/bin/ssh",
		"iproute2":               "/sbin/ip",
		"ca-certificates":        "/etc/ssl/certs/ca-certificates.crt",
		"nftables":               "/usr/sbin/nft",
		"sudo":                   "/usr/sbin/visudo",
		"fish":                   "/usr/bin/fish",
		"ksh":                    "/usr/bin/ksh",
		"tcsh":                   "/usr/bin/tcsh",
		"zsh":                    "/usr/bin/zsh",
	}
	// These are services as well. Nobody's machine is to have them running for a test, which skips what it lacks, and says so.
	if _, err := os.Stat("/usr/sbin/policy-rc.d"); err == nil { // a container, say, that starts no service by itself
		all["openssh-server"], all["haproxy"] = "/usr/sbin/sshd", "/usr/sbin/haproxy"
	}
	return all
}

// Install installs the Debian packages that this machine lacks, and says so.
func (b *Builder) Install(ctx context.Context) error {
	var missing []string
	for name, file := range machinePackages() {
		if _, err := os.Stat(file); err != nil {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	byHand := "apt-get install --no-install-recommends " + strings.Join(missing, " ")
	if os.Geteuid() != 0 {
		if len(missing) > 0 {
			return fmt.Errorf("the lab's hosts are privileged containers: run as root; it then also installs what is missing, or do it yourself: %s", byHand)
		}
		return fmt.Errorf("the lab's hosts are privileged containers: run as root")
	}
	if len(missing) == 0 {
		return nil
	}
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return fmt.Errorf("this is no Debian (no apt-get); the lab needs what these packages hold: %s", strings.Join(missing, " "))
	}
	b.log("installing Debian packages: %s", strings.Join(missing, " "))
	if listsAreOld(time.Now()) {
		if err := run(exec.CommandContext(ctx, apt, "update", "-q")); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, apt, append([]string{"install", "-qy", "--no-install-recommends"}, missing...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if err := run(cmd); err != nil {
		return fmt.Errorf("install by hand what the lab needs: %s: %w", byHand, err)
	}
	return nil
}

// listsAreOld says whether apt's lists are absent, or so old that the mirror may have dropped what they name.
func listsAreOld(now time.Time) bool {
	lists, _ := filepath.Glob("/var/lib/apt/lists/*_Packages*")
	for _, l := range lists {
		if info, err := os.Stat(l); err == nil && now.Sub(info.ModTime()) < 24*time.Hour {
			return false
		}
	}
	return true
}

// aptSource is one line, or one stanza's URI, of apt's sources.
type aptSource struct {
	uri        string
	suites     []string
	components []string
}

// parseList reads the one-line format: deb [options] uri suite component...
func parseList(text string) []aptSource {
	var sources []aptSource
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb ")
		if !ok {
			continue
		}
		if rest = strings.TrimSpace(rest); strings.HasPrefix(rest, "[") {
			_, rest, _ = strings.Cut(rest, "]")
		}
		if f := strings.Fields(rest); len(f) >= 3 {
			sources = append(sources, aptSource{f[0], f[1:2], f[2:]})
		}
	}
	return sources
}

// parseSources reads the deb822 format: stanzas of fields, whose continuation lines begin with white space.
func parseSources(text string) []aptSource {
	var sources []aptSource
	fields := map[string]string{}
	end := func() {
		types, enabled := strings.Fields(fields["types"]), strings.ToLower(strings.TrimSpace(fields["enabled"]))
		if slices.Contains(types, "deb") && enabled != "no" && enabled != "false" {
			for _, uri := range strings.Fields(fields["uris"]) {
				sources = append(sources, aptSource{uri, strings.Fields(fields["suites"]), strings.Fields(fields["components"])})
			}
		}
		fields = map[string]string{}
	}
	last := ""
	for scan := bufio.NewScanner(strings.NewReader(text)); scan.Scan(); {
		line := scan.Text()
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			end()
		case line[0] == ' ' || line[0] == '\t':
			fields[last] += line
		default:
			name, value, _ := strings.Cut(line, ":")
			last = strings.ToLower(name)
			fields[last] = value
		}
	}
	end()
	return sources
}

// mirrorOf picks the mirror that has Debian's main packages of one of the suites, the first suite first. The
// machine may itself be another release of Debian than the hosts.
func mirrorOf(sources []aptSource, suites ...string) (string, error) {
	for _, suite := range suites {
		for _, s := range sources {
			if suite != "" && slices.Contains(s.suites, suite) && slices.Contains(s.components, "main") {
				return s.uri, nil
			}
		}
	}
	return "", fmt.Errorf("apt's sources on this machine name no Debian mirror (a source of %s with component main)", strings.Join(suites, " or "))
}

// mirror is the Debian mirror that this machine uses.
func mirror() (string, error) {
	var sources []aptSource
	read := func(pattern string, parse func(string) []aptSource) error {
		files, _ := filepath.Glob(pattern)
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			sources = append(sources, parse(string(text))...)
		}
		return nil
	}
	for _, err := range []error{
		read("/etc/apt/sources.list", parseList),
		read("/etc/apt/sources.list.d/*.list", parseList),
		read("/etc/apt/sources.list.d/*.sources", parseSources),
	} {
		if err != nil {
			return "", err
		}
	}
	return mirrorOf(sources, debianSuite, machineSuite())
}

func machineSuite() string {
	text, _ := os.ReadFile("/etc/os-release")
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "VERSION_CODENAME="); ok {
			return strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	return ""
}

// proxyEnv is apt's proxy, if it has one, in the variables that debootstrap's downloads obey.
func proxyEnv(ctx context.Context) []string {
	var env []string
	for option, name := range map[string]string{"Acquire::http::Proxy": "http_proxy", "Acquire::https::Proxy": "https_proxy"} {
		out, err := exec.CommandContext(ctx, "apt-config", "shell", "P", option).Output() // P='value', or nothing
		value, ok := strings.CutPrefix(strings.TrimSpace(string(out)), "P=")
		if value = strings.Trim(value, "'"); err == nil && ok && value != "" && value != "DIRECT" {
			env = append(env, name+"="+value)
		}
	}
	return env
}
