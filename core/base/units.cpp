#include "core/base/units.h"

#include <array>
#include <charconv>
#include <cmath>
#include <ctime>
#include <limits>

#include <fmt/format.h>

namespace qcache {
namespace {

struct Number {
  double value;
  std::string_view unit;
};

Result<Number> split_number(std::string_view text, std::string_view what) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || !std::isfinite(value) || value < 0) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("'{}' is not a {}: it must start with a number", text, what));
  }
  return Number{value, text.substr(static_cast<size_t>(end - text.data()))};
}

}  // namespace

Result<std::chrono::seconds> parse_duration(std::string_view text) {
  QCACHE_TRY_ASSIGN(const Number number, split_number(text, "duration"));
  double unit_seconds = 0;
  if (number.unit == "s") {
    unit_seconds = 1;
  } else if (number.unit == "m") {
    unit_seconds = 60;
  } else if (number.unit == "h") {
    unit_seconds = 3600;
  } else if (number.unit == "d") {
    unit_seconds = 86400;
  } else if (number.unit == "w") {
    unit_seconds = 7 * 86400;
  } else {
    return fail(ErrorKind::kInvalidArgument,
                fmt::format("'{}' is not a duration: use s, m, h, d or w, as in 90s, 12h or 7d", text));
  }
  const double seconds = number.value * unit_seconds;
  constexpr double kMaxSeconds = 1e10;  // three centuries; keeps nanoseconds inside int64
  if (seconds > kMaxSeconds) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("the duration '{}' is too long", text));
  }
  return std::chrono::seconds(static_cast<int64_t>(std::ceil(seconds)));
}

Result<uint64_t> parse_size(std::string_view text) {
  QCACHE_TRY_ASSIGN(const Number number, split_number(text, "size"));
  double base = 1024;
  std::string_view unit = number.unit;
  if (unit.size() == 3 && unit.substr(1) == "iB") {
    unit = unit.substr(0, 1);
  } else if (unit.size() == 2 && unit[1] == 'B') {
    base = 1000;
    unit = unit.substr(0, 1);
  }
  constexpr std::string_view kPrefixes = "KMGTP";
  size_t power = 0;
  if (unit == "k") {
    power = 1;
  } else if (unit.size() == 1 && kPrefixes.find(unit[0]) != std::string_view::npos) {
    power = kPrefixes.find(unit[0]) + 1;
  } else if (!unit.empty() && unit != "B") {
    return fail(ErrorKind::kInvalidArgument,
                fmt::format("'{}' is not a size: use K, M, G or T, as in 500M or 20G", text));
  }
  const double bytes = number.value * std::pow(base, static_cast<double>(power));
  if (bytes >= static_cast<double>(std::numeric_limits<int64_t>::max())) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("the size '{}' is too large", text));
  }
  return static_cast<uint64_t>(bytes);
}

std::string format_size(uint64_t bytes) {
  constexpr std::array kUnits = {"", "K", "M", "G", "T", "P", "E"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  if (unit > 0 && value < 9.95) {
    return fmt::format("{:.1f}{}", value, kUnits.at(unit));
  }
  return fmt::format("{:.0f}{}", value, kUnits.at(unit));
}

std::string format_duration(std::chrono::seconds duration) {
  const auto total = duration.count();
  const auto days = total / 86400;
  const auto hours = total / 3600 % 24;
  const auto minutes = total / 60 % 60;
  const auto seconds = total % 60;
  if (days > 0) {
    return hours > 0 ? fmt::format("{}d{}h", days, hours) : fmt::format("{}d", days);
  }
  if (hours > 0) {
    return minutes > 0 ? fmt::format("{}h{}m", hours, minutes) : fmt::format("{}h", hours);
  }
  if (minutes > 0) {
    return seconds > 0 ? fmt::format("{}m{}s", minutes, seconds) : fmt::format("{}m", minutes);
  }
  return fmt::format("{}s", seconds);
}

std::string format_time(int64_t ns_since_epoch) {
  constexpr int64_t kNanosecondsPerSecond = 1'000'000'000;
  const std::time_t seconds = ns_since_epoch / kNanosecondsPerSecond;
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  std::array<char, 32> text{};
  const size_t size = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return {text.data(), size};
}

}  // namespace qcache
