#include "tools/help_formatter.h"

#include "tools/human_text.h"

namespace qcache {
namespace {

constexpr size_t kColumns = 80;
constexpr size_t kTextColumn = 24;

}  // namespace

HelpFormatter::HelpFormatter() {
  column_width(kTextColumn);
}

std::string HelpFormatter::row(const std::string& name, const std::string& text) const {
  std::string out = "  " + name;
  if (out.size() + 2 > get_column_width()) {
    out += '\n';
    out.append(get_column_width(), ' ');
  } else {
    out.append(get_column_width() - out.size(), ' ');
  }
  return out + filled(text, kColumns - get_column_width(), get_column_width()) + '\n';
}

std::string HelpFormatter::make_option(const CLI::Option* option, bool is_positional) const {
  return row(make_option_name(option, is_positional) + make_option_opts(option), make_option_desc(option));
}

// What an option takes, by a name: CLI11 would add its type and how often it may be given.
std::string HelpFormatter::make_option_opts(const CLI::Option* option) const {
  const bool is_named = option->nonpositional();
  return is_named && option->get_items_expected_max() > 0 ? ' ' + option->get_option_text() : "";
}

// A name of several words says by itself how many are meant.
std::string HelpFormatter::make_option_usage(const CLI::Option* option) const {
  const std::string name = make_option_name(option, true);
  return name.find(' ') == std::string::npos ? Formatter::make_option_usage(option) : name;
}

std::string HelpFormatter::make_description(const CLI::App* app) const {
  const std::string text = app->get_description();
  return text.empty() ? "" : filled(text, kColumns) + '\n';
}

// Lines that begin with blanks, and the titles before them, stay as they are.
std::string HelpFormatter::make_footer(const CLI::App* app) const {
  const std::string text = app->get_footer();
  return text.empty() ? "" : filled(text, kColumns) + '\n';
}

std::string HelpFormatter::make_subcommand(const CLI::App* command) const {
  return row(command->get_name(), command->get_description());
}

}  // namespace qcache
