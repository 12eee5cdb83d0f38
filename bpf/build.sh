#!/bin/sh
# Compiles every bpf/*.bpf.c and bpf/test/*.bpf.c into bpf/build/<name>.bpf.o (CO-RE, one object for all kernels). Only
# what changed: an object is made anew when its source, a header of bpf/, this script or the compiler did.
set -eu
root=$(cd "$(dirname "$0")" && pwd)
cd "$root"
clang=${CLANG:-}
[ -n "$clang" ] || for name in clang clang-20 clang-19 clang-18 clang-17 clang-16 clang-15 clang-14; do
	command -v "$name" >/dev/null && clang=$name && break
done
[ -n "$clang" ] || {
	echo "bpf/build.sh: missing: clang (apt-get install clang llvm)" >&2
	exit 1
}
[ -e /usr/include/bpf/bpf_helpers.h ] || {
	echo "bpf/build.sh: missing: bpf/bpf_helpers.h (apt-get install libbpf-dev)" >&2
	exit 1
}
case "$(uname -m)" in
x86_64) arch=x86 ;;
aarch64) arch=arm64 ;;
*) arch=$(uname -m) ;;
esac
# asm/types.h lies in the multiarch folder, which clang does not search for the bpf target.
multiarch=/usr/include/$(uname -m)-linux-gnu

mkdir -p build
exec 9>build/.lock
flock 9
common=$( (
	cat build.sh lib/*.h test/*.h 2>/dev/null
	"$clang" --version
) | sha256sum | cut -c1-32)
failed=0
for source in *.bpf.c test/*.bpf.c; do
	[ -e "$source" ] || continue
	name=$(basename "$source" .bpf.c)
	object=build/$name.bpf.o
	want="$common $(sha256sum <"$source" | cut -c1-32)"
	[ -f "$object" ] && [ "$(cat "build/$name.stamp" 2>/dev/null)" = "$want" ] && continue
	if "$clang" -O2 -g -target bpf -mcpu=v3 "-D__TARGET_ARCH_$arch" -I. -I"$multiarch" \
		-Wall -Wextra -Werror -Wno-unused-parameter -Wno-missing-declarations -Wno-compare-distinct-pointer-types \
		-c "$source" -o "build/$name.tmp.o"; then
		# Line and type information for a debugger, many times the size of the program; BTF stays.
		strip=$(command -v llvm-strip || command -v "llvm-strip-${clang##*-}" || true)
		[ -z "$strip" ] || "$strip" -g "build/$name.tmp.o"
		mv "build/$name.tmp.o" "$object"
		printf '%s\n' "$want" >"build/$name.stamp"
		echo "bpf/build.sh: $object" >&2
	else
		rm -f "build/$name.tmp.o"
		failed=1
	fi
done
exit $failed
