#include <unistd.h>

#include <iostream>

#include "tools/command.h"

int main(int argc, char** argv) {
  qcache::CommandContext context{qcache::Env::posix(), std::cout, std::cerr, ::isatty(STDOUT_FILENO) == 1};
  return static_cast<int>(qcache::run_command(argv[0], {argv + 1, argv + argc}, context));
}
