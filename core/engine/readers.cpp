#include "core/engine/readers.h"

namespace qcache {

void Readers::remove() {
  if (--open_ == 0) {
    first_read_.reset();
    last_read_.reset();
    unseen_since_.reset();
  }
}

void Readers::on_read(Time now) {
  first_read_ = first_read_.value_or(now);
  last_read_ = now;
}

bool Readers::want_the_rest(Time now) const {
  return expected(now) || (any() && first_read_ && now - *first_read_ >= kStays);
}

bool Readers::hold_back_sealing(Time now, Time all_made_since) const {
  const bool reads = last_read_ && now - *last_read_ < kQuiet && now - all_made_since < kSealPatience;
  const bool may_read = unseen_since_ && now - *unseen_since_ < kUnseenPatience;
  return expected(now) || (any() && (reads || may_read));
}

}  // namespace qcache
