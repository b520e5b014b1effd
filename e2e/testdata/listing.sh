# All of a host that a node changes: what reset must bring back. Left out: the journal and
# the lock, /var/log, systemd's own state, loaded modules.
LC_ALL=C
echo "## files"
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var -o -path /mnt -o -path /root -o -path /lib/modules \) -prune -o ! -type d -printf '%p %y %m %U:%G %s %l %T@\n' -o -printf '%p %y %m %U:%G\n' | sort
find /var -xdev \( -path /var/log -o -path /var/lib/kubewright -o -path '/var/lib/systemd' -o -path '/var/tmp/systemd-*' -o -path /var/lib/private \) -prune -o ! -type d -printf '%p %y %m %U:%G %s %l %T@\n' -o -printf '%p %y %m %U:%G\n' | sort
find /run -xdev \( -path /run/kubewright -o -path '/run/systemd' -o -path /run/log -o -path /run/credentials -o -path /run/udev -o -path /run/user -o -path /run/mount \) -prune -o ! -type p -printf '%p %y %m %U:%G\n' | sort
echo "## mounts"
awk '{print $2, $3}' /proc/mounts | grep -v binfmt | sort
echo "## links"
ip -o link show | sed 's/^[0-9]*: //; s/@.*//; s/:.*//' | sort
echo "## routes"
ip route | sort
echo "## rules"
iptables-save | grep -v '^#' | sed 's/\[[0-9:]*\]//'
ip6tables-save | grep -v '^#' | sed 's/\[[0-9:]*\]//'
nft list ruleset | sed "s,counter packets [0-9]* bytes [0-9]* ,,"
echo "## cgroups"
find /sys/fs/cgroup -mindepth 1 -type d ! -path '*/system.slice/*' ! -path '*/user.slice*' ! -path '*.scope' ! -path '*binfmt*' | sort
echo "## units"
systemctl list-unit-files --no-legend --no-pager | awk '{print $1, $2}' | sort
systemctl list-units --all --no-legend --no-pager --plain --type service,slice,socket | awk '{print $1, $2, $3}' | grep -v '^systemd-\|^user\|^run-\|^modprobe@' | sort
echo "## sysctls"
sysctl -a 2>/dev/null | grep -v -e '^fs\.\(dentry-state\|file-nr\|inode\|quota\|aio-nr\)' -e 'random\.' -e 'nf_conntrack_count' -e 'net\.ipv[46]\.\(conf\|neigh\)\.veth' -e '^kernel\.\(ns_last_pid\|pty\.nr\)' -e 'mm_stats\|sched_domain' | sort
echo "## processes"
ps -eo comm --no-headers | grep -e containerd -e kube -e etcd -e flannel -e coredns -e pause | sort
true
