// Package probe is what runs on a host while it is found out which packets get from host to host.
//
// In go tasks, a line of JSON each; out comes an answer to each of them. The first one says where to
// listen, further ones where to send, the last one asks what has come. When its input ends, so does
// it. It imports next to nothing: it is sent to every host.
package probe

// Task is what a host is asked to do. Empty fields ask for nothing.
type Task struct {
	// Run is in every datagram, so that those of nobody else count.
	Run string `json:"run,omitempty"`
	// Name is this host's, which its datagrams have as well; Address is where it listens. With the first task alone.
	Name    string `json:"name,omitempty"`
	Address string `json:"address,omitempty"`
	Listen  []Port `json:"listen,omitempty"`
	Seconds int    `json:"seconds,omitempty"` // until it ends by itself; 0: 60
	Send    []Send `json:"send,omitempty"`
	Report  bool   `json:"report,omitempty"` // what has come
}

// Port is one of TCP or UDP.
type Port struct {
	Network string `json:"network"` // tcp, udp
	Number  uint16 `json:"number"`
}

// Send is a connection to be made, or datagrams to be sent until each is acknowledged.
type Send struct {
	To      string `json:"to"` // the name of the host there
	Address string `json:"address"`
	Port    Port   `json:"port"`
	// Sizes of UDP's packets in bytes, with all headers that IP counts. They may not be fragmented.
	Sizes []int `json:"sizes,omitempty"`
}

// Answer is what came of a task.
type Answer struct {
	Taken []Port `json:"taken,omitempty"` // somebody else listens there
	// Refused says why nobody can listen at a port, for another reason.
	Refused    map[string]string `json:"refused,omitempty"` // by network and number, udp/8472
	Interfaces []Interface       `json:"interfaces,omitempty"`
	Failed     []Failed          `json:"failed,omitempty"` // of the TCP connections
	Received   []Received        `json:"received,omitempty"`
}

// Interface is one with addresses.
type Interface struct {
	Name      string   `json:"name"`
	MTU       int      `json:"mtu"`
	Addresses []string `json:"addresses"`
}

// Failed is a connection that was not made.
type Failed struct {
	To   string `json:"to"`
	Port Port   `json:"port"`
	Why  string `json:"why"`
}

// Received is a datagram that has come.
type Received struct {
	From string `json:"from"`
	Port Port   `json:"port"`
	Size int    `json:"size"`
}
