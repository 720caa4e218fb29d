#include "core/base/page_buffer.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace qcache {
namespace {

TEST(PageBufferTest, StartsOnAPageHoweverItCameToItsSize) {
  for (const size_t size : {size_t{1}, size_t{4096}, size_t{100'000}, size_t{1} << 20U}) {
    PageBuffer buffer(size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 4096, 0U) << size;
    buffer.resize(3 * size + 1);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 4096, 0U) << "grown from " << size;
    const PageBuffer copy = buffer;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(copy.data()) % 4096, 0U) << "copied, of " << size;
  }
}

}  // namespace
}  // namespace qcache
