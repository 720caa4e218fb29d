#include "tools/confirm.h"

#include <istream>
#include <ostream>

namespace qcache {

bool confirm(CommandContext& context, const std::string& question, uint64_t bytes) {
  if (bytes <= context.ask_above_bytes || context.in == nullptr) {
    return true;
  }
  context.err << question << "? [y/N] " << std::flush;
  std::string answer;
  std::getline(*context.in, answer);
  const bool yes = answer == "y" || answer == "Y" || answer == "yes";
  if (!yes) {
    context.err << "Nothing was dropped\n";
  }
  return yes;
}

}  // namespace qcache
