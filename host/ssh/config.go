package ssh

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kevinburke/ssh_config"

	"github.com/kubewright/kubewright/config"
)

// endpoint is one SSH server and how to get in, with everything that the document and ssh's
// configuration say of it.
type endpoint struct {
	name       string // for errors: of the host in the document, or of the jump host
	address    string // IP or name
	port       string
	user       string
	identities []string      // private keys that were named for it
	only       bool          // IdentitiesOnly: nothing else of the agent
	agent      string        // socket; empty: none
	known      []string      // known_hosts files
	alias      string        // the host's name in known_hosts, if it is not its address
	jumps      []string      // [user@]host[:port], the nearest first
	connect    time.Duration // for TCP, and again for what follows until the login is done
}

func (e endpoint) addr() string { return net.JoinHostPort(e.address, e.port) }

func (e endpoint) String() string {
	if e.name == e.address {
		return e.user + "@" + e.addr()
	}
	return fmt.Sprintf("%s (%s@%s)", e.name, e.user, e.addr())
}

// keyName is what known_hosts has it under.
func (e endpoint) keyName() string {
	if e.alias != "" {
		return net.JoinHostPort(e.alias, "22") // ssh looks an alias up without the port
	}
	return e.addr()
}

// understood are the keywords of ssh_config(5) that are heeded here, in small letters.
var understood = []string{"hostname", "user", "port", "identityfile", "identitiesonly", "identityagent", "proxyjump", "proxycommand",
	"userknownhostsfile", "hostkeyalias", "include", "connecttimeout"}

