package cloud

import "context"

// Machines are what instances are.
type Machines interface {
	// Start boots a machine, and returns when it can be reached. It is asked from several goroutines at once.
	Start(ctx context.Context, s Spec) error
	// Stop removes the machine of an instance. There may be none.
	Stop(id string) error
}

// Spec is what a machine must be.
type Spec struct {
	ID             string // of the instance
	Name           string // its private DNS name
	Address        string // its private one, in its subnet
	Region, Zone   string
	Type, Arch     string   // t3.medium, x86_64 or arm64
	AuthorizedKeys []string // of the user that the image has: the key pair's and those of the user data
	UserData       string
}

func (q *call) spec(r *resource) Spec {
	s := Spec{ID: r.id, Name: r.str("privateDnsName"), Address: r.str("privateIpAddress"), Region: q.Region, Zone: r.str("placement.availabilityZone"),
		Type: r.str("instanceType"), Arch: r.str("architecture"), UserData: r.attrs["userData"]}
	for _, k := range q.with("key-pair", "keyName", r.str("keyName")) {
		s.AuthorizedKeys = append(s.AuthorizedKeys, k.attrs["public"])
	}
	return s
}

// Close ends what the cloud does by itself: it forwards no more, and no machine is being started or stopped. Those
// that run stay.
func (c *Cloud) Close() {
	c.stop()
	c.running.Wait()
}
