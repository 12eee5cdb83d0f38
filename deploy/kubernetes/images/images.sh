#!/bin/sh
# Makes the container images that a cluster needs before it has any of its own, as archives that `ctr images import` takes,
# and prints their directory: pause (our own program), busybox (Debian's busybox-static), coredns (built by ../build.sh).
# There is no registry and nothing is fetched. Made once for each version of what goes in.
#   images.sh BUILD_DIRECTORY
set -eu
here=$(dirname "$(readlink -f "$0")")
programs=$1
busybox=/bin/busybox

fail() {
	printf 'kubernetes: %s\n' "$1" >&2
	printf 'kubernetes: try: %s\n' "$2" >&2
	exit 1
}
file -L $busybox 2>/dev/null | grep -q 'statically linked' || [ -e /usr/share/doc/busybox-static ] ||
	fail "no static busybox here" "apt-get install -y busybox-static"

stamp=$(cat "$0" "$here/pause.c" $busybox | sha256sum | cut -c1-12)
out=$programs/images-$stamp
[ -e "$out/done" ] || rm -rf "$out" "$out.part"
if [ -e "$out/done" ]; then
	echo "$out"
	exit 0
fi
work=$out.part
mkdir -p "$work"

# archive NAME ROOT CONFIG: packs ROOT as the one layer of ambit.local/NAME:1. Same files, same bytes.
archive() {
	mkdir -p "$work/$1.image"
	tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$2" -cf "$work/$1.image/layer.tar" .
	digest=$(sha256sum "$work/$1.image/layer.tar" | cut -d' ' -f1)
	architecture=$(case $(uname -m) in aarch64 | arm64) echo arm64 ;; *) echo amd64 ;; esac)
	printf '{"architecture":"%s","os":"linux","created":"1970-01-01T00:00:00Z","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"1970-01-01T00:00:00Z"}]}' \
		"$architecture" "$3" "$digest" >"$work/$1.image/config.json"
	printf '[{"Config":"config.json","RepoTags":["ambit.local/%s:1"],"Layers":["layer.tar"]}]' "$1" >"$work/$1.image/manifest.json"
	tar --sort=name --mtime=@0 --owner=0 --group=0 -C "$work/$1.image" -cf "$work/$1.tar" manifest.json config.json layer.tar
	rm -rf "$work/$1.image" "$2"
}

mkdir -p "$work/pause"
cc -static -Os -Wall -Wextra -Werror -s -o "$work/pause/pause" "$here/pause.c"
cp "$work/pause/pause" "$work/init"
archive pause "$work/pause" '{"Entrypoint":["/pause"],"User":"65535:65535"}'

mkdir -p "$work/busybox/bin" "$work/busybox/etc" "$work/busybox/tmp" "$work/busybox/root" "$work/busybox/var/run" "$work/busybox/home"
chmod 1777 "$work/busybox/tmp"
cp $busybox "$work/busybox/bin/busybox"
for applet in $($busybox --list); do
	[ "$applet" = busybox ] || ln -s busybox "$work/busybox/bin/$applet"
done
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n' >"$work/busybox/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$work/busybox/etc/group"
printf 'hosts: files dns\n' >"$work/busybox/etc/nsswitch.conf"
archive busybox "$work/busybox" '{"Cmd":["sh"],"Env":["PATH=/bin"]}'

mkdir -p "$work/coredns"
cp "$programs/coredns" "$work/coredns/coredns"
archive coredns "$work/coredns" '{"Entrypoint":["/coredns"],"User":"65532:65532"}'

touch "$work/done"
mv "$work" "$out"
echo "$out"
