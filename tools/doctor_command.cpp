#include <algorithm>
#include <memory>
#include <ostream>

#include <fmt/format.h>
#include <fmt/ostream.h>

#include "tools/cache_entries.h"
#include "tools/doctor.h"
#include "tools/human_text.h"
#include "tools/surroundings.h"

namespace qcache {
namespace {

struct DoctorWords {
  std::string cache_dir;
  bool json = false;
};

struct Word {
  std::string_view text;
  std::string_view color;  // an ANSI escape sequence
};

Word word_of(Health health) {
  switch (health) {
    case Health::kGood:
      return {"ok", "\x1b[32m"};
    case Health::kNote:
      return {"note", ""};
    case Health::kWarning:
      return {"warning", "\x1b[33m"};
    case Health::kProblem:
      return {"problem", "\x1b[31m"};
  }
  return {};
}

void print(std::ostream& out, const Finding& finding, bool color) {
  constexpr size_t kColumns = 80;
  constexpr size_t kIndent = 27;
  const Word word = word_of(finding.health);
  const bool painted = color && !word.color.empty();
  fmt::print(out, "{}{:<7}{}  {:<16}  {}\n", painted ? word.color : "", word.text, painted ? "\x1b[0m" : "",
             finding.subject, filled(printable(finding.text), kColumns - kIndent, kIndent));
  if (!finding.fix.empty()) {
    fmt::print(out, "{}-> {}\n", std::string(kIndent, ' '),
               filled(printable(finding.fix), kColumns - kIndent - 3, kIndent + 3));
  }
}

Result<ExitCode> doctor(CommandContext& context, const DoctorWords& words) {
  const Surroundings around(context, words.cache_dir);
  const std::vector<Finding> findings =
      examine(look_at_machine(context, around.mounts(), around.every_cache_directory()));
  const bool works = std::none_of(findings.begin(), findings.end(),
                                  [](const Finding& finding) { return finding.health == Health::kProblem; });
  Json document = Json::array();
  for (const Finding& finding : findings) {
    if (words.json) {
      document.push_back(Json{{"health", word_of(finding.health).text},
                              {"subject", finding.subject},
                              {"text", finding.text},
                              {"fix", finding.fix.empty() ? Json() : Json(finding.fix)}});
    } else {
      print(context.out, finding, context.color);
    }
  }
  if (words.json) {
    context.out << json_text(Json{{"works", works}, {"findings", std::move(document)}});
  }
  return works ? ExitCode::kOk : ExitCode::kFailure;
}

}  // namespace

void add_doctor_command(CLI::App& app, CommandContext& context, ExitCode& exit) {
  CLI::App* command = app.add_subcommand("doctor", "Look for what keeps qcache from working well, with a fix for each");
  auto words = std::make_shared<DoctorWords>();
  add_cache_dir_option(*command, words->cache_dir);
  add_json_flag(*command, words->json);
  command->footer("Ends with exit code 1 where there is a problem.\n\nExample:\n  qcache doctor");
  command->callback(subcommand(context, exit, [&context, words] { return doctor(context, *words); }));
}

}  // namespace qcache
