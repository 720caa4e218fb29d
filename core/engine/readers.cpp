#include "core/engine/readers.h"

namespace qcache {

void Readers::remove() {
  if (--open_ == 0) {
    first_read_.reset();
    last_read_.reset();
  }
}

void Readers::on_read(Time now) {
  first_read_ = first_read_.value_or(now);
  last_read_ = now;
}

bool Readers::want_the_rest(Time now) const {
  return expected(now) || (any() && first_read_ && now - *first_read_ >= kStays);
}

bool Readers::hold_back_sealing(Time now, Time complete_since) const {
  return any() && last_read_ && now - *last_read_ < kQuiet && now - complete_since < kSealPatience;
}

}  // namespace qcache
