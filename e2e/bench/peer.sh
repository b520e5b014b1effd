#!/bin/sh
# The peer of `kubewright up`: a cluster over SSH as a careful person would script it with kubeadm. All hosts
# at once get their files and images; each step begins as soon as what it needs is there.
#
#   peer.sh DIR CONTROL_PLANE WORKER...     addresses
#
# DIR holds ssh_config, files/ (what goes to / of each host), images-control-plane.tar, images-worker.tar,
# kubeadm.yaml and flannel.yaml.
set -eu
dir=$1 first=$2
shift 2
token=abcdef.0123456789abcdef # as in kubeadm.yaml
ignore=--ignore-preflight-errors=SystemVerification

on() { host=$1; shift; ssh -F "$dir/ssh_config" -o ControlMaster=auto -o ControlPath="$dir/%h" -o ControlPersist=10 "ops@$host" "$@"; }

prepare() { # HOST ROLE
	tar --directory "$dir/files" --owner root --group root -cf - . | on "$1" sudo tar --directory / --no-overwrite-dir -xf -
	on "$1" "sudo sh -ec 'sysctl --quiet --system >/dev/null; systemctl daemon-reload; systemctl enable --quiet --now containerd; systemctl enable --quiet kubelet'"
	on "$1" sudo ctr --namespace k8s.io images import - <"$dir/images-$2.tar" >/dev/null
}

for worker; do
	prepare "$worker" worker & eval "p_$(echo "$worker" | tr . _)=$!"
done
prepare "$first" control-plane
on "$first" "cat >kubeadm.yaml && sudo kubeadm init --config kubeadm.yaml $ignore" <"$dir/kubeadm.yaml" >"$dir/init.log" 2>&1
on "$first" sudo kubectl --kubeconfig /etc/kubernetes/admin.conf apply -f - <"$dir/flannel.yaml" >/dev/null
joins=
for worker; do
	eval "wait \$p_$(echo "$worker" | tr . _)"
	on "$worker" sudo kubeadm join "$first:6443" --token $token --discovery-token-unsafe-skip-ca-verification $ignore >"$dir/join-$worker.log" 2>&1 &
	joins="$joins $!"
done
for pid in $joins; do wait "$pid"; done
