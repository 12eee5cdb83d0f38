#!/bin/sh
# Builds the CNI plugin, a static program, as build/cni/ambit-cni. Does nothing when the sources are those of the last build.
#   native/cni/build.sh          what runs
#   native/cni/build.sh --asan   a test build as build/cni/ambit-cni.asan, under AddressSanitizer with leaks and UBSan, and
#                                build/cni/echo.asan, its reader of JSON alone (test/echo.c)
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
compiler=$(command -v "${CC:-cc}" || true)
[ -n "$compiler" ] || {
	echo "native/cni/build.sh: missing: a C compiler (apt-get install build-essential)" >&2
	exit 1
}
out=build/cni/ambit-cni
# It runs as root on what others wrote.
flags="-O2 -fPIE -static-pie -fstack-protector-strong -fstack-clash-protection -D_FORTIFY_SOURCE=2 -Wl,-z,relro,-z,now -s"
case "${1:-}" in
'') ;;
--asan)
	out=$out.asan
	flags="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
	;;
*)
	echo "native/cni/build.sh: there is no option '$1'; --asan" >&2
	exit 1
	;;
esac
want=$( (
	cat native/cni/build.sh native/cni/*.c native/cni/*.h native/cni/test/*.c
	"$compiler" --version
) | sha256sum)
if [ -f "$out" ] && [ "$(cat "$out.stamp" 2>/dev/null)" = "$want" ]; then exit 0; fi
mkdir -p build/cni
# Two builds at once (two test runs) would write the same files.
exec 9>build/cni/.lock
flock 9
if [ -f "$out" ] && [ "$(cat "$out.stamp" 2>/dev/null)" = "$want" ]; then exit 0; fi
echo "native/cni/build.sh: building $out" >&2
# shellcheck disable=SC2086
"$compiler" -std=gnu11 -Wall -Wextra -Wshadow -Werror $flags native/cni/*.c -o "$out.tmp"
if [ "${1:-}" = --asan ]; then
	# shellcheck disable=SC2086
	"$compiler" -std=gnu11 -Wall -Wextra -Wshadow -Werror $flags -Inative/cni native/cni/json.c native/cni/text.c \
		native/cni/test/echo.c -o build/cni/echo.asan
fi
# In one step: the old one may be running.
mv "$out.tmp" "$out"
printf '%s\n' "$want" >"$out.stamp"
