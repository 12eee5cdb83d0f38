#!/bin/sh
# Turns a fresh mount, PID, IPC and UTS namespace (unshare did that) into a container: a root file system of its own over
# the machine's (writes stay in memory), its own /proc, /sys, /dev, /run, nothing of the machine's state in reach, then
# the command with a container's default capabilities. Arguments: see container.ts. Must not live here: the network.
#   enter-pod.sh ROOT HOSTNAME ETC BINDS -- COMMAND…
# BINDS: a file, one `ro|rw<TAB>source<TAB>target` a line. Writes "ok" to descriptor 3 when the command is about to start.
set -eu
root=$1 hostname=$2 etc=$3 binds=$4
shift 5

mount -n -t tmpfs -o mode=755,size=512m,nosuid,nodev ambit-layer "$root"
mkdir "$root/upper" "$root/work" "$root/view"
mount -n -t overlay -o "lowerdir=/,upperdir=$root/upper,workdir=$root/work,nosuid,nodev" ambit-root "$root/view"
v=$root/view

# What a container image would not contain: other people's homes, run-time state, temporary files.
for dir in run tmp var/tmp root home mnt media; do
	[ -d "$v/$dir" ] || mkdir -p "$v/$dir"
	[ ! -L "$v/$dir" ] || continue
	mount -n -t tmpfs -o mode=755,size=2g,nosuid,nodev ambit-empty "$v/$dir"
done
chmod 1777 "$v/tmp" "$v/var/tmp"
mkdir -p "$v/run/lock"

mount -n -t proc -o nosuid,nodev,noexec proc "$v/proc"
for name in sys sysrq-trigger irq bus fs; do
	[ -e "$v/proc/$name" ] || continue
	mount -n --bind "$v/proc/$name" "$v/proc/$name"
	mount -n -o remount,bind,ro,nosuid,nodev,noexec "$v/proc/$name"
done
for name in kcore keys timer_list sched_debug latency_stats; do
	[ ! -e "$v/proc/$name" ] || mount -n --bind /dev/null "$v/proc/$name"
done
# A new sysfs shows this network namespace only, and holds neither the cgroups nor the BPF file system.
mount -n -t sysfs -o ro,nosuid,nodev,noexec sysfs "$v/sys"
[ ! -d "$v/sys/firmware" ] || mount -n -t tmpfs -o ro,size=4k ambit-empty "$v/sys/firmware"

mount -n -t tmpfs -o mode=755,size=64k,nosuid ambit-dev "$v/dev"
for name in null zero full random urandom tty; do
	: >"$v/dev/$name"
	mount -n --bind "/dev/$name" "$v/dev/$name"
done
mkdir "$v/dev/pts" "$v/dev/shm" "$v/dev/mqueue"
mount -n -t devpts -o newinstance,ptmxmode=0666,mode=620,nosuid,noexec devpts "$v/dev/pts"
mount -n -t tmpfs -o mode=1777,size=64m,nosuid,nodev,noexec shm "$v/dev/shm"
mount -n -t mqueue -o nosuid,nodev,noexec mqueue "$v/dev/mqueue" 2>/dev/null || :
ln -s pts/ptmx "$v/dev/ptmx"
ln -s /proc/self/fd "$v/dev/fd"
ln -s /proc/self/fd/0 "$v/dev/stdin"
ln -s /proc/self/fd/1 "$v/dev/stdout"
ln -s /proc/self/fd/2 "$v/dev/stderr"
mount -n -o remount,nosuid,nodev "$v/dev"

for name in resolv.conf hosts hostname; do
	rm -f "$v/etc/$name"
	cp "$etc/$name" "$v/etc/$name"
done
rm -f "$v/etc/mtab"
ln -s /proc/self/mounts "$v/etc/mtab"

hostname "$hostname"
cd "$v"
mkdir -p .machine
pivot_root . .machine
cd /
# From inside, so that a target's symbolic links (/var/run) lead into this root; sources are canonical paths.
tab=$(printf '\t')
while IFS="$tab" read -r mode from to; do
	[ -n "$from" ] || continue
	if [ -d "/.machine$from" ]; then
		mkdir -p "$to"
	else
		mkdir -p "$(dirname "$to")"
		[ -e "$to" ] || : >"$to"
	fi
	mount -n --bind "/.machine$from" "$to"
	mount -n -o "remount,bind,$mode,nosuid,nodev" "$to"
done <"/.machine$binds"

umount -n -l /.machine
rmdir /.machine

echo ok >&3
exec 3>&-
exec "$@"
