#include "core/model/strict_json.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/model/text.h"

namespace qcache {
namespace {

using Json = nlohmann::json;

/// Turns the parser's events into ours and adds the checks that the parser does not make.
class Adapter final : public nlohmann::json_sax<Json> {
 public:
  Adapter(const JsonRules& rules, JsonVisitor& visitor) : rules_(rules), visitor_(visitor) {}

  bool null() override { return tell(JsonKind::kNull); }
  bool boolean(bool boolean) override { return tell(JsonKind::kBool, boolean); }
  bool number_integer(int64_t /*value*/) override { return tell(JsonKind::kOtherNumber); }
  bool number_unsigned(uint64_t number) override { return tell(JsonKind::kUnsigned, false, number); }
  bool number_float(double /*value*/, const std::string& /*text*/) override { return tell(JsonKind::kOtherNumber); }
  bool string(std::string& text) override { return tell(JsonKind::kString, false, 0, text); }
  bool binary(binary_t& /*value*/) override { return tell(JsonKind::kNull); }  // not in JSON text

  bool start_object(size_t /*size*/) override { return start(JsonKind::kObject); }
  bool start_array(size_t /*size*/) override { return start(JsonKind::kArray); }
  bool end_object() override { return check_keys() && end(); }
  bool end_array() override { return end(); }

  bool key(std::string& key) override {
    if (key.size() > kMaxJsonKeyBytes) {
      return stop(fail(ErrorKind::kInvalidModel, fmt::format("the key {} is longer than 64 KiB", in_quotes(key))));
    }
    if (rules_.unique_keys) {
      keys_[depth_ - 1].push_back(key);
    }
    return stop(visitor_.on_key(key));
  }

  bool parse_error(size_t position, const std::string& /*token*/, const nlohmann::detail::exception& error) override {
    const bool utf8 = std::string_view(error.what()).find("ill-formed UTF-8") != std::string_view::npos;
    return stop(fail(ErrorKind::kInvalidModel,
                     fmt::format("the text is not {} at byte {}", utf8 ? "UTF-8" : "JSON", position)));
  }

  [[nodiscard]] Status take_status() { return std::move(status_); }

 private:
  // False, which ends the parse, where there is an error.
  bool stop(Status status) {
    status_ = std::move(status);
    return status_.has_value();
  }
  bool tell(JsonKind kind, bool boolean = false, uint64_t number = 0, std::string_view text = {}) {
    return stop(visitor_.on_value({kind, boolean, number, text}));
  }

  bool start(JsonKind kind) {
    if (depth_ == kMaxJsonDepth) {
      return stop(
          fail(ErrorKind::kInvalidModel, fmt::format("the JSON is nested deeper than {} levels", kMaxJsonDepth)));
    }
    ++depth_;
    return tell(kind);
  }
  bool end() {
    --depth_;
    return stop(visitor_.on_end());
  }

  // Sorting, not hashing: no choice of keys makes it slow.
  bool check_keys() {
    auto& keys = keys_[depth_ - 1];
    std::sort(keys.begin(), keys.end());
    const auto twice = std::adjacent_find(keys.begin(), keys.end());
    if (twice != keys.end()) {
      return stop(fail(ErrorKind::kInvalidModel, fmt::format("the key {} is there twice", in_quotes(*twice))));
    }
    keys.clear();
    return true;
  }

  const JsonRules rules_;
  JsonVisitor& visitor_;
  Status status_;
  size_t depth_ = 0;
  std::array<std::vector<std::string>, kMaxJsonDepth> keys_;  // of the open object at each depth
};

// Puts plain numbers of the same length in the place of Python's NaN and Infinity.
std::string with_plain_numbers(std::string_view json) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 2> kSpecial = {
      {{"NaN", "0.0"}, {"Infinity", "0.000000"}}};
  std::string out(json);
  bool in_string = false;
  for (size_t i = 0; i < out.size(); ++i) {
    if (out[i] == '"') {
      in_string = !in_string;
    } else if (in_string && out[i] == '\\') {
      ++i;
    } else if (!in_string) {
      for (const auto& [special, plain] : kSpecial) {
        if (json.substr(i, special.size()) == special) {
          out.replace(i, special.size(), plain);
        }
      }
    }
  }
  return out;
}

}  // namespace

Status visit_json(std::string_view json, const JsonRules& rules, JsonVisitor& visitor) {
  // The parser takes NUL for the end of the text, and skips a byte order mark.
  if (const size_t nul = json.find('\0'); nul != std::string_view::npos) {
    return fail(ErrorKind::kInvalidModel, fmt::format("the text is not JSON at byte {}", nul + 1));
  }
  if (json.starts_with("\xEF\xBB\xBF")) {
    return fail(ErrorKind::kInvalidModel, "the text is not JSON at byte 1: it starts with a byte order mark");
  }
  std::string plain;
  if (rules.python_numbers) {
    plain = with_plain_numbers(json);
    json = plain;
  }
  Adapter adapter(rules, visitor);
  Json::sax_parse(json.begin(), json.end(), &adapter);
  return adapter.take_status();
}

}  // namespace qcache
