#!/bin/sh
# The inside of one node of a Kubernetes sandbox: run as the first process of new mount, PID, IPC, UTS and cgroup
# namespaces, with the node's network. Makes a root of its own over the machine's (what the node writes lands in FOLDER),
# file systems of its own for everything that two nodes on one kernel would fight over, and becomes INIT. Must not live
# here: what runs on the node.
#   enter-node.sh FOLDER HOSTNAME INIT [BIND]...
# FOLDER holds upper/ (files put there are the node's) and disk/ (containerd and kubelet keep theirs there; not tmpfs).
set -eu
folder=$1
name=$2
init=$3
shift 3

hostname "$name" 2>/dev/null || echo "$name" >/proc/sys/kernel/hostname
mount --make-rprivate /
mkdir -p "$folder/upper" "$folder/work" "$folder/root" "$folder/disk/containerd" "$folder/disk/kubelet" "$folder/disk/ambit"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work,index=off,xino=off" "$folder/root"
cd "$folder/root"

mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p run/sysctl run/lock run/netns
# Settings of the whole kernel that a kubelet insists on. It finds the values it wants and leaves the machine's alone.
shade() {
	[ -e "proc/sys/$1" ] || return 0
	file=run/sysctl/$(echo "$1" | tr / .)
	echo "$2" >"$file"
	mount --bind "$file" "proc/sys/$1"
}
shade vm/overcommit_memory 1
shade vm/panic_on_oom 0
shade kernel/panic 10
shade kernel/panic_on_oops 1
shade kernel/keys/root_maxkeys 1000000
shade kernel/keys/root_maxbytes 25000000

# The devices and interfaces of the node's own network; its own part of the cgroup hierarchies; its own pins.
mount -t sysfs sysfs sys
mount -t bpf bpf sys/fs/bpf
grep -E '^[^ ]+ [^ ]+ cgroup2? ' /proc/1/mounts >"$folder/work.cgroups" 2>/dev/null || true
if grep -q ' /sys/fs/cgroup cgroup2 ' "$folder/work.cgroups"; then
	mount -t cgroup2 cgroup2 sys/fs/cgroup
else
	mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
	while read -r _ where type options _; do
		case $where in /sys/fs/cgroup/*) ;; *) continue ;; esac
		mkdir -p ".$where"
		if [ "$type" = cgroup2 ]; then
			mount -t cgroup2 cgroup2 ".$where"
		else
			mount -t cgroup -o "$(echo "$options" | tr , '\n' | grep -vxE 'rw|ro|relatime|nosuid|nodev|noexec' | paste -sd,)" cgroup ".$where"
		fi
	done <"$folder/work.cgroups"
	mount -o remount,ro sys/fs/cgroup
fi
for extra in kernel/debug:debugfs kernel/tracing:tracefs kernel/security:securityfs; do
	[ ! -d "sys/${extra%%:*}" ] || mount -t "${extra##*:}" none "sys/${extra%%:*}" 2>/dev/null || true
done

mount --rbind /dev dev
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir -p var/lib/containerd var/lib/kubelet var/lib/ambit
# An overlay cannot be the upper layer of an overlay: images and volumes lie on the machine's disk itself.
mount --bind "$folder/disk/containerd" var/lib/containerd
mount --bind "$folder/disk/kubelet" var/lib/kubelet
# The machine's own is none of the node's business; sandboxes live there.
mount --bind "$folder/disk/ambit" var/lib/ambit
for bind; do
	mkdir -p ".$bind"
	mount --bind "$bind" ".$bind"
	mount -o remount,bind,ro ".$bind"
done

mkdir -p .old
pivot_root . .old
cd /
umount -l /.old
rmdir /.old
# Volumes that pods mount reach the containers, as on a machine whose init has shared its root.
mount --make-rshared /
# Version 2 of cgroups hands controllers down only from a directory without processes.
for system in /sys/fs/cgroup/system /sys/fs/cgroup/*/system; do
	[ ! -e "$system/cgroup.procs" ] || echo $$ >"$system/cgroup.procs"
done
echo ok >&3
exec "$init" 3>&- </dev/null
