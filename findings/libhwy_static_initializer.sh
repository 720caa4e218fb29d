#!/usr/bin/env bash
# Loading Debian's Highway (libhwy1 1.0.3-3+deb12u1) costs milliseconds, whether a program calls it or not.
#
# Version: Debian 12's libhwy1 1.0.3-3+deb12u1, compared with its libdeflate0 1.14-1.
# Behaviour: a static initializer of libhwy.so.1 (in its nanobenchmark, the `hwy::platform::TimerResolution()` that perf
#   shows) runs the timer in a loop when the library is loaded, to learn its resolution.
# One would guess: a library of SIMD wrappers, of which most is headers, loads as fast as any other of its size; what a
#   program does not call costs it nothing. libdeflate0 1.14-1 is here to compare with.
# Met where: commands that run for some milliseconds spend a third of them there, if they dispatch by Highway.
# Seen on 2026-11-30 (Debian 12, amd64, a virtual machine of 2 cores that was busy):
#   libhwy1 1.0.3-3+deb12u1, libdeflate0 1.14-1
#   loading libhwy.so.1: 10.46 ms, loading libdeflate.so.0: 0.24 ms (medians of 15)
#   AS FOUND: 44 times as long
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
chmod 755 .
apt-get -qq download libhwy1=1.0.3-3+deb12u1 libdeflate0=1.14-1 2>/dev/null
for package in *.deb; do
  dpkg-deb --extract "$package" root
done
echo "$(dpkg-deb --show --showformat '${Package} ${Version}' libhwy1_*.deb), $(dpkg-deb --show --showformat \
  '${Package} ${Version}' libdeflate0_*.deb)"

python3 - root/usr/lib/*/libhwy.so.1 root/usr/lib/*/libdeflate.so.0 <<'EOF'
import statistics
import subprocess
import sys

LOAD = """
import ctypes, sys, time
begin = time.perf_counter()
ctypes.CDLL(sys.argv[1])
print((time.perf_counter() - begin) * 1e3)
"""


def median_ms(library):
    times = [float(subprocess.run([sys.executable, "-c", LOAD, library], capture_output=True, text=True, check=True).stdout)
             for _ in range(15)]
    return statistics.median(times)


highway, other = (median_ms(library) for library in sys.argv[1:])
print(f"loading libhwy.so.1: {highway:.2f} ms, loading libdeflate.so.0: {other:.2f} ms (medians of 15)")
if highway < 4 * other:
    sys.exit("CHANGED: both load alike")
print(f"AS FOUND: {highway / other:.0f} times as long")
EOF
