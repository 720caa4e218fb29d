#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qcache {

// Files as tests need them. Each throws std::runtime_error, which GoogleTest reports as a failure of the test.

/// Makes or replaces a file (its inode stays where it existed); makes the folders above it.
void write_file(const std::string& path, std::string_view content);
[[nodiscard]] std::string read_file(const std::string& path);
/// Changes one bit of the byte at `offset`, as a disk does that goes bad.
void flip_byte(const std::string& path, uint64_t offset);
void make_directories(const std::string& path);
/// A symbolic link at `path` with the text `target`; makes the folders above it.
void make_link(const std::string& target, const std::string& path);
/// Sets a file's modification time (its ctime becomes now).
void set_mtime(const std::string& path, int64_t mtime_ns);

[[nodiscard]] std::string_view as_text(const std::vector<std::byte>& bytes);

}  // namespace qcache
