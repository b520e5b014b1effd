# Makes an image's disk of a machine's that has been furnished. /var is a volume of each machine: what images hold
# goes beside it, to be linked by seed.
set -e
systemctl stop containerd
from=/var/lib/containerd
snapshots=io.containerd.snapshotter.v1.overlayfs/snapshots
blobs=io.containerd.content.v1.content/blobs/sha256
rm -rf /kind/containerd /kind/store
mkdir -p /kind/store/snapshots /kind/store/blobs /kind/containerd
cd $from
tar --exclude="./$snapshots/*" --exclude="./$blobs/*" -c . | tar -xp -C /kind/containerd
mkdir -p /kind/containerd/$snapshots /kind/containerd/$blobs
for dir in $snapshots/*; do
    [ -d "$dir" ] || continue
    n=${dir##*/}
    mkdir -m 0700 /kind/containerd/$snapshots/$n /kind/containerd/$snapshots/$n/work
    # What says that a file of a lower layer is gone cannot lie in a layer of this image.
    if [ -n "$(find $dir/fs -type c -print -quit)" ] ||
        tar --xattrs --xattrs-include='trusted.overlay.*' -c -C $dir fs | grep -aq trusted.overlay.; then
        tar --xattrs --xattrs-include='*' -cpf /kind/store/$n.tar -C $dir fs
    else
        cp -a $dir/fs /kind/store/snapshots/$n
        ln -s /kind/store/snapshots/$n /kind/containerd/$snapshots/$n/fs
    fi
done
for blob in $blobs/*; do
    cp -a $blob /kind/store/blobs/
    ln -s /kind/store/blobs/${blob##*/} /kind/containerd/$blob
done
# /var is copied into a volume of each machine, file by file.
[ -L /var/lib/dpkg ] || { mv /var/lib/dpkg /kind/dpkg && ln -s /kind/dpkg /var/lib/dpkg; }
# A machine in a container has no use for these, which took a second of its two of booting.
for unit in modprobe@.service systemd-logind.service systemd-sysusers.service systemd-update-utmp.service \
    systemd-update-utmp-runlevel.service systemd-user-sessions.service getty.target; do
    ln -sfn /dev/null /etc/systemd/system/$unit
done
echo "$version" >/kind/version
rm -rf /var/lib/kubewright /var/log/journal /run/kubewright
: >/etc/machine-id
rm -f /kind/product_uuid /kind/product_name /kind/address-*
find /var/log -type f -exec truncate -s 0 {} +
