#include "fs/spawned_program.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include <spawn.h>

#include "core/base/unique_fd.h"

extern char** environ;  // NOLINT(readability-redundant-declaration): not every libc header declares it

namespace qcache {

Result<Ended> run_to_its_end(std::vector<std::string> words) {
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return fail(system_error(errno, "cannot run " + words[0]));
  }
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, writer.get(), STDERR_FILENO);
  pid_t pid = -1;
  const int error = ::posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  writer.reset();
  if (error != 0) {
    return fail(system_error(error, "cannot run " + words[0]));
  }
  Ended ended;
  std::array<char, 512> piece{};
  for (ssize_t got = 1; got > 0 || (got < 0 && errno == EINTR);) {
    got = ::read(reader.get(), piece.data(), piece.size());
    ended.said.append(piece.data(), static_cast<size_t>(std::max<ssize_t>(got, 0)));
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) {
      return fail(system_error(errno, "cannot wait for " + words[0]));
    }
  }
  ended.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
  return ended;
}

std::string one_line(std::string text) {
  while (!text.empty() && text.back() == '\n') {
    text.pop_back();
  }
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

}  // namespace qcache
