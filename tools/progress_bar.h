#pragma once

#include <chrono>
#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>

namespace qcache {

/// Tells how far a piece of work over `total` bytes is, how fast it goes and how long it will take. One thread.
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

  /// Begins a new piece of work; the rate is measured from the first update on.
  void start(std::string_view label, uint64_t total);
  void update(uint64_t done, Clock::time_point now = Clock::now());
  /// Takes the bar off the terminal, so that other text can follow. Idempotent; called by the destructor.
  void clear();

 private:
  [[nodiscard]] std::string line(uint64_t done, Clock::time_point now) const;

  std::ostream& out_;
  const Style style_;
  const size_t columns_;
  std::string label_;
  uint64_t total_ = 0;
  uint64_t first_done_ = 0;
  std::optional<Clock::time_point> first_update_;
  std::optional<Clock::time_point> last_drawn_;
  bool drawn_ = false;
};

/// The width of the terminal behind standard output; 80 where there is none.
[[nodiscard]] size_t terminal_columns();

}  // namespace qcache
