// Two processes on two cores, without an option: a benchmark that is started on one core (`taskset
// -c 0 bus bench ...`) finds its other party on the next one. Unpinned, the kernel places both.
#pragma once

#include <sched.h>

namespace bus::tool {

// For the calling thread: if it may only run on one core, moves it to the next one that exists.
inline void step_aside() noexcept {
  cpu_set_t cores;
  if (::sched_getaffinity(0, sizeof cores, &cores) != 0 || CPU_COUNT(&cores) != 1) return;
  int core = 0;
  while (!CPU_ISSET(core, &cores)) ++core;
  for (int step = 1; step < CPU_SETSIZE; ++step) {
    CPU_ZERO(&cores);
    CPU_SET((core + step) % CPU_SETSIZE, &cores);
    if (::sched_setaffinity(0, sizeof cores, &cores) == 0) return;
  }
}

}  // namespace bus::tool
