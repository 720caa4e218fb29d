#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace qcache {

/// Puts a vector's elements at the start of a page. Stateless, so any thread may free what another one allocated.
/// Throws std::bad_alloc as std::allocator.
template <typename T>
class PageAllocator {
 public:
  using value_type = T;

  PageAllocator() = default;
  template <typename U>
  explicit PageAllocator(const PageAllocator<U>& /*other*/) {}

  T* allocate(size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), kPage)); }
  void deallocate(T* memory, size_t /*count*/) { ::operator delete(memory, kPage); }

  friend bool operator==(const PageAllocator& /*a*/, const PageAllocator& /*b*/) { return true; }

 private:
  static constexpr std::align_val_t kPage{4096};
};

/// Bytes that are read from files. malloc puts large buffers 16 bytes after the start of a page, where the
/// kernel's copies out of a page-aligned part of a file are slow: processors with fast short `rep movsb` (seen on an
/// AMD EPYC) copy at a quarter of their speed or less where the destination is, modulo 4096, 1 to 31 bytes after the
/// source (docs/ARCHITECTURE.md, "Where a first read spends its time").
using PageBuffer = std::vector<std::byte, PageAllocator<std::byte>>;

}  // namespace qcache
