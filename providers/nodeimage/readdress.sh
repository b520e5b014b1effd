#!/bin/bash
# A machine that comes back may have another address: the engine gives them anew at each start. Before the kubelet starts,
# what was written for the old one is written for the new one: manifests, kubeconfigs, flags, certificates.
set -e
k=/etc/kubernetes
changed=
rm -f /kind/lost /kind/address-?.new
for v in 4 6; do
    now=$(ip -$v -o addr show dev eth0 scope global 2>/dev/null | awk '{split($4, a, "/"); print a[1]; exit}')
    had=$(cat /kind/address-$v 2>/dev/null || true)
    [ -n "$now" ] || continue
    if [ -n "$had" ] && [ "$had" != "$now" ]; then
        changed="$changed $had=$now"
    fi
    echo "$now" >/kind/address-$v.new
done

# An address counts once all is written for it: what a boot has left undone, the next one does.
remember() {
    for v in 4 6; do
        [ ! -e /kind/address-$v.new ] || mv /kind/address-$v.new /kind/address-$v
    done
}
if [ -z "$changed" ] || [ ! -e /var/lib/kubelet/config.yaml ]; then
    remember
    exit 0
fi
# The manifest of the first member knows no others, but the document beside it does.
if grep -qs 'initial-cluster=[^,]*,' $k/manifests/etcd.yaml || [ "$(grep -so 'role: control-plane' /kind/kubewright.json | wc -l)" -gt 1 ]; then
    # Nobody can tell the other members' new addresses from here, and none of them would answer at the old ones.
    echo "addresses have changed ($changed ), and etcd has several members: this control plane does not come back; make the cluster anew" | tee /kind/lost
    exit 0
fi

# An address as openssl prints it, which does not shorten it.
long() {
    a=$1
    colons=${a//[^:]/}
    while [ -n "$colons" ] && [ ${#colons} -lt 7 ]; do
        a=${a/::/:0::} colons=$colons:
    done
    a=${a/::/:0:}
    echo "${a^^}"
}

# Signs a certificate again, with its key, for the same but for the address.
again() { # NAME CA USAGE
    names=$(openssl x509 -in "$1.crt" -noout -ext subjectAltName | tail -n +2 | tr -d ' ' | sed 's/IPAddress:/IP:/g')
    new=$names
    for c in $changed; do new=$(echo "$new" | sed "s/IP:$(long "${c%=*}")\(,\|$\)/IP:${c#*=}\1/g"); done
    [ "$new" != "$names" ] || return 0
    days=$((($(date -d "$(openssl x509 -in "$1.crt" -noout -enddate | cut -d= -f2)" +%s) - $(date +%s)) / 86400))
    openssl x509 -x509toreq -in "$1.crt" -signkey "$1.key" -out "$1.csr" 2>/dev/null
    printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\nextendedKeyUsage=%s\nsubjectAltName=%s\n' "$3" "$new" >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA "$2.crt" -CAkey "$2.key" -set_serial "0x$(openssl rand -hex 8)" -days "$days" -sha256 -extfile "$1.ext" -out "$1.new" 2>/dev/null
    rm -f "$1.csr" "$1.ext"
    mv "$1.new" "$1.crt"
}
if [ -e $k/pki/ca.key ]; then
    again $k/pki/apiserver $k/pki/ca serverAuth
    again /var/lib/kubelet/pki/kubelet $k/pki/ca serverAuth
elif [ -e /var/lib/kubelet/pki/kubelet.crt ]; then
    rm -f /var/lib/kubelet/pki/kubelet.crt /var/lib/kubelet/pki/kubelet.key # a worker has no CA: its kubelet makes another
fi
if [ -e $k/pki/etcd/ca.key ]; then
    again $k/pki/etcd/server $k/pki/etcd/ca serverAuth,clientAuth
    again $k/pki/etcd/peer $k/pki/etcd/ca serverAuth,clientAuth
fi
for f in $k/manifests/*.yaml $k/*.conf /var/lib/kubelet/kubeadm-flags.env /var/lib/kubelet/config.yaml; do
    [ -e "$f" ] || continue
    for c in $changed; do # an address in words: not a part of a longer one
        old=$(echo "${c%=*}" | sed 's/\./\\./g')
        if grep -q "$old" "$f"; then
            sed "s/\(^\|[^0-9a-f.:]\)$old\([^0-9a-f.]\|$\)/\1${c#*=}\2/g" "$f" >/kind/readdressed
            cat /kind/readdressed >"$f"
            rm /kind/readdressed
        fi
    done
done
remember
echo "addresses have changed:$changed"
