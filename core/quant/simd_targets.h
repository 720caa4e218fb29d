#pragma once

// Included before Highway by every kernel file and by tests that walk the targets.

/// The instruction sets that kernels are compiled for are SSE4 and AVX2 on x86 and NEON on Arm. Machines with AVX-512
/// run the AVX2 kernels: no code makes bytes that are served before its tests have run, and nobody has had such a
/// machine. The others would double the compile time for machines that gain nothing from them.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)

/// Whether the target being compiled has no vectors: the scalar reference runs there.
#define QCACHE_SCALAR_TARGET (HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128)
