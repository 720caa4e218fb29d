#include "tools/progress_bar.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <ostream>

#include <fmt/format.h>

#include "core/base/units.h"
#include "tools/human_text.h"

namespace qcache {
namespace {

constexpr std::chrono::milliseconds kRedrawInterval{100};
constexpr std::chrono::seconds kLineInterval{10};
constexpr size_t kBarColumns = 24;

// At most `columns` code points; the end says more than the beginning, where all labels are alike.
std::string fitted(const std::string& label, size_t columns) {
  if (display_width(label) <= columns) {
    return label;
  }
  size_t cut = label.size();
  for (size_t kept = 0; cut > 0 && kept < columns;) {
    --cut;
    kept += (static_cast<unsigned char>(label[cut]) & 0xC0U) == 0x80U ? 0U : 1U;
  }
  return label.substr(cut);
}

}  // namespace

ProgressBar::ProgressBar(std::ostream& out, Style style, size_t columns)
    : out_(out), style_(style), columns_(columns) {}

ProgressBar::~ProgressBar() {
  clear();
}

void ProgressBar::start(std::string_view label, uint64_t total) {
  label_ = printable(label);
  total_ = total;
  first_update_.reset();
  last_drawn_.reset();
}

void ProgressBar::update(uint64_t done, Clock::time_point now) {
  if (!first_update_) {
    first_update_ = now;
    first_done_ = done;
  }
  if (style_ == Style::kSilent) {
    return;
  }
  const Clock::duration interval =
      style_ == Style::kTerminal ? Clock::duration(kRedrawInterval) : Clock::duration(kLineInterval);
  if (last_drawn_ && now - *last_drawn_ < interval) {
    return;
  }
  if (style_ == Style::kLines && !last_drawn_) {
    last_drawn_ = now;  // work that is done at once needs no line
    return;
  }
  last_drawn_ = now;
  if (style_ == Style::kTerminal) {
    out_ << '\r' << line(done, now) << "\x1b[K" << std::flush;
    drawn_ = true;
  } else {
    out_ << line(done, now) << std::endl;
  }
}

void ProgressBar::clear() {
  if (drawn_) {
    out_ << "\r\x1b[K" << std::flush;
    drawn_ = false;
  }
}

std::string ProgressBar::line(uint64_t done, Clock::time_point now) const {
  const double share = total_ == 0 ? 1.0 : std::min(1.0, static_cast<double>(done) / static_cast<double>(total_));
  const std::chrono::duration<double> elapsed = now - *first_update_;
  const uint64_t made = done - std::min(done, first_done_);
  std::string numbers = fmt::format("{:>4} of {}", format_percent(share), format_size(total_));
  if (made > 0 && elapsed.count() > 0) {
    const double rate = static_cast<double>(made) / elapsed.count();
    const double left = static_cast<double>(total_ - std::min(done, total_)) / rate;
    constexpr double kLongestShown = 1e9;
    numbers += fmt::format("  {}  {} left", format_rate(rate),
                           format_duration(std::chrono::seconds(static_cast<int64_t>(std::min(left, kLongestShown)))));
  }
  if (style_ == Style::kLines) {
    return fmt::format("{}: {}", label_, numbers.substr(numbers.find_first_not_of(' ')));
  }
  const auto filled = static_cast<size_t>(share * kBarColumns);
  const std::string bar = std::string(filled, '#') + std::string(kBarColumns - filled, '.');
  const std::string rest = fmt::format(" [{}] {}", bar, numbers);
  // One column stays free: a full line makes some terminals wrap.
  const size_t room = columns_ > rest.size() + 1 ? columns_ - rest.size() - 1 : 0;
  return fitted(label_, room) + rest;
}

size_t terminal_columns() {
  constexpr size_t kUsual = 80;
  winsize size{};
  return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kUsual;
}

}  // namespace qcache
