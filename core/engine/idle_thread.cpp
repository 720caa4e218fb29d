#include "core/engine/idle_thread.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace qcache {

void make_thread_idle() {
  const sched_param none{};
  (void)::sched_setscheduler(0, SCHED_IDLE, &none);
  constexpr int kThisThread = 1;       // IOPRIO_WHO_PROCESS, with 0
  constexpr int kIdleClass = 3 << 13;  // IOPRIO_CLASS_IDLE
  (void)::syscall(SYS_ioprio_set, kThisThread, 0, kIdleClass);
}

}  // namespace qcache
