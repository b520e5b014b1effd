#!/bin/bash
# What a machine in a container does before systemd starts, at every boot.
set -e
[ -w /sys ] && mount -o remount,ro /sys # systemd then leaves devices alone
mount --make-rshared /

# An identity of its own, kept over restarts.
[ -s /etc/machine-id ] || tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
for f in /sys/class/dmi/id/product_uuid /sys/class/dmi/id/product_name; do
    [ -e $f ] || continue
    name=/kind/${f##*/}
    [ -s "$name" ] || case $f in *uuid) cat /proc/sys/kernel/random/uuid ;; *) echo kind ;; esac >"$name"
    mount -o ro,bind "$name" $f
done

# An engine answers DNS at 127.0.0.11, on ports that NAT rules of its own name. In a pod that address is the pod
# itself, and CoreDNS, forwarding to it, would find a loop and end. So the gateway's address stands for it.
gateway=$(ip -4 route show default | awk '{print $3; exit}')
if [ -n "$gateway" ] && grep -q 127.0.0.11 /etc/resolv.conf; then
    sysctl -qw net.ipv4.conf.all.route_localnet=1
    iptables-save -t nat | awk '$2 == "DOCKER_OUTPUT" {
        for (i = 1; i < NF; i++) { if ($i == "-p") proto = $(i+1); if ($i == "--to-destination") print proto, $(i+1) } }' |
    while read -r proto to; do
        for chain in OUTPUT PREROUTING; do
            iptables -t nat -A "$chain" -d "$gateway" -p "$proto" --dport 53 -j DNAT --to-destination "$to"
        done
    done
    resolv=$(sed "s/127.0.0.11/$gateway/" /etc/resolv.conf)
    [ -z "$KIND_DNS_SEARCH" ] || resolv="$(echo "$resolv" | grep -v ^search)
search $KIND_DNS_SEARCH"
    echo "$resolv" >/etc/resolv.conf # a mount: it cannot be replaced
fi

/kind/readdress || echo "what was written for another address is not all written for this one"

[ -e /dev/kmsg ] || ln -s /dev/console /dev/kmsg # the kubelet reads it
[ -e /sys/fs/cgroup/cgroup.controllers ] || echo "detected cgroup v1"
export container=docker # to systemd; not by the image, as nerdctl commits no environment
exec /sbin/init
