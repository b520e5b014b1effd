package fleet

import (
	"context"
	"net"
	"sync"

	diff "github.com/containerd/containerd/api/services/diff/v1"
	images "github.com/containerd/containerd/api/services/images/v1"
	leases "github.com/containerd/containerd/api/services/leases/v1"
	snapshots "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/plugins/services/content/contentserver"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// runtime is what a host's containerd remembers.
type runtime struct {
	mu        sync.Mutex
	blobs     map[digest.Digest]blob
	images    map[string]*images.Image
	snapshots map[string]string // parent, by key or name
}

func newRuntime() *runtime {
	return &runtime{blobs: map[digest.Digest]blob{}, images: map[string]*images.Image{}, snapshots: map[string]string{}}
}

// runtimeAddr is the address of who calls: it leads to the host that was called.
type runtimeAddr struct{ *visit }

func (runtimeAddr) Network() string { return "unix" }
func (runtimeAddr) String() string  { return "@" }

func runtimeOf(ctx context.Context) *runtime {
	return visitOf(ctx).runtime
}

func visitOf(ctx context.Context) *visit {
	p, _ := peer.FromContext(ctx)
	return p.Addr.(runtimeAddr).visit
}

// runtimeConn is a connection to a host's socket.
type runtimeConn struct {
	net.Conn
	visit *visit
}

func (c runtimeConn) RemoteAddr() net.Addr { return runtimeAddr{c.visit} }

// newRuntimes serves the sockets of all hosts: of containerd's services as much as an import of
// images asks for, and the CRI's version.
func newRuntimes() *grpc.Server {
	asked := func(ctx context.Context, method string) {
		v := visitOf(ctx)
		v.asked("%s", method)
	}
	s := grpc.NewServer(grpc.SharedWriteBuffer(true), grpc.ReadBufferSize(0),
		grpc.UnaryInterceptor(func(ctx context.Context, q any, i *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			asked(ctx, i.FullMethod)
			return handle(ctx, q)
		}),
		grpc.StreamInterceptor(func(s any, stream grpc.ServerStream, i *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			asked(stream.Context(), i.FullMethod)
			return handle(s, messages{stream, asked})
		}))
	contentserver.New(store{}).(interface{ Register(*grpc.Server) error }).Register(s)
	images.RegisterImagesServer(s, imageServer{})
	leases.RegisterLeasesServer(s, leaseServer{})
	snapshots.RegisterSnapshotsServer(s, snapshotServer{})
	diff.RegisterDiffServer(s, diffServer{})
	cri.RegisterRuntimeServiceServer(s, criServer{})
	return s
}

// messages are those of a stream.
type messages struct {
	grpc.ServerStream
	asked func(context.Context, string)
}

func (m messages) RecvMsg(to any) error {
	err := m.ServerStream.RecvMsg(to)
	if err == nil {
		m.asked(m.Context(), "  a message")
	}
	return err
}

type criServer struct {
	cri.UnimplementedRuntimeServiceServer
}

func (criServer) Version(context.Context, *cri.VersionRequest) (*cri.VersionResponse, error) {
	return &cri.VersionResponse{RuntimeName: "containerd", RuntimeVersion: "v2.3.7", RuntimeApiVersion: "v1"}, nil
}

type imageServer struct {
	images.UnimplementedImagesServer
}

func (imageServer) Get(ctx context.Context, q *images.GetImageRequest) (*images.GetImageResponse, error) {
	r := runtimeOf(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	i, ok := r.images[q.Name]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "image %s", q.Name)
	}
	return &images.GetImageResponse{Image: i}, nil
}

func (imageServer) List(ctx context.Context, q *images.ListImagesRequest) (*images.ListImagesResponse, error) {
	r := runtimeOf(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	all := &images.ListImagesResponse{}
	for _, i := range r.images {
		all.Images = append(all.Images, i)
	}
	return all, nil
}

func (imageServer) Create(ctx context.Context, q *images.CreateImageRequest) (*images.CreateImageResponse, error) {
	r := runtimeOf(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.images[q.Image.Name]; ok {
		return nil, status.Errorf(codes.AlreadyExists, "image %s", q.Image.Name)
	}
	r.images[q.Image.Name] = q.Image
	return &images.CreateImageResponse{Image: q.Image}, nil
}

func (imageServer) Update(ctx context.Context, q *images.UpdateImageRequest) (*images.UpdateImageResponse, error) {
	r := runtimeOf(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.images[q.Image.Name] = q.Image
	return &images.UpdateImageResponse{Image: q.Image}, nil
}

type leaseServer struct {
	leases.UnimplementedLeasesServer
}

func (leaseServer) Create(_ context.Context, q *leases.CreateRequest) (*leases.CreateResponse, error) {
	return &leases.CreateResponse{Lease: &leases.Lease{ID: q.ID, Labels: q.Labels}}, nil
}

func (leaseServer) Delete(context.Context, *leases.DeleteRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, nil
}

type snapshotServer struct {
	snapshots.UnimplementedSnapshotsServer
}

func (snapshotServer) Prepare(ctx context.Context, q *snapshots.PrepareSnapshotRequest) (*snapshots.PrepareSnapshotResponse, error) {
	r := runtimeOf(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.snapshots[q.Labels["containerd.io/snapshot.ref"]]; ok {
		return nil, status.Errorf(codes.AlreadyExists, "snapshot %s", q.Key)
	}
	r.snapshots[q.Key] = q.Parent
	return &snapshots.PrepareSnapshotResponse{}, nil
}

func (snapshotServer) Commit(ctx context.Context, q *snapshots.CommitSnapshotRequest) (*emptypb.Empty, error) {
	r := runtimeOf(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	parent, ok := r.snapshots[q.Key]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "snapshot %s", q.Key)
	}
	delete(r.snapshots, q.Key)
	r.snapshots[q.Name] = parent
	return &emptypb.Empty{}, nil
}

func (snapshotServer) Remove(ctx context.Context, q *snapshots.RemoveSnapshotRequest) (*emptypb.Empty, error) {
	r := runtimeOf(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.snapshots, q.Key)
	return &emptypb.Empty{}, nil
}

func (snapshotServer) Stat(ctx context.Context, q *snapshots.StatSnapshotRequest) (*snapshots.StatSnapshotResponse, error) {
	r := runtimeOf(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	parent, ok := r.snapshots[q.Key]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "snapshot %s", q.Key)
	}
	return &snapshots.StatSnapshotResponse{Info: &snapshots.Info{Name: q.Key, Parent: parent, Kind: snapshots.Kind_COMMITTED}}, nil
}

// diffServer unpacks nothing: the layers are no archives, and not compressed.
type diffServer struct {
	diff.UnimplementedDiffServer
}

func (diffServer) Apply(_ context.Context, q *diff.ApplyRequest) (*diff.ApplyResponse, error) {
	return &diff.ApplyResponse{Applied: &types.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar", Digest: q.Diff.Digest, Size: q.Diff.Size}}, nil
}
