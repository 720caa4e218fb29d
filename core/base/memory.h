#pragma once

#include <cstdint>
#include <string>

namespace qcache {

/// Bytes of memory that this process may use for itself and its children: what the system could give now without
/// swapping and the `held` bytes that they have of it already, or less where a control group (of either version) or a
/// limit of the process (RLIMIT_AS, RLIMIT_DATA) allows less in all. What cannot be found out does not count. Asks the
/// kernel each time; any thread. Tests put a folder of their own before the kernel's files.
[[nodiscard]] uint64_t usable_memory(uint64_t held = 0, const std::string& root = {});

/// Gives memory that was freed back to the system. malloc keeps it else, in each thread's arena. Takes up to some
/// milliseconds; any thread.
void return_freed_memory();

}  // namespace qcache
