#include "core/engine/size_watch.h"

#include <algorithm>

namespace qcache {
namespace {

constexpr int64_t kPauseNs = int64_t{10} * 1'000'000'000;
constexpr int64_t kShareOfTime = 20;

}  // namespace

bool SizeWatch::due(uint64_t made, int64_t now_ns) const {
  const int64_t passed_ns = now_ns - begun_ns_;
  const bool may_have_grown = made != made_ || may_grow_;
  const int64_t pause_ns = may_have_grown ? std::min(kShareOfTime * took_ns_, kPauseNs) : kPauseNs;
  return (may_have_grown || over_) && passed_ns > pause_ns;
}

void SizeWatch::looked(uint64_t made, bool over, int64_t begun_ns, int64_t ended_ns) {
  may_grow_ = made != made_;
  made_ = made;
  over_ = over;
  begun_ns_ = begun_ns;
  took_ns_ = ended_ns - begun_ns;
}

}  // namespace qcache
