#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <string_view>

#include "tools/command.h"

namespace {

bool wants_color() {
  // There is one thread. NOLINTBEGIN(concurrency-mt-unsafe)
  const char* const no_color = std::getenv("NO_COLOR");  // no-color.org
  const char* const terminal = std::getenv("TERM");
  // NOLINTEND(concurrency-mt-unsafe)
  return (no_color == nullptr || *no_color == '\0') && (terminal == nullptr || std::string_view(terminal) != "dumb");
}

}  // namespace

int main(int argc, char** argv) {
  qcache::CommandContext context{qcache::Env::posix(), std::cout, std::cerr};
  context.out_is_terminal = ::isatty(STDOUT_FILENO) == 1;
  // Questions are asked beside the output, which may be read by a program.
  context.in = ::isatty(STDERR_FILENO) == 1 && ::isatty(STDIN_FILENO) == 1 ? &std::cin : nullptr;
  context.color = context.out_is_terminal && wants_color();
  const qcache::ExitCode exit = qcache::run_command(argv[0], {argv + 1, argv + argc}, context);
  if (!std::cout.flush() && exit == qcache::ExitCode::kOk) {
    std::cerr << "qcache: the output could not be written\n";
    return static_cast<int>(qcache::ExitCode::kFailure);
  }
  return static_cast<int>(exit);
}
