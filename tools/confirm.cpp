#include "tools/confirm.h"

#include <istream>
#include <ostream>

namespace qcache {

bool confirm(CommandContext& context, const std::string& question, uint64_t bytes) {
  if (bytes <= context.ask_above_bytes || context.in == nullptr || !context.out_is_terminal) {
    return true;
  }
  context.out << question << "? [y/N] " << std::flush;
  std::string answer;
  std::getline(*context.in, answer);
  const bool yes = answer == "y" || answer == "Y" || answer == "yes";
  if (!yes) {
    context.out << "Nothing was dropped\n";
  }
  return yes;
}

}  // namespace qcache
