#pragma once

namespace qcache {

/// Makes the calling thread one that works when nobody else does, of the processor and of the disk. There is no way
/// back: Linux lets everybody go there, and only some return.
void make_thread_idle();

}  // namespace qcache
