package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// parseStatus reads dpkg's status file: the packages that each installed package depends on. Of alternatives
// (a | b) all are named; those that are not installed drop out in closure.
func parseStatus(text string) map[string][]string {
	depends := map[string][]string{}
	for stanza := range strings.SplitSeq(text, "\n\n") {
		fields := map[string]string{}
		for line := range strings.Lines(stanza) {
			if name, value, ok := strings.Cut(line, ":"); ok && line[0] != ' ' {
				fields[name] = strings.TrimSpace(value)
			}
		}
		if !strings.HasSuffix(fields["Status"], " installed") {
			continue
		}
		needs := []string{}
		for clause := range strings.FieldsFuncSeq(fields["Pre-Depends"]+","+fields["Depends"], func(r rune) bool { return r == ',' || r == '|' }) {
			if words := strings.Fields(clause); len(words) > 0 {
				name, _, _ := strings.Cut(words[0], ":") // perl:any
				needs = append(needs, name)
			}
		}
		depends[fields["Package"]] = needs
	}
	return depends
}

// closure is the wanted packages and all that they need, sorted; without those to be left out and what only they need.
func closure(depends map[string][]string, without []string, want ...string) ([]string, error) {
	seen := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		needs, installed := depends[name]
		if !installed || seen[name] || slices.Contains(without, name) {
			return
		}
		seen[name] = true
		for _, n := range needs {
			visit(n)
		}
	}
	for _, name := range want {
		if _, ok := depends[name]; !ok {
			return nil, fmt.Errorf("package %s is not installed", name)
		}
		visit(name)
	}
	var names []string
	for name := range seen {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// packageFiles lists what the packages installed in the root filesystem, as paths below it without links in their
// folders (Debian's /bin is a link to /usr/bin, but dpkg speaks of /bin/sh), and the alternatives that lead to it.
func packageFiles(root string, packages []string) ([]string, error) {
	// The links at the top that a merged /usr has belong to no package.
	files := map[string]bool{"bin": true, "sbin": true, "lib": true, "lib64": true}
	for _, p := range packages {
		lists, err := filepath.Glob(filepath.Join(root, "var/lib/dpkg/info", p+".list"))
		if err != nil {
			return nil, err
		}
		multiarch, err := filepath.Glob(filepath.Join(root, "var/lib/dpkg/info", p+":*.list"))
		if err != nil {
			return nil, err
		}
		for _, list := range append(lists, multiarch...) {
			text, err := os.ReadFile(list)
			if err != nil {
				return nil, err
			}
			for line := range strings.Lines(string(text)) {
				file := strings.Trim(line, "/.\n")
				if file == "" || documentation(file) {
					continue
				}
				dir, err := filepath.EvalSymlinks(filepath.Join(root, filepath.Dir(file)))
				if err != nil {
					continue // deleted with the documentation
				}
				if dir, err = filepath.Rel(root, dir); err != nil {
					return nil, err
				}
				files[filepath.Join(dir, filepath.Base(file))] = true
			}
		}
	}
	if err := addAlternatives(root, files); err != nil {
		return nil, err
	}
	var sorted []string
	for f := range files {
		if _, err := os.Lstat(filepath.Join(root, f)); err == nil {
			sorted = append(sorted, f)
		}
	}
	slices.Sort(sorted)
	return sorted, nil
}

// addAlternatives adds the links name -> /etc/alternatives/name -> file for the files that are there.
func addAlternatives(root string, files map[string]bool) error {
	links, err := filepath.Glob(filepath.Join(root, "usr/*bin/*"))
	if err != nil {
		return err
	}
	for _, link := range links {
		middle, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(middle, "/etc/alternatives/") {
			continue
		}
		target, err := os.Readlink(filepath.Join(root, middle))
		if err != nil || !files[strings.TrimPrefix(target, "/")] {
			continue
		}
		rel, err := filepath.Rel(root, link)
		if err != nil {
			return err
		}
		files[rel], files[strings.TrimPrefix(middle, "/")] = true, true
	}
	return nil
}

// documentation is what nobody reads in a container.
func documentation(file string) bool {
	for _, dir := range []string{"doc", "man", "info", "locale", "lintian", "bash-completion", "bug", "doc-base", "gcc", "gdb"} {
		if file == "usr/share/"+dir || strings.HasPrefix(file, "usr/share/"+dir+"/") {
			return true
		}
	}
	// Character sets of other languages: 8 MB of libc.
	return strings.Contains(file, "/gconv/")
}