// readSSHConfig reads ssh's configuration. A file that is not there is an empty one, unless it was asked for.
func readSSHConfig(path string, asked bool) (*ssh_config.Config, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !asked {
		return &ssh_config.Config{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ssh's configuration: %w", err)
	}
	text, err = withoutMatch(path, string(text))
	if err != nil {
		return nil, err
	}
	c, err := ssh_config.DecodeBytes(text)
	if err != nil {
		return nil, fmt.Errorf("ssh's configuration %s: %w", path, err)
	}
	return c, nil
}

// withoutMatch drops Match blocks, as the library misreads most of them. One that would change
// how we connect is an error.
func withoutMatch(path, text string) ([]byte, error) {
	lines := strings.Split(text, "\n")
	match := 0 // the line of the Match that we are in
	for i, line := range lines {
		words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\r=", r) })
		if len(words) == 0 {
			continue
		}
		switch keyword := strings.ToLower(words[0]); {
		case keyword == "host":
			match = 0
		case keyword == "match":
			match = 0
			if len(words) != 2 || strings.ToLower(words[1]) != "all" {
				match = i + 1
			}
		case match > 0 && slices.Contains(understood, keyword):
			return nil, fmt.Errorf("%s, line %d: %s in a Match block is not supported: write it under a Host, say it in the document, or name another file with --ssh-config",
				path, i+1, words[0])
		}
		if match > 0 {
			lines[i] = ""
		}
	}
	return []byte(strings.Join(lines, "\n")), nil
}

// connectTimeout is in seconds, or like 1m30s; 0 and none mean that nothing is said.
func connectTimeout(s string) (time.Duration, error) {
	if s == "" || strings.EqualFold(s, "none") {
		return 0, nil
	}
	if n, err := strconv.Atoi(s); err == nil && n >= 0 {
		return time.Duration(n) * time.Second, nil
	}
	d, err := time.ParseDuration(strings.ToLower(s))
	if err != nil || d < 0 {
		return 0, fmt.Errorf("ConnectTimeout %q is no number of seconds", s)
	}
	return d, nil
}

// endpoint looks a host up. What the document says wins.
func (c *Client) endpoint(name string, to config.SSH) (endpoint, error) {
	alias := strings.Trim(cmp.Or(to.Address, name), "[]")
	get := func(keyword string) string { return must(c.config.Get(alias, keyword)) }
	me, err := user.Current()
	if err != nil {
		return endpoint{}, err
	}
	e := endpoint{name: name, user: cmp.Or(to.User, get("User"), me.Username), port: cmp.Or(get("Port"), "22"), alias: get("HostKeyAlias")}
	if e.connect, err = connectTimeout(get("ConnectTimeout")); err != nil {
		return endpoint{}, fmt.Errorf("ssh's configuration of %s: %w", name, err)
	}
	e.connect = cmp.Or(e.connect, c.connect)
	if to.Port != 0 {
		e.port = strconv.Itoa(int(to.Port))
	}
	tokens := strings.NewReplacer("%%", "%", "%h", alias, "%n", alias, "%p", e.port, "%r", e.user, "%u", me.Username, "%i", me.Uid, "%d", c.home)
	e.address = strings.Trim(cmp.Or(tokens.Replace(get("HostName")), alias), "[]")
	tokens = strings.NewReplacer("%%", "%", "%h", e.address, "%n", alias, "%p", e.port, "%r", e.user, "%u", me.Username, "%i", me.Uid, "%d", c.home)
	path := func(s string) string { return c.path(tokens.Replace(s)) }

	files := must(c.config.GetAll(alias, "IdentityFile"))
	if to.IdentityFile != "" {
		files = []string{to.IdentityFile}
	}
	for _, f := range slices.Concat(files, c.Identities) {
		if f = path(f); f != "none" && !slices.Contains(e.identities, f) {
			e.identities = append(e.identities, f)
		}
	}
	e.only = strings.EqualFold(get("IdentitiesOnly"), "yes")
	switch agent := get("IdentityAgent"); {
	case agent == "", agent == "SSH_AUTH_SOCK":
		e.agent = os.Getenv("SSH_AUTH_SOCK")
	case agent == "none":
	case strings.HasPrefix(agent, "$") && !strings.HasPrefix(agent, "${"):
		e.agent = os.Getenv(agent[1:])
	default:
		e.agent = path(agent)
	}
	e.known = slices.Clone(c.KnownHosts)
	if len(e.known) == 0 {
		e.known = strings.Fields(get("UserKnownHostsFile"))
	}
	if len(e.known) == 0 {
		e.known = []string{"~/.ssh/known_hosts"}
	}
	for i := range e.known {
		e.known[i] = path(e.known[i])
	}
	if jump := cmp.Or(to.ProxyJump, get("ProxyJump")); jump != "" && jump != "none" {
		e.jumps = strings.Split(strings.ReplaceAll(tokens.Replace(jump), " ", ""), ",")
	}
	if command := get("ProxyCommand"); command != "" && command != "none" && to.ProxyJump == "" && get("ProxyJump") == "" {
		return e, fmt.Errorf("%s: ssh's configuration has a ProxyCommand for it, which is not supported: use ProxyJump, there or in the document (proxyJump: none goes without)", e)
	}
	return e, nil
}

// must drops an error that the library has no way to return after it has read the file.
func must[T any](v T, _ error) T { return v }

var variable = regexp.MustCompile(`\$\{(\w+)\}`)

// path knows the forms of ssh_config(5): ~ and ${VARIABLE}.
func (c *Client) path(s string) string {
	s = variable.ReplaceAllStringFunc(s, func(v string) string { return os.Getenv(v[2 : len(v)-1]) })
	if s == "~" || strings.HasPrefix(s, "~/") {
		return filepath.Join(c.home, s[1:])
	}
	return s
}

// route is the hosts that a connection passes, the wanted one last.
func (c *Client) route(e endpoint, seen ...string) ([]endpoint, error) {
	var route []endpoint
	for i, jump := range e.jumps {
		name, to, err := parseJump(jump)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e, err)
		}
		hop, err := c.endpoint(name, to)
		if err != nil {
			return nil, fmt.Errorf("%s: jump host: %w", e, err)
		}
		if len(e.jumps) == 1 && hop.addr() == e.addr() {
			continue // "Host *" with ProxyJump is for the jump host, too
		}
		if slices.Contains(seen, hop.addr()) {
			return nil, fmt.Errorf("%s: ProxyJump goes in a circle at %s", e, hop)
		}
		if i > 0 {
			hop.jumps = nil // reached over the one before, as ssh does it
		}
		before, err := c.route(hop, append(seen, e.addr())...)
		if err != nil {
			return nil, err
		}
		route = append(route, before...)
	}
	return append(route, e), nil
}

// parseJump reads [user@]host[:port], also as ssh://.
func parseJump(s string) (string, config.SSH, error) {
	var to config.SSH
	rest := strings.TrimPrefix(s, "ssh://")
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		to.User, rest = rest[:at], rest[at+1:]
	}
	to.Address = rest
	if host, port, err := net.SplitHostPort(rest); err == nil {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return "", to, fmt.Errorf("jump host %q: %q is no port", s, port)
		}
		to.Address, to.Port = host, int32(n)
	}
	to.Address = strings.Trim(to.Address, "[]")
	if to.Address == "" {
		return "", to, fmt.Errorf("jump host %q: write [USER@]HOST[:PORT]", s)
	}
	return to.Address, to, nil
}
