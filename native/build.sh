#!/bin/sh
# Builds the addons of native/bpf and native/io into build/Release/, offline, with the pinned Node's headers. Does nothing
# when the sources, the Node and libbpf are those of the last build. What is missing on the machine it names.
#   native/build.sh                  what runs
#   native/build.sh --variant NAME   a test build of native/io as build/Release/ambit_io.NAME.node: faults (any system call can be
#                                    made to fail), asan (the same under AddressSanitizer)
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
node="$root/agent/bin/node"
case "$(uname -m)" in
x86_64) arch=x64 ;;
aarch64) arch=arm64 ;;
*)
	echo "native/build.sh: no pinned Node for $(uname -m)" >&2
	exit 1
	;;
esac
nodedir="$root/node_modules/node-linux-$arch"
[ -d "$nodedir/include/node" ] || {
	echo "native/build.sh: $nodedir is missing; run npm ci" >&2
	exit 1
}
missing=
for tool in g++ make python3 pkg-config; do command -v "$tool" >/dev/null || missing="$missing $tool"; done
command -v pkg-config >/dev/null && { pkg-config --exists libbpf || missing="$missing libbpf-dev"; }
[ -z "$missing" ] || {
	echo "native/build.sh: missing:$missing (apt-get install build-essential python3 pkg-config libbpf-dev)" >&2
	exit 1
}
if [ "${1:-}" = --variant ]; then
	variant=${2:?which variant: faults or asan}
	case "$variant" in
	faults) flags=-O2 ;;
	asan) flags="-O1 -g -fno-omit-frame-pointer -fsanitize=address" ;;
	*)
		echo "native/build.sh: there is no variant '$variant'; faults or asan" >&2
		exit 1
		;;
	esac
	out=build/Release/ambit_io.$variant.node
	stamp=build/ambit_io.$variant.stamp
	want=$(cat native/build.sh native/io/src/*.cc native/io/src/*.h "$nodedir/package.json" | sha256sum)
	if [ -f "$out" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then exit 0; fi
	mkdir -p build/Release
	exec 8>"build/.lock.$variant"
	flock 8
	if [ -f "$out" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then exit 0; fi
	echo "native/build.sh: building $out" >&2
	# shellcheck disable=SC2086
	g++ -std=c++20 -fPIC -shared -fvisibility=hidden -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers \
		-Wno-cast-function-type $flags -DAMBIT_IO_FAULTS -DNAPI_VERSION=9 -DNODE_ADDON_API_DISABLE_DEPRECATED \
		-DNAPI_CPP_EXCEPTIONS -DBUILDING_NODE_EXTENSION -I"$nodedir/include/node" -Inode_modules/node-addon-api \
		native/io/src/*.cc -o "$out"
	printf '%s\n' "$want" >"$stamp"
	exit 0
fi
stamp=build/addons.stamp
want=$( (
	cat binding.gyp native/*/src/*.cc native/*/src/*.h node_modules/node-addon-api/package.json "$nodedir/package.json"
	pkg-config --modversion libbpf
) | sha256sum)
if [ -f build/Release/ambit_bpf.node ] && [ -f build/Release/ambit_io.node ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then exit 0; fi

# Two builds at once (two test runs) would write the same files.
mkdir -p build
exec 9>build/.lock
flock 9
if [ -f build/Release/ambit_bpf.node ] && [ -f build/Release/ambit_io.node ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then exit 0; fi
echo "native/build.sh: building the addons" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Not `rebuild`: it would remove build/ with the lock inside. The pinned Node answers the `node -p` in binding.gyp.
if ! {
	PATH="$(dirname "$nodedir/bin/node"):$PATH" "$node" node_modules/node-gyp/bin/node-gyp.js configure \
		--nodedir="$nodedir" --loglevel=warn &&
		PATH="$(dirname "$nodedir/bin/node"):$PATH" "$node" node_modules/node-gyp/bin/node-gyp.js build \
			--nodedir="$nodedir" --loglevel=warn --jobs="$(nproc)"
} >"$log" 2>&1; then
	cat "$log" >&2
	exit 1
fi
grep -E 'warning:' "$log" >&2 || true
printf '%s\n' "$want" >"$stamp"
