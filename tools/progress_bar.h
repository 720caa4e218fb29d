#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>

namespace qcache {

/// Tells how far a piece of work over `total` bytes is, how fast it goes and how long it will take, by what was done in
/// the last seconds. One thread.
class ProgressBar {
 public:
  using Clock = std::chrono::steady_clock;
  enum class Style {
    kTerminal,  ///< one line, drawn anew several times a second
    kLines,     ///< a line of its own every ten seconds, for logs
    kSilent,
  };

  /// `columns` is the width that kTerminal keeps to.
  ProgressBar(std::ostream& out, Style style, size_t columns);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  /// Begins a new piece of work; the rate is measured from the first update on. `label` is short; `last_step` is what
  /// is still to be done when all bytes are: nobody knows how long that takes.
  void start(std::string_view label, uint64_t total, std::string_view last_step = {});
  void update(uint64_t done, Clock::time_point now = Clock::now());
  /// Takes the bar off the terminal, so that other text can follow. Idempotent; called by the destructor.
  void clear();

 private:
  [[nodiscard]] std::string line(uint64_t done, Clock::time_point now) const;

  std::ostream& out_;
  const Style style_;
  const size_t columns_;
  std::string label_;
  std::string last_step_;
  uint64_t total_ = 0;
  struct Sample {
    Clock::time_point time;
    uint64_t done = 0;
  };
  std::deque<Sample> samples_;  // the first is as old as the rate looks back
  std::optional<Clock::time_point> last_drawn_;
  bool drawn_ = false;
};

/// The width of the terminal behind standard output; 80 where there is none.
[[nodiscard]] size_t terminal_columns();

}  // namespace qcache
