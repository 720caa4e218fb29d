#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace qcache {

/// A folder served by a process of the test, as by a machine in the network, which can be stopped (tests/support/
/// stoppable_fs.cpp). The destructor lets it go on, ends it and unmounts, whatever has happened. Throws where it cannot
/// be mounted. One thread.
class StoppableServer {
 public:
  /// Shows `source` on `mount_point`, which is made; times lie `seconds_ahead`.
  StoppableServer(const std::string& source, std::string mount_point, int64_t seconds_ahead = 0);
  ~StoppableServer();
  StoppableServer(const StoppableServer&) = delete;
  StoppableServer& operator=(const StoppableServer&) = delete;

  /// From now on, whoever looks at anything waits.
  void stop() const;
  void go_on() const;

 private:
  const std::string mount_point_;
  pid_t pid_ = -1;
};

}  // namespace qcache
