#include "core/model/config_text.h"

#include <algorithm>

#include "core/model/strict_json.h"

namespace qcache {
namespace {

class IsObject final : public JsonVisitor {
 public:
  Status on_key(std::string_view /*key*/) override { return {}; }
  Status on_value(const JsonValue& value) override {
    if (depth_ == 0 && value.kind != JsonKind::kObject) {
      return fail(ErrorKind::kInvalidModel, "the text is not a JSON object");
    }
    depth_ += value.kind == JsonKind::kObject || value.kind == JsonKind::kArray ? 1 : 0;
    return {};
  }
  Status on_end() override {
    --depth_;
    return {};
  }

 private:
  int depth_ = 0;
};

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/// Cuts a text that is known to be well-formed, and so may look at brackets and quotes alone.
class Cutter {
 public:
  explicit Cutter(std::string_view text) : text_(text) {}

  std::vector<JsonMember> members() {
    std::vector<JsonMember> out;
    skip_space();
    ++at_;  // {
    for (skip_space(); peek() == '"'; skip_space()) {
      const std::string_view key = string();
      skip_space();
      ++at_;  // :
      skip_space();
      out.push_back({std::string(key.substr(1, key.size() - 2)), std::string(value())});
      if (peek() == ',') {
        ++at_;
      }
    }
    return out;
  }

 private:
  [[nodiscard]] char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void skip_space() {
    while (is_space(peek())) {
      ++at_;
    }
  }
  std::string_view string() {
    const size_t begin = at_++;
    while (at_ < text_.size() && text_[at_] != '"') {
      at_ += text_[at_] == '\\' ? 2U : 1U;
    }
    at_ = std::min(at_ + 1, text_.size());
    return text_.substr(begin, at_ - begin);
  }
  std::string_view value() {
    const size_t begin = at_;
    for (int depth = 0; at_ < text_.size();) {
      const char c = text_[at_];
      if (depth == 0 && (c == ',' || c == '}')) {
        break;
      }
      depth += c == '{' || c == '[' ? 1 : 0;
      depth -= c == '}' || c == ']' ? 1 : 0;
      if (c == '"') {
        string();
      } else {
        ++at_;
      }
    }
    std::string_view found = text_.substr(begin, at_ - begin);
    while (!found.empty() && is_space(found.back())) {
      found.remove_suffix(1);
    }
    return found;
  }

  std::string_view text_;
  size_t at_ = 0;
};

Result<std::vector<JsonMember>> members_of(std::string_view object) {
  IsObject check;
  QCACHE_TRY(visit_json(object, {.unique_keys = false, .python_numbers = true}, check));
  return Cutter(object).members();
}

}  // namespace

Result<std::string> with_members(std::string_view object, const std::vector<JsonMember>& members) {
  QCACHE_TRY_ASSIGN(const std::vector<JsonMember> old, members_of(object));
  std::string out = "{";
  const auto add = [&](const JsonMember& member) {
    out += out.size() == 1 ? "\n  \"" : ",\n  \"";
    out += member.key + "\": " + member.value;
  };
  std::vector<bool> placed(members.size());
  for (const JsonMember& member : old) {
    const auto replacement =
        std::find_if(members.begin(), members.end(), [&](const JsonMember& m) { return m.key == member.key; });
    if (replacement == members.end()) {
      add(member);
      continue;
    }
    const auto index = static_cast<size_t>(replacement - members.begin());
    if (!placed[index]) {
      placed[index] = true;
      add(*replacement);
    }
  }
  for (size_t i = 0; i < members.size(); ++i) {
    if (!placed[i]) {
      add(members[i]);
    }
  }
  return out + "\n}\n";
}

bool has_member(std::string_view object, std::string_view key) {
  const auto members = members_of(object);
  return members && std::any_of(members->begin(), members->end(), [&](const JsonMember& m) { return m.key == key; });
}

}  // namespace qcache
