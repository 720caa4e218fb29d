#include "core/model/source_file.h"

namespace qcache {

Result<SourceFileIdentity> SourceFile::finish(Env& env, const Sha256Digest& digest) const {
  SourceFileIdentity identity{path_, stat_.inode, stat_.size_bytes, stat_.mtime_ns, stat_.ctime_ns, digest};
  QCACHE_TRY_ASSIGN(const FileStat now, env.stat(fd_.get()));
  if (!identity.matches(now)) {
    return fail(ErrorKind::kSourceChanged, path_ + " changed while it was read");
  }
  return identity;
}

}  // namespace qcache
