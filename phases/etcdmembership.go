package phases

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// etcdStep is the next thing to do on the way of a host into etcd.
type etcdStep string

const (
	etcdAdd       etcdStep = "add"        // ask for a place, as a learner
	etcdStart     etcdStep = "start"      // the place is ours: write the manifest, and be promoted
	etcdVotes     etcdStep = "votes"      // there is nothing to do but to keep the manifest
	etcdWait      etcdStep = "wait"       // another host has the one place for a learner
	etcdRemove    etcdStep = "remove"     // a member that will never come
	etcdMoveAside etcdStep = "move aside" // data of a member that is none any more
)

// etcdView is all that the decision depends on.
type etcdView struct {
	EtcdMembers
	PeerURL string   // of this host
	Data    etcdData // on this host
	// Listens: something answers at PeerURL.
	Listens bool
	// Abandoned: the other learner has never been started, nothing answers at its peer URL,
	// and that for long enough.
	Abandoned bool
}

// etcdData names the member whose data a host has; zero: it has none.
type etcdData struct{ Member, Cluster uint64 }

// nextEtcdStep decides. Every run, also one after a kill at whatever point, gets to "votes"
// by taking its steps and looking again. Subject is the member that etcdRemove and etcdWait
// are about, or this host's own.
func nextEtcdStep(v etcdView) (step etcdStep, subject EtcdMember, err error) {
	have := v.Data.Member != 0
	if have && v.Data.Cluster != v.Cluster {
		return "", subject, errors.New("the data of etcd on this host are those of another cluster: if nobody needs them, remove them with `kubewright reset`")
	}
	own := v.byPeerURL(v.PeerURL)
	switch {
	case own != nil && have && v.Data.Member == own.ID:
		if own.Learner {
			return etcdStart, *own, nil
		}
		return etcdVotes, *own, nil
	case own != nil && !own.started():
		if have {
			return etcdMoveAside, *own, nil
		}
		return etcdStart, *own, nil
	case own != nil:
		// It was started here, and its data are gone: it can not come back under its id.
		if v.Listens {
			return "", subject, fmt.Errorf("etcd's member %s answers, but its data are not where the cluster's document has them: see the data-dir of whatever runs there", *own)
		}
		return etcdRemove, *own, nil
	}
	for _, m := range v.Members {
		if have && m.ID == v.Data.Member {
			return "", subject, fmt.Errorf("the data of etcd on this host are those of member %s, and this host would be at %s: give it its address of before with --apiserver-advertise-address", m, v.PeerURL)
		}
	}
	if have {
		return etcdMoveAside, subject, nil
	}
	for _, m := range v.Members {
		switch {
		case !m.Learner:
		case v.Abandoned && !m.started():
			return etcdRemove, m, nil
		default:
			return etcdWait, m, nil
		}
	}
	return etcdAdd, subject, nil
}

// walHead is how much of a file of etcd's write-ahead log it takes to know whose it is.
const walHead = 512

// parseWAL reads the member's id and its cluster's from the head of any file of the
// write-ahead log: each begins with a checksum and then such a record
// (etcd: server/storage/wal). A frame is its length, 8 bytes little-endian of which the
// highest says how much padding follows, and a protobuf record: 1 type, 2 crc, 3 data.
func parseWAL(head []byte) (d etcdData, err error) {
	const metadata = 1
	for len(head) > 8 {
		length := binary.LittleEndian.Uint64(head)
		size, padding := length&^(0xff<<56), uint64(0)
		if length>>63 == 1 {
			padding = length >> 56 & 7
		}
		head = head[8:]
		if size == 0 || size+padding > uint64(len(head)) {
			break
		}
		record, err := protoFields(head[:size])
		if err != nil {
			return d, err
		}
		if record.numbers[1] == metadata {
			m, err := protoFields(record.bytes[3])
			if err != nil {
				return d, err
			}
			d = etcdData{Member: m.numbers[1], Cluster: m.numbers[2]}
			if d.Member == 0 {
				break
			}
			return d, nil
		}
		head = head[size+padding:]
	}
	return d, errors.New("etcd's write-ahead log does not say whose it is")
}

type message struct {
	numbers map[protowire.Number]uint64
	bytes   map[protowire.Number][]byte
}

func protoFields(b []byte) (message, error) {
	f := message{map[protowire.Number]uint64{}, map[protowire.Number][]byte{}}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return f, protowire.ParseError(n)
		}
		b = b[n:]
		switch kind {
		case protowire.VarintType:
			f.numbers[number], n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.bytes[number], n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return f, protowire.ParseError(n)
		}
		b = b[n:]
	}
	return f, nil
}
