#pragma once

#include <functional>
#include <memory>

namespace qcache {

/// Threads for calls that may never return, because a filesystem that they ask has stopped: whoever needs the answer
/// waits elsewhere, for as long as he likes.
///
/// At most `most` jobs run at a time, others wait for their turn. Thread-safe. stop(), also called by the destructor,
/// drops what has not begun and waits for a moment; jobs that hang then are left behind, so a job must own all that it
/// uses. Jobs must not throw.
class HelperThreads {
 public:
  explicit HelperThreads(unsigned most);
  ~HelperThreads();
  HelperThreads(const HelperThreads&) = delete;
  HelperThreads& operator=(const HelperThreads&) = delete;

  void run(std::function<void()> job);
  void stop();

 private:
  struct State;
  static void serve(const std::shared_ptr<State>& state);

  const std::shared_ptr<State> state_;
};

}  // namespace qcache
