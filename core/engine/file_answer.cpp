#include "core/engine/file_answer.h"

#include <utility>

#include "core/base/page_buffer.h"

namespace qcache {

void answer_from_file(Env& env, Stats& stats, int fd, ByteRange range, const ReadCallback& callback) {
  stats.reads.fetch_add(1, std::memory_order_relaxed);
  thread_local PageBuffer buffer;
  buffer.resize(range.size);
  auto got = env.read_at(fd, buffer, range.offset);
  if (!got) {
    stats.read_errors.fetch_add(1, std::memory_order_relaxed);
    callback(fail(std::move(got).error()));
  } else {
    callback(std::span<const std::byte>(buffer).first(*got));
  }
}

}  // namespace qcache
