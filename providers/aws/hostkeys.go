package aws

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// notes is which machine had which address: ADDRESS ID, a line each.
func (a *Cloud) notes() string { return filepath.Join(a.dir, "machines") }

// forgetHostKeys drops the keys of machines whose addresses others have now: AWS gives an address away again.
func (a *Cloud) forgetHostKeys(all []ec2types.Instance) error {
	had, err := readLines(a.notes())
	if err != nil {
		return err
	}
	var now []string
	gone := map[string]bool{}
	for _, i := range all {
		if _, _, alive := ofInstance(i); !alive {
			continue
		}
		for _, ip := range []string{sdk.ToString(i.PrivateIpAddress), sdk.ToString(i.PublicIpAddress)} {
			line := ip + " " + *i.InstanceId
			if ip == "" || slices.Contains(now, line) {
				continue
			}
			now = append(now, line)
			for _, before := range had {
				if before != line && strings.HasPrefix(before, ip+" ") {
					gone[ip] = true
				}
			}
		}
	}
	slices.Sort(now)
	if len(now) == 0 || slices.Equal(had, now) {
		return nil
	}
	if len(gone) > 0 {
		keys, err := readLines(a.knownHosts())
		if err != nil {
			return err
		}
		left := slices.DeleteFunc(slices.Clone(keys), func(line string) bool {
			host, _, _ := strings.Cut(line, " ")
			return gone[host]
		})
		if err := writeLines(a.knownHosts(), left); err != nil {
			return err
		}
	}
	for _, before := range had { // of machines that may come back: whose addresses nobody else has
		ip, _, _ := strings.Cut(before, " ")
		if !slices.ContainsFunc(now, func(line string) bool { return strings.HasPrefix(line, ip+" ") }) {
			now = append(now, before)
		}
	}
	slices.Sort(now)
	return writeLines(a.notes(), now)
}

func readLines(path string) ([]string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(b) == 0 {
		return nil, nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n"), err
}

// writeLines replaces a file whole.
func writeLines(path string, lines []string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	next := path + ".new"
	if err := os.WriteFile(next, []byte(strings.Join(append(lines, ""), "\n")), 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}
