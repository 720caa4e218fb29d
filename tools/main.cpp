#include <unistd.h>

#include <cstdlib>
#include <iostream>

#include "tools/command.h"

int main(int argc, char** argv) {
  qcache::CommandContext context{qcache::Env::posix(), std::cout, std::cerr};
  context.out_is_terminal = ::isatty(STDOUT_FILENO) == 1;
  context.in = context.out_is_terminal && ::isatty(STDIN_FILENO) == 1 ? &std::cin : nullptr;
  const char* const no_color = std::getenv("NO_COLOR");  // NOLINT(concurrency-mt-unsafe): there is one thread
  context.color = context.out_is_terminal && (no_color == nullptr || *no_color == '\0');  // no-color.org
  return static_cast<int>(qcache::run_command(argv[0], {argv + 1, argv + argc}, context));
}
