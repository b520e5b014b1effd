package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	"k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/pki"
)

// kubeconfigPath is the file that a user's kubectl writes to: as named, else the first of
// $KUBECONFIG, else .kube/config at home. Behind sudo, home is that of whoever typed it.
func kubeconfigPath(named string, env func(string) string, euid int, homeOf func(uid string) (string, error)) (string, error) {
	if named != "" {
		return named, nil
	}
	for _, p := range filepath.SplitList(env("KUBECONFIG")) {
		if p != "" {
			return p, nil
		}
	}
	home := env("HOME")
	if uid := env("SUDO_UID"); euid == 0 && uid != "" && uid != "0" {
		var err error
		if home, err = homeOf(uid); err != nil {
			return "", fmt.Errorf("the home of user %s is not known (%w): name the file with --kubeconfig", env("SUDO_USER"), err)
		}
	}
	if home == "" {
		return "", errors.New("neither KUBECONFIG nor HOME is set: name the file with --kubeconfig")
	}
	return filepath.Join(home, ".kube", "config"), nil
}

// kubeconfigOf is the file that a cluster is put into. That of containers goes where kind looks for it: of several files in
// $KUBECONFIG into the first that is there, else the last; and to whoever runs this, be it behind sudo.
func kubeconfigOf(c *config.Cluster, named string) (string, error) {
	if c.Spec.Provider.Name != "kind" {
		return kubeconfigPath(named, os.Getenv, os.Geteuid(), homeOf)
	}
	if named == "" {
		for _, f := range filepath.SplitList(os.Getenv("KUBECONFIG")) {
			if f == "" {
				continue
			}
			named = f
			if info, err := os.Stat(f); err == nil && !info.IsDir() {
				break
			}
		}
	}
	return kubeconfigPath(named, os.Getenv, -1, nil)
}

func homeOf(uid string) (string, error) {
	u, err := user.LookupId(uid)
	if err != nil {
		return "", err
	}
	return u.HomeDir, nil
}

// loadKubeconfig reads a kubeconfig; one that does not exist is empty.
func loadKubeconfig(path string) (entries, *api.Config, error) {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	e, typed, err := parseEntries(b)
	if err != nil {
		return nil, nil, fmt.Errorf("%s %w", path, err)
	}
	return e, typed, originate(typed, filepath.Dir(path))
}

// editKubeconfig reads, changes and writes a kubeconfig while nobody else does. What change
// leaves as it is, is not written.
func editKubeconfig(ctx context.Context, path string, wait time.Duration, change func(entries, *api.Config) error) (changed bool, err error) {
	target, err := resolve(path)
	if err != nil {
		return false, err
	}
	unlock, err := lockKubeconfig(ctx, path, wait)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	e, typed, err := loadKubeconfig(target)
	if err != nil {
		return false, err
	}
	before, err := yaml.Marshal(e)
	if err != nil {
		return false, err
	}
	if err := change(e, typed); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	after, err := yaml.Marshal(e)
	if err != nil || bytes.Equal(before, after) {
		return false, err
	}
	return true, replace(target, after)
}

// resolve follows a symbolic link, so that we write the file and not over the link. The cluster's own files are not ours to write.
func resolve(path string) (string, error) {
	target, err := follow(path)
	if err == nil && filepath.Dir(target) == filepath.Dir(pki.AdminConf) { // root's KUBECONFIG often leads there
		err = fmt.Errorf("%s is the cluster's own, and is left as it is: name a kubeconfig of yours with --kubeconfig, or unset KUBECONFIG for that in your home", target)
	}
	return target, err
}

func follow(path string) (string, error) {
	target, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		target = path
		if link, e := os.Readlink(path); e == nil { // to a file that we are about to make
			if target = link; !filepath.IsAbs(link) {
				target = filepath.Join(filepath.Dir(path), link)
			}
		}
		return target, nil
	}
	if err != nil {
		return "", err
	}
	info, err := os.Stat(target)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file: name another with --kubeconfig", path)
	}
	return target, err
}

// replace puts a new file in the place of path at once. Mode and owner stay; a new file is
// 0600 and belongs to the owner of its folder, so that what sudo makes at a user's home is the user's.
func replace(path string, b []byte) error {
	uid, gid, err := ownerOf(path)
	if errors.Is(err, fs.ErrNotExist) {
		uid, gid, err = makeFolder(filepath.Dir(path))
	}
	if err != nil {
		return err
	}
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithPermissions(0o600), renameio.WithExistingPermissions())
	if err != nil {
		return err
	}
	defer f.Cleanup()
	if os.Geteuid() == 0 {
		mode, err := f.Stat()
		if err != nil {
			return err
		}
		// By the open file: a name in a user's folder may lead elsewhere a moment later.
		if err := f.Chown(uid, gid); err != nil {
			return err
		}
		if err := f.Chmod(mode.Mode().Perm()); err != nil {
			return err
		}
	}
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}

func ownerOf(path string) (uid, gid int, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, 0, err
	}
	st := info.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid), nil
}

// makeFolder makes a folder and its parents, which belong to the owner of the first that
// was there, and returns that owner.
func makeFolder(dir string) (uid, gid int, err error) {
	uid, gid, err = ownerOf(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return uid, gid, err
	}
	if uid, gid, err = makeFolder(filepath.Dir(dir)); err != nil {
		return uid, gid, err
	}
	if err = os.Mkdir(dir, 0o755); err == nil && os.Geteuid() == 0 {
		err = os.Lchown(dir, uid, gid)
	}
	if errors.Is(err, fs.ErrExist) { // somebody else was faster
		err = nil
	}
	return uid, gid, err
}

// lockKubeconfig takes the lock that kubectl, kind and client-go take: a file beside the
// kubeconfig that only one can make. Whoever dies leaves it behind.
func lockKubeconfig(ctx context.Context, path string, wait time.Duration) (unlock func() error, err error) {
	lock := path + ".lock"
	if _, _, err := makeFolder(filepath.Dir(path)); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		f, err := os.OpenFile(lock, os.O_CREATE|os.O_EXCL, 0)
		if err == nil {
			f.Close()
			return func() error { return os.Remove(lock) }, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			since := ""
			if info, err := os.Stat(lock); err == nil {
				since = " since " + info.ModTime().Local().Format(time.DateTime)
			}
			return nil, fmt.Errorf("somebody else changes %s: the lock %s is there%s; if no kubectl, kind or kubewright runs, one of them died with it: remove that file and try again", path, lock, since)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
