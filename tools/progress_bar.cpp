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
constexpr std::chrono::seconds kRateWindow{5};
constexpr std::chrono::milliseconds kShortestForRate{900};
constexpr size_t kMostBarColumns = 24;
constexpr size_t kLeastBarColumns = 6;

// Where the code point begins that is `columns` into `text`.
size_t offset_of(std::string_view text, size_t columns) {
  size_t offset = 0;
  while (offset < text.size()) {
    const bool begins = (static_cast<unsigned char>(text[offset]) & 0xC0U) != 0x80U;
    if (begins && columns-- == 0) {
      break;
    }
    ++offset;
  }
  return offset;
}

// At most `columns` code points: what is in the middle says least.
std::string fitted(const std::string& label, size_t columns) {
  constexpr std::string_view kGap = "..";
  const size_t width = display_width(label);
  if (width <= columns) {
    return label;
  }
  if (columns <= kGap.size()) {
    return label.substr(0, offset_of(label, columns));
  }
  const size_t kept = columns - kGap.size();
  const size_t tail = (kept + 1) / 2;
  return label.substr(0, offset_of(label, kept - tail)) + std::string(kGap) +
         label.substr(offset_of(label, width - tail));
}

}  // namespace

ProgressBar::ProgressBar(std::ostream& out, Style style, size_t columns)
    : out_(out), style_(style), columns_(columns) {}

ProgressBar::~ProgressBar() {
  clear();
}

void ProgressBar::start(std::string_view label, uint64_t total, std::string_view last_step) {
  label_ = printable(label);
  last_step_ = last_step;
  total_ = total;
  samples_.clear();
  last_drawn_.reset();
}

void ProgressBar::update(uint64_t done, Clock::time_point now) {
  samples_.push_back({now, done});
  while (samples_.size() > 2 && now - samples_[1].time >= kRateWindow) {
    samples_.pop_front();
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
  const Sample& before = samples_.front();
  const std::chrono::duration<double> elapsed = now - before.time;
  const uint64_t made = done - std::min(done, before.done);
  std::string numbers = fmt::format("{:>4} of {}", format_percent(share), format_size(total_));
  if (done >= total_ && !last_step_.empty()) {
    numbers += "  " + last_step_;
  } else if (made > 0 && elapsed >= kShortestForRate) {
    const double rate = static_cast<double>(made) / elapsed.count();
    const double left = static_cast<double>(total_ - std::min(done, total_)) / rate;
    constexpr double kLongestShown = 1e9;
    numbers += "  " + format_rate(rate);
    if (left >= 1) {
      numbers += fmt::format(
          "  {} left", format_duration(std::chrono::seconds(static_cast<int64_t>(std::min(left, kLongestShown)))));
    }
  }
  if (style_ == Style::kLines) {
    return fmt::format("{}: {}", label_, numbers.substr(numbers.find_first_not_of(' ')));
  }
  // One column stays free: a full line makes some terminals wrap. The bar gives way to the label before that is cut.
  const size_t frame = std::string_view(" [] ").size() + numbers.size() + 1;
  const size_t room = columns_ > frame ? columns_ - frame : 0;
  const size_t wanted = display_width(label_);
  const size_t bar_columns =
      std::clamp(room > wanted ? room - wanted : 0, std::min(room, kLeastBarColumns), kMostBarColumns);
  const auto filled = static_cast<size_t>(share * static_cast<double>(bar_columns));
  const std::string bar = std::string(filled, '#') + std::string(bar_columns - filled, '.');
  return fmt::format("{} [{}] {}", fitted(label_, room - bar_columns), bar, numbers);
}

size_t terminal_columns() {
  constexpr size_t kUsual = 80;
  winsize size{};
  return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kUsual;
}

}  // namespace qcache
