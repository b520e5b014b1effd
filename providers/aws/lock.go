package aws

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/kubewright/kubewright/host"
)

// Lock has this run alone change the cluster's machines from here, until release is called or the process ends. While another one does, the error is a
// *[host.LockedError]. Runs elsewhere meet on the hosts.
func (a *Cloud) Lock(command string) (release func(), err error) {
	path := filepath.Join(a.dir, "lock")
	for {
		if err := os.MkdirAll(a.dir, 0o700); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if errors.Is(err, os.ErrNotExist) { // whoever ended the cluster has removed the folder
			continue
		}
		if err != nil {
			return nil, err
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			var other host.Lease
			_ = json.NewDecoder(f).Decode(&other) // it may be about to say who it is
			f.Close()
			return nil, fmt.Errorf("the machines of %s in %s: %w", a.name, a.region, &host.LockedError{Lease: other})
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !sameFile(f, path) { // its last owner has just removed it
			f.Close()
			continue
		}
		if err := errors.Join(f.Truncate(0), json.NewEncoder(f).Encode(host.Lease{Command: command, PID: os.Getpid(), Since: time.Now()})); err != nil {
			f.Close()
			return nil, err
		}
		return func() {
			os.Remove(path)
			f.Close()
			a.tidy()
		}, nil
	}
}

func sameFile(f *os.File, path string) bool {
	held, err := f.Stat()
	named, e := os.Stat(path)
	return err == nil && e == nil && os.SameFile(held, named)
}

// tidy removes the cluster's folder, and those of its region and of this provider, if there is nothing in them.
func (a *Cloud) tidy() {
	for d, n := a.dir, 0; n < 3 && os.Remove(d) == nil; n++ {
		d = filepath.Dir(d)
	}
}
