#pragma once

#include <string>

#include <CLI/CLI.hpp>

namespace qcache {

/// Help that fits 80 columns: texts are filled at words, options stand in one column and what they do in another.
class HelpFormatter final : public CLI::Formatter {
 public:
  HelpFormatter();
  [[nodiscard]] std::string make_option(const CLI::Option* option, bool is_positional) const override;
  [[nodiscard]] std::string make_option_opts(const CLI::Option* option) const override;
  [[nodiscard]] std::string make_option_usage(const CLI::Option* option) const override;
  [[nodiscard]] std::string make_description(const CLI::App* app) const override;
  [[nodiscard]] std::string make_footer(const CLI::App* app) const override;
  [[nodiscard]] std::string make_subcommand(const CLI::App* command) const override;

 private:
  [[nodiscard]] std::string row(const std::string& name, const std::string& text) const;
};

}  // namespace qcache
