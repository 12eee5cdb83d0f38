#!/bin/sh
# Builds the holder, a static program, as build/holder/ambit-holder. Does nothing when the sources are those of the last build.
#   native/holder/build.sh          what runs
#   native/holder/build.sh --asan   a test build as build/holder/ambit-holder.asan, under AddressSanitizer with leaks and UBSan
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
compiler=$(command -v "${CC:-cc}" || true)
[ -n "$compiler" ] || {
	echo "native/holder/build.sh: missing: a C compiler (apt-get install build-essential)" >&2
	exit 1
}
out=build/holder/ambit-holder
flags="-O2 -static"
case "${1:-}" in
'') ;;
--asan)
	out=$out.asan
	flags="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
	;;
*)
	echo "native/holder/build.sh: there is no option '$1'; --asan" >&2
	exit 1
	;;
esac
want=$( (
	cat native/holder/build.sh native/holder/*.c native/holder/*.h
	"$compiler" --version
) | sha256sum)
if [ -f "$out" ] && [ "$(cat "$out.stamp" 2>/dev/null)" = "$want" ]; then exit 0; fi
mkdir -p build/holder
# Two builds at once (two test runs) would write the same files.
exec 9>build/holder/.lock
flock 9
if [ -f "$out" ] && [ "$(cat "$out.stamp" 2>/dev/null)" = "$want" ]; then exit 0; fi
echo "native/holder/build.sh: building $out" >&2
# shellcheck disable=SC2086
"$compiler" -std=gnu11 -Wall -Wextra -Wshadow -Werror $flags native/holder/*.c -o "$out.tmp"
# In one step: the old one may be running.
mv "$out.tmp" "$out"
printf '%s\n' "$want" >"$out.stamp"
