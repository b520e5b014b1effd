#!/bin/sh
# Gives a new machine the images of its own image, before containerd starts. What never changes stays where it
# is, and links lead there: nothing of it is copied.
set -e
to=/var/lib/containerd
[ ! -e $to/io.containerd.metadata.v1.bolt ] || exit 0
new=$to.new
mountpoint -q $to && new=$to/.new # a folder is moved at once within one file system
rm -rf $new
cp -a /kind/containerd $new
for tar in /kind/store/*.tar; do
    [ -e "$tar" ] || continue
    snapshot=${tar##*/}
    tar --xattrs --xattrs-include='*' -xpf "$tar" -C "$new/io.containerd.snapshotter.v1.overlayfs/snapshots/${snapshot%.tar}"
done
if [ $new = $to/.new ]; then
    metadata=$new/io.containerd.metadata.v1.bolt
    for part in $new/*; do
        [ $part = $metadata ] || { rm -rf $to/${part##*/} && mv $part $to/; }
    done
    mv $metadata $to/ # last: who finds it here, finds the rest
    rmdir $new
else
    rm -rf $to
    mv -T $new $to
fi
