#include "core/engine/workshop.h"

#include <algorithm>
#include <thread>

namespace qcache {
namespace {

unsigned thread_count(unsigned wanted) {
  constexpr unsigned kAtLeast = 2;  // one tile can wait for the disk while another is encoded
  return wanted > 0 ? wanted : std::max(kAtLeast, std::thread::hardware_concurrency());
}

}  // namespace

Workshop::Workshop(unsigned threads)
    : factor_workers_(worker_programs()),
      pool_(thread_count(threads)),
      factor_pool_(thread_count(threads)),
      seal_pool_(1),
      idle_pool_(1) {}

void Workshop::stop() {
  factor_workers_.stop();  // first: threads of the factor pool wait for them
  factor_pool_.stop();
  pool_.stop();
  idle_pool_.stop();
  seal_pool_.stop();
}

}  // namespace qcache
