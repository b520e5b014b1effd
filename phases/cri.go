package phases

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kubewright/kubewright/manifests"
)

// callRuntime asks the container runtime over its socket, on a connection of its own: one
// that was refused once would be tried again only after a second.
func (t *Target) callRuntime(ctx context.Context, call func(context.Context, *grpc.ClientConn) error) error {
	conn, err := grpc.NewClient("passthrough:///runtime",
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithReadBufferSize(4<<10), grpc.WithSharedWriteBuffer(true),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return t.Host.Dial(ctx, "unix", t.socket()) }))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return call(ctx, conn)
}

// runtimeVersion is the runtime's name and version: "containerd" and "v2.3.7", say.
func (t *Target) runtimeVersion(ctx context.Context) (v *cri.VersionResponse, err error) {
	err = t.callRuntime(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		v, err = cri.NewRuntimeServiceClient(conn).Version(ctx, &cri.VersionRequest{})
		return err
	})
	switch {
	case status.Code(err) == codes.Unimplemented: // as Docker's packages configure their containerd
		return nil, errors.New("who listens there does not speak the CRI: take cri out of disabled_plugins in /etc/containerd/config.toml and restart containerd")
	case err != nil:
		return nil, errors.New(status.Convert(err).Message())
	}
	return v, nil
}

// runtimeCgroupDriver is systemd or cgroupfs; empty where the runtime is too old to say.
func (t *Target) runtimeCgroupDriver(ctx context.Context) (driver string, err error) {
	err = t.callRuntime(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		r, err := cri.NewRuntimeServiceClient(conn).RuntimeConfig(ctx, &cri.RuntimeConfigRequest{})
		if err != nil || r.GetLinux() == nil {
			return err
		}
		driver = "systemd"
		if r.Linux.CgroupDriver == cri.CgroupDriver_CGROUPFS {
			driver = "cgroupfs"
		}
		return nil
	})
	if status.Code(err) == codes.Unimplemented {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("ask the container runtime at %s for its cgroup driver: %s", t.socket(), status.Convert(err).Message())
	}
	return driver, nil
}

// cgroupDriver is what the runtime of this node says, with a word where the cluster's
// kubelet configuration says something else.
func (t *Target) cgroupDriver(ctx context.Context, configuration []byte) (string, error) {
	if t.ownsContainerd() {
		return "", nil // as we have configured it
	}
	driver, err := t.runtimeCgroupDriver(ctx)
	if err != nil || driver == "" {
		return "", err
	}
	wanted, err := manifests.CgroupDriver(configuration)
	if err == nil && wanted != driver {
		t.notice("the container runtime uses the cgroup driver %s, and the cluster %s: this node's kubelet follows its runtime", driver, wanted)
	}
	return driver, err
}
