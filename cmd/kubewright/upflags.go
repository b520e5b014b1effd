package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/sys/unix"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/manifests"
	"github.com/kubewright/kubewright/phases"
)

// foresee tells all that is wrong with the flags of an up that makes machines, before there are any.
func (o *fleetOptions) foresee(ctx context.Context, kubeconfig, picture string) error {
	c, err := o.read()
	if err != nil {
		return misuse(err)
	}
	all := multierror.Append(phases.CheckSkip(o.phases, o.skip), phases.CheckIgnore(o.ignore))
	switch c.Spec.Provider.Name {
	case "aws":
		all = multierror.Append(all, o.ssh.Check())
	case "kind":
		all = multierror.Append(all, o.kind.foresee(ctx, c, o.file))
	default:
		return nil
	}
	_, err = o.openCatalogue()
	all = multierror.Append(all, o.apply(&c.Spec.Artifacts), err)
	if o.bundle == "" {
		_, err = o.artifactOptions.named()
	} else if l, e := o.readLock(ctx, o.bundle); e != nil && isURL(o.bundle) && !errors.As(e, new(usageError)) {
		return fmt.Errorf("--bundle: %w", e) // nobody's mistake: who serves it does not answer
	} else if e != nil {
		err = fmt.Errorf("--bundle: %w", e)
	} else {
		err = o.held(l)
	}
	all = multierror.Append(all, err)
	if p := c.Spec.Patches; p != "" {
		if _, err := manifests.LoadPatches(os.DirFS(p)); err != nil {
			all = multierror.Append(all, fmt.Errorf("spec.patches: %w", err))
		}
	}
	if logs := o.kind.logs; full(logs) {
		all = multierror.Append(all, fmt.Errorf("--logs: %s is not empty: name another folder, or remove it", logs))
	} else if logs != "" {
		if err := canWrite(logs); err != nil {
			all = multierror.Append(all, fmt.Errorf("--logs: %w", err))
		}
	}
	if picture != "" {
		if err := canWrite(filepath.Dir(picture)); err != nil {
			all = multierror.Append(all, fmt.Errorf("--timeline: %w", err))
		}
	}
	if kubeconfig != "none" && !o.prepare {
		path, err := kubeconfigOf(c, kubeconfig)
		if err == nil {
			err = checkKubeconfig(path)
		}
		if err != nil {
			all = multierror.Append(all, fmt.Errorf("--kubeconfig: %w: name another file, or none", err))
		}
	}
	return misuse(config.Errors(all))
}

// checkKubeconfig tells whether a cluster could be added to a kubeconfig, and touches nothing.
func checkKubeconfig(path string) error {
	if err := canWrite(filepath.Dir(path)); err != nil { // where the lock comes
		return err
	}
	target, err := resolve(path)
	if err != nil {
		return err
	}
	if err := canWrite(filepath.Dir(target)); err != nil {
		return err
	}
	_, _, err = loadKubeconfig(target)
	return err
}

// canWrite tells whether files can be made in a folder, or the folder itself, with those above it.
func canWrite(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	info, err := os.Stat(dir)
	switch {
	case (errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)) && dir != filepath.Dir(dir):
		return canWrite(filepath.Dir(dir))
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is no folder", dir)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("nothing can be written in %s: %w", dir, err)
	}
	return nil
}
