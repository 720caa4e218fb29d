#include "core/engine/source_reader.h"

#include "core/engine/worker_pool.h"
#include "core/model/source_encoding.h"
#include "core/model/source_folders.h"

namespace qcache {

SourceReader::SourceReader(Env& env, std::shared_ptr<const SourceModel> model, Stats& stats)
    : env_(env), model_(std::move(model)), stats_(stats) {}

Result<std::unique_ptr<SourceReader>> SourceReader::open(Env& env, std::shared_ptr<const SourceModel> model,
                                                         Stats& stats) {
  std::unique_ptr<SourceReader> reader(new SourceReader(env, std::move(model), stats));
  const SourceFolders folders(env, reader->model_->folders);
  for (const std::string& path : reader->model_->files) {
    auto file = folders.open(path);
    if (!file) {
      const bool gone = file.error().kind == ErrorKind::kNotFound;
      return fail(gone ? ErrorKind::kSourceChanged : file.error().kind, file.error().message);
    }
    reader->files_.push_back(file->take_fd());
  }
  if (!reader->files_.empty()) {
    QCACHE_TRY_ASSIGN(const FileStat first, env.stat(reader->files_.front().get()));
    reader->device_ = first.device;
  }
  for (size_t file = 0; file < reader->files_.size(); ++file) {
    QCACHE_TRY(reader->check_file(file));
  }
  return reader;
}

Status SourceReader::read(const TensorInfo& tensor, uint64_t offset, std::span<std::byte> out) const {
  return encoding_of(tensor).read(
      tensor, offset, out,
      [this](uint32_t file, uint64_t position, std::span<std::byte> part) { return read_file(file, position, part); });
}

Status SourceReader::read(const TensorInfo& tensor, std::span<const ByteRange> ranges, PageBuffer& out) const {
  out.resize(total_size(ranges));
  size_t done = 0;
  for (const ByteRange& range : ranges) {
    QCACHE_TRY(read(tensor, range.offset, std::span(out).subspan(done, range.size)));
    done += range.size;
  }
  return {};
}

Status SourceReader::read_file(size_t file, uint64_t position, std::span<std::byte> out) const {
  const auto read = [&] {
    const WorkerPool::SourceCall call;
    return env_.read_at(files_.at(file).get(), out, position);
  };
  QCACHE_TRY_ASSIGN(const size_t got, read());
  stats_.source_bytes_read.fetch_add(got, std::memory_order_relaxed);
  if (got != out.size()) {
    return fail(ErrorKind::kSourceChanged, model_->files.at(file) +
                                               " became shorter while it was read: its quantized files are made again "
                                               "from what is there now");
  }
  return {};
}

Status SourceReader::check(const TensorInfo& tensor) const {
  QCACHE_TRY(check_file(tensor.file));
  if (tensor.parts != nullptr) {
    for (const TensorInfo& part : *tensor.parts) {
      QCACHE_TRY(check(part));
    }
  }
  return {};
}

Status SourceReader::check_file(size_t file) const {
  const auto look = [&] {
    const WorkerPool::SourceCall call;
    return env_.stat(files_.at(file).get());
  };
  QCACHE_TRY_ASSIGN(const FileStat now, look());
  if (!model_->identity.files.at(file).matches(now)) {
    return fail(ErrorKind::kSourceChanged, model_->files.at(file) +
                                               " changed while it was read: its quantized files are made again from "
                                               "what is there now");
  }
  return {};
}

}  // namespace qcache
