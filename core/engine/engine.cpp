#include "core/engine/engine.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include <fmt/format.h>

#include "core/base/log.h"
#include "core/base/units.h"
#include "core/engine/file_answer.h"
#include "core/engine/quality_json.h"
#include "core/engine/quality_probe.h"

namespace qcache {
std::string_view to_string(ArtifactState state) {
  switch (state) {
    case ArtifactState::kAbsent:
      return "absent";
    case ArtifactState::kFilling:
      return "filling";
    case ArtifactState::kComplete:
      return "complete";
    case ArtifactState::kSealed:
      return "sealed";
    case ArtifactState::kFailed:
      return "failed";
  }
  return "absent";
}

/// A complete, verified file: reads come straight from it.
class Engine::SealedArtifact final : public Artifact {
 public:
  SealedArtifact(SealedFile file, Env& env, Stats& stats) : file_(std::move(file)), env_(env), stats_(stats) {}

  [[nodiscard]] const Sha256Digest& recipe() const override { return file_.record.recipe; }
  [[nodiscard]] uint64_t size_bytes() const override { return file_.record.size_bytes; }
  [[nodiscard]] int complete_fd() const override { return file_.fd.get(); }

  std::shared_ptr<PendingRead> read(ByteRange range, ReadIntent /*intent*/, ReadCallback callback) override {
    answer_from_file(env_, stats_, file_.fd.get(), range.intersect(ByteRange{0, size_bytes()}), callback);
    return nullptr;
  }

 private:
  const SealedFile file_;
  Env& env_;
  Stats& stats_;
};

OpenArtifact::OpenArtifact(Engine& engine, std::string file, std::shared_ptr<Artifact> artifact,
                           std::shared_ptr<FillingArtifact> filling)
    : engine_(&engine), file_(std::move(file)), artifact_(std::move(artifact)), filling_(std::move(filling)) {
  engine_->open_files_.opened(file_, engine_->now_ns(), filling_ == nullptr);
  if (filling_) {
    filling_->add_opener();
  }
}

OpenArtifact::~OpenArtifact() {
  if (filling_) {
    filling_->remove_opener();
    if (filling_->all_made()) {
      engine_->sealer_.reader_left();
    }
  }
  if (artifact_) {  // else it was moved from
    engine_->closed(file_, std::move(artifact_));
  }
}

Result<std::unique_ptr<Engine>> Engine::start(Env& env, EngineOptions options) {
  QCACHE_TRY_ASSIGN(CacheDirectory directory, CacheDirectory::open(env, options.cache_directory));
  QCACHE_TRY_ASSIGN(std::shared_ptr<Store> store, Store::open(env, std::move(directory)));
  QCACHE_TRY_ASSIGN(const CacheTotals totals, store->totals());
  QCACHE_TRY_ASSIGN(const SpaceInfo space, env.space(store->directory().path()));
  spdlog::info("cache directory {}: {} files ({} complete), {}, {} free", store->directory().path(),
               totals.sealed_files + totals.filling_files, totals.sealed_files, format_size(totals.disk_bytes),
               format_size(space.available_bytes));
  return std::unique_ptr<Engine>(new Engine(env, std::move(options), std::move(store)));
}

Engine::Engine(Env& env, EngineOptions options, std::shared_ptr<Store> store)
    : env_(env),
      options_(std::move(options)),
      store_(std::move(store)),
      index_(env, options_.roots),
      ranks_(env, *store_),
      workshop_(options_.threads),
      sealer_(env, *store_, workshop_, *this),
      amender_(*store_, workshop_.seal_pool(), workshop_.idle_pool(),
               [this](const Record& record) { return find_source(record); }),
      maintenance_(env, errors_) {
  add_tasks();
  maintenance_.start();
}

Engine::~Engine() {
  stop();
}

void Engine::stop() {
  if (stopped_.exchange(true)) {
    return;
  }
  sealer_.stop();
  amender_.stop();
  for (const auto& artifact : live_.stop()) {
    artifact->abandon();
  }
  workshop_.stop();
  maintenance_.stop();
  renew_uses();
  open_files_.stop();
  flush_accesses();
}

FoundModels Engine::models() {
  FoundModels found = index_.find_all();
  for (const std::string& problem : found.problems) {
    errors_.add("models", Error{ErrorKind::kIo, 0, problem}, env_.now_ns());
  }
  for (const FoundModel& hidden : found.shadowed) {
    errors_.add(hidden.name,
                Error{ErrorKind::kInvalidModel, 0,
                      fmt::format("{} is not shown: another model of that name comes first", hidden.path)},
                env_.now_ns());
  }
  return found;
}

Result<std::shared_ptr<const SourceModel>> Engine::model(const std::string& name) {
  auto found = index_.get(name);
  if (!found && found.error().kind != ErrorKind::kNotFound) {
    errors_.add(name, found.error(), env_.now_ns());
  }
  return found;
}

std::vector<DtypeInfo> Engine::dtypes(const SourceModel& model) {
  std::vector<DtypeInfo> out;
  for (const Scheme* scheme : all_schemes()) {
    out.push_back(DtypeInfo{scheme, why_not_served(model, *scheme).value_or("")});
  }
  return out;
}

Result<std::shared_ptr<const ModelFolder>> Engine::folder(const std::string& model_name, const Scheme& scheme,
                                                          uint32_t rank) {
  QCACHE_TRY_ASSIGN(const std::shared_ptr<const SourceModel> source, model(model_name));
  const std::string base = options_.mount_point.empty()
                               ? ""
                               : fmt::format("{}/{}/{}/{}", options_.mount_point, model_name, scheme.name(), rank);
  return plans_.folder(model_name, source, scheme, rank, base);
}

Result<std::string> Engine::folder_text(const std::string& model_name, const Scheme& scheme, const FolderFile& file) {
  if (!is_description(file)) {
    return file.text;
  }
  QCACHE_TRY_ASSIGN(const std::vector<TensorQuality> tensors, quality(model_name, scheme));
  return tensors.empty() ? file.text : with_quality(file.text, tensors);
}

Result<std::vector<TensorQuality>> Engine::quality(const std::string& model_name, const Scheme& scheme) {
  QCACHE_TRY_ASSIGN(const std::shared_ptr<const SourceModel> source, model(model_name));
  for (const Container* const container : all_containers()) {
    if (!container->holds_weights) {
      continue;
    }
    const ArtifactName name{model_name, &scheme, 0, container};
    QCACHE_TRY_ASSIGN(const auto sealed,
                      store_->peek_sealed(base_file_name_of(name, source->path), recipe_of(name, *source)));
    if (sealed && sealed->trusted) {
      QCACHE_TRY_ASSIGN(std::vector<TensorQuality> tensors,
                        store_->catalog().quality(sealed->record.file, sealed->record.contents()));
      if (!tensors.empty()) {
        return tensors;
      }
    }
  }
  return std::vector<TensorQuality>();
}

Result<CompanionFiles> Engine::companions(const std::string& model_name) {
  QCACHE_TRY_ASSIGN(const std::shared_ptr<const SourceModel> source, model(model_name));
  return CompanionFiles(index_.folders().of_model(source->path), source->path, source->component, index_.mounts());
}

Result<ArtifactInfo> Engine::describe(const ArtifactName& name) {
  if (name.scheme == nullptr) {
    return fail(ErrorKind::kNotFound, "no such dtype");
  }
  QCACHE_TRY_ASSIGN(const std::shared_ptr<const SourceModel> source, model(name.model));
  if (const auto refusal = why_not_served(*source, *name.scheme)) {
    return fail(ErrorKind::kNotFound, *refusal);
  }
  ArtifactInfo info;
  info.name = name;
  info.name.component = source->component;
  info.model_path = source->path;
  info.source = source;
  info.file = base_file_name_of(name, source->path);
  info.recipe = recipe_of(name, *source);
  for (const SourceFileIdentity& file : source->identity.files) {
    info.source_mtime_ns = std::max(info.source_mtime_ns, file.mtime_ns);
  }
  auto size = plans_.size(name, source, info.recipe);
  if (!size) {
    if (size.error().kind != ErrorKind::kNotFound) {  // asking for a rank that is not there is no failure
      errors_.add(name.virtual_path(), size.error(), env_.now_ns());
    }
    return fail(std::move(size).error());
  }
  info.size_bytes = *size;
  auto artifact = live_.find(info.file);
  if (artifact && artifact->recipe() != info.recipe) {
    artifact.reset();
  }
  QCACHE_TRY_ASSIGN(auto sealed, store_->peek_sealed(info.file, info.recipe));
  if (sealed) {
    info.file = sealed->record.file;
    info.backing = store_->directory().sealed_path(info.file);
    info.disk_bytes = sealed->disk_bytes;
  } else if (artifact) {
    info.file = artifact->filling().key().file;
    info.backing = store_->directory().filling_path(info.file);
    auto on_disk = env_.stat(info.backing);
    if (!on_disk && artifact->all_made()) {
      on_disk = env_.stat(artifact->filling().fd());  // it is just being sealed, and so has neither name nor record
    }
    info.disk_bytes = on_disk.value_or(FileStat()).allocated_bytes;
  } else {
    QCACHE_TRY_ASSIGN(const auto filling, store_->peek_filling(info.file, info.recipe));
    if (filling) {
      info.file = filling->file;
      info.backing = store_->directory().filling_path(info.file);
      info.disk_bytes = filling->disk_bytes;
      info.state = ArtifactState::kFilling;
    }
  }
  if (sealed && sealed->trusted) {
    const Record& record = sealed->record;
    const BackingStamp& stamp = record.backing;  // no two files of one inode have one ctime
    info.record = FileRecord{record.is_hashed() ? std::optional(record.sha256) : std::nullopt,
                             record.contents(),
                             record.created_ns,
                             record.accessed_ns,
                             record.hits,
                             {stamp.inode, static_cast<uint64_t>(stamp.ctime_ns)}};
    info.state = ArtifactState::kSealed;
    info.progress = 1;
  } else if (sealed) {
    info.state = ArtifactState::kFilling;  // who opens it gets each tile checked
    info.progress = 1;
  } else if (artifact) {
    const std::optional<Error> failure = artifact->failure();
    info.completed_ns = artifact->completed_ns();
    info.state = failure                  ? ArtifactState::kFailed
                 : info.completed_ns != 0 ? ArtifactState::kComplete
                                          : ArtifactState::kFilling;
    info.error = failure ? failure->message : "";
    info.progress = artifact->progress();
  } else if (info.state != ArtifactState::kFilling) {
    info.progress = 0;
  }
  return info;
}

Result<double> Engine::progress(const ArtifactInfo& info) {
  return info.progress ? *info.progress : store_->filling_progress(info.file, info.recipe);
}

Result<std::vector<TensorQuality>> Engine::quality(const ArtifactInfo& info) {
  return info.record ? store_->catalog().quality(info.file, info.record->contents) : std::vector<TensorQuality>();
}

Result<std::optional<bool>> Engine::is_pinned(const ArtifactInfo& info) {
  return store_->is_pinned(info.file, info.recipe);
}

std::vector<ArtifactName> Engine::cached_ranks(const std::string& model_name, const Scheme& scheme) {
  std::vector<ArtifactName> out;
  const auto found = index_.locate_folder(model_name);
  if (!found) {
    return out;
  }
  for (const CachedRanks::File& cached : ranks_.all()) {
    if (cached.path.dtype == scheme.name() && base_file_name_of(cached.path, found->path) == cached.base) {
      out.push_back(ArtifactName{model_name, &scheme, cached.path.rank, cached.path.container});
    }
  }
  // A file that is just being sealed may have been seen neither as the one nor as the other.
  for (const auto& artifact : live_.all()) {
    const ArtifactName& name = artifact->name();
    if (name.rank > 0 && artifact->model_path() == found->path && name.scheme == &scheme && artifact->progress() > 0) {
      out.push_back(ArtifactName{model_name, &scheme, name.rank, name.container});
    }
  }
  return out;
}

namespace {

// Asks `ask` again while the model's files are settling.
template <typename Ask>
auto wait_for_settling(const std::string& model, const Ask& ask) -> decltype(ask(std::declval<int64_t&>())) {
  for (int attempt = 0; attempt < Engine::kSettleAttempts; ++attempt) {
    int64_t settles_in_ns = 0;
    auto done = ask(settles_in_ns);
    if (done || settles_in_ns == 0) {
      return done;
    }
    std::this_thread::sleep_for(std::chrono::nanoseconds(settles_in_ns));
  }
  return fail(still_being_written(model));
}

}  // namespace

Error still_being_written(const std::string& model) {
  return Error{ErrorKind::kSourceChanged, 0,
               "the files of model '" + model + "' are still being written: read again when that is done"};
}

Result<OpenArtifact> Engine::open(const ArtifactName& name, const Sha256Digest* expected) {
  return wait_for_settling(name.model, [&](int64_t& settles_in_ns) { return open_now(name, expected, settles_in_ns); });
}

Result<OpenArtifact> Engine::open_now(const ArtifactName& name, const Sha256Digest* expected, int64_t& settles_in_ns) {
  settles_in_ns = 0;
  const auto look = [&]() -> Result<OpenArtifact> {
    // More than two need a file that others drop and make over and over.
    constexpr int kLooks = 5;
    for (int looks = 0; looks < kLooks; ++looks) {
      QCACHE_TRY_ASSIGN(auto opened, try_open(name, expected, settles_in_ns));
      if (opened) {
        return std::move(*opened);
      }
    }
    return fail(ErrorKind::kBusy, "other processes keep replacing " + name.virtual_path() + "; try again");
  };
  auto opened = look();
  if (!opened && settles_in_ns == 0 && opened.error().kind != ErrorKind::kSourceChanged &&
      opened.error().kind != ErrorKind::kNotFound) {
    errors_.add(name.virtual_path(), opened.error(), env_.now_ns());
  }
  return opened;
}

Status Engine::expect_reader(const ArtifactName& name) {
  return wait_for_settling(name.model, [&](int64_t& settles_in_ns) { return expect_reader_now(name, settles_in_ns); });
}

Status Engine::expect_reader_now(const ArtifactName& name, int64_t& settles_in_ns) {
  settles_in_ns = 0;
  QCACHE_TRY_ASSIGN(const ArtifactInfo info, describe(name));
  if (info.state == ArtifactState::kSealed) {
    return {};  // opening it would count as an access
  }
  QCACHE_TRY_ASSIGN(const OpenArtifact opened, open_now(name, nullptr, settles_in_ns));
  if (opened.filling() != nullptr) {
    opened.filling()->expect_reader();
  }
  return {};
}

std::optional<std::chrono::nanoseconds> Engine::load_comes_in(const ArtifactName& name, const Sha256Digest& recipe) {
  const auto found = index_.locate_folder(name.model);
  const auto artifact = found ? live_.find(base_file_name_of(name, found->path)) : nullptr;
  return artifact && artifact->recipe() == recipe ? artifact->load_comes_in() : std::nullopt;
}

Result<std::optional<OpenArtifact>> Engine::try_open(const ArtifactName& name, const Sha256Digest* expected,
                                                     int64_t& settles_in_ns) {
  QCACHE_TRY_ASSIGN(const std::shared_ptr<const SourceModel> source, index_.get_settled(name.model, settles_in_ns));
  const Sha256Digest recipe = recipe_of(name, *source);
  if (expected != nullptr && *expected != recipe) {
    return fail(ErrorKind::kSourceChanged, "the model changed since " + name.virtual_path() + " was looked up");
  }
  const std::string base = base_file_name_of(name, source->path);

  SealedFile sealed;
  QCACHE_TRY_ASSIGN(const SealedState state, store_->find_sealed(base, recipe, sealed));
  if (state == SealedState::kTrusted) {
    stats_.opens_sealed.fetch_add(1, std::memory_order_relaxed);
    spdlog::info("loaded {}: {}, complete and verified", name.virtual_path(), format_size(sealed.record.size_bytes));
    let_go(live_.take(base));  // its readers keep it; new ones need it no more
    std::string file = sealed.record.file;
    return OpenArtifact(*this, std::move(file), std::make_shared<SealedArtifact>(std::move(sealed), env_, stats_),
                        nullptr);
  }
  if (state == SealedState::kSuspect) {
    errors_.add(name.virtual_path(),
                Error{ErrorKind::kCorrupt, 0,
                      "the cached file is not the one that was sealed (it was written, moved or restored): every tile "
                      "is checked against its SHA-256 before it is served"},
                env_.now_ns());
    QCACHE_TRY(store_->demote(sealed.record.file));
  }
  QCACHE_TRY_ASSIGN(std::shared_ptr<FillingArtifact> artifact, filling(name, source, base, recipe));
  if (!artifact) {
    return std::optional<OpenArtifact>();
  }
  stats_.opens_filling.fetch_add(1, std::memory_order_relaxed);
  return OpenArtifact(*this, artifact->filling().key().file, artifact, artifact);
}

Result<std::shared_ptr<FillingArtifact>> Engine::filling(const ArtifactName& name,
                                                         const std::shared_ptr<const SourceModel>& model,
                                                         const std::string& base, const Sha256Digest& recipe) {
  const auto usable = [&](const FillingArtifact& artifact) {
    return artifact.recipe() == recipe && artifact.filling().is_current();
  };
  if (auto known = live_.find(base); known && usable(*known)) {
    return known;
  }
  // Opened outside the lock: it waits for the directory lock. Two threads may both get here; the second finds the
  // first's artifact below and drops its own, which shares the same files.
  QCACHE_TRY_ASSIGN(std::shared_ptr<const LayoutPlan> plan, plans_.plan(name, model, recipe));
  QCACHE_TRY_ASSIGN(std::unique_ptr<SourceReader> reader, SourceReader::open(env_, model, stats_));
  ArtifactName shown = name;
  shown.component = model->component;
  const FillingKey key{base, shown.virtual_path(), recipe, plan->size_bytes(), plan->tile_count()};
  QCACHE_TRY_ASSIGN(std::shared_ptr<FillingFile> pair, store_->open_filling(key));
  if (!pair) {
    return std::shared_ptr<FillingArtifact>();
  }
  FillingObserver& observer = *this;
  const auto fresh = std::make_shared<FillingArtifact>(std::move(shown), std::move(plan), std::move(reader),
                                                       std::move(pair), env_, workshop_, stats_, observer);
  if (name.rank > 0) {
    ranks_.changed();
  }
  std::shared_ptr<FillingArtifact> replaced;
  auto kept = live_.keep(base, fresh, usable, replaced);
  let_go(std::move(replaced));
  return kept;
}

void Engine::let_go(std::shared_ptr<const void> last) {
  if (last) {
    workshop_.pool().submit(Priority::kDemand, [last = std::move(last)] {});
  }
}

Status Engine::drop_all(const std::string& base) {
  if (auto artifact = live_.take(base)) {
    artifact->drop();
    let_go(std::move(artifact));
  }
  std::vector<UniqueFd> held;
  const auto freed = store_->drop_all(base, "removed by a user", held);
  let_go(std::make_shared<std::vector<UniqueFd>>(std::move(held)));
  return freed ? Status() : fail(freed.error());
}

Status Engine::remove(const ArtifactName& name) {
  QCACHE_TRY_ASSIGN(const FoundModel found, index_.locate_folder(name.model));
  QCACHE_TRY(drop_all(base_file_name_of(name, found.path)));
  if (name.rank > 0) {
    ranks_.changed();
  }
  return {};
}

Status Engine::remove_all(const std::string& model_name, const Scheme* scheme) {
  QCACHE_TRY_ASSIGN(const FoundModel found, index_.locate_folder(model_name));
  QCACHE_TRY_ASSIGN(const auto entries, store_->entries());
  for (const CacheEntry& entry : entries) {
    const auto path = parse_artifact_path(entry.record.virtual_path);
    const std::string base = base_file_name(entry.record.file);
    if (path && (scheme == nullptr || path->dtype == scheme->name()) && base_file_name_of(*path, found.path) == base) {
      QCACHE_TRY(drop_all(base));
    }
  }
  ranks_.changed();
  return {};
}

Status Engine::set_pinned(const ArtifactName& name, bool pinned) {
  if (!pinned) {
    QCACHE_TRY_ASSIGN(const FoundModel found, index_.locate_folder(name.model));
    return store_->unpin_all(base_file_name_of(name, found.path));
  }
  QCACHE_TRY_ASSIGN(const std::shared_ptr<const SourceModel> source, model(name.model));
  return store_->set_pinned(base_file_name_of(name, source->path), recipe_of(name, *source), true);
}

Status Engine::set_warm(const ArtifactName& name, bool warm) {
  return wait_for_settling(name.model, [&](int64_t& settles_in_ns) { return set_warm_now(name, warm, settles_in_ns); });
}

Status Engine::set_warm_now(const ArtifactName& name, bool warm, int64_t& settles_in_ns) {
  settles_in_ns = 0;
  if (!warm) {
    QCACHE_TRY_ASSIGN(const FoundModel found, index_.locate_folder(name.model));
    if (const auto artifact = live_.find(base_file_name_of(name, found.path))) {
      artifact->set_warm(false);
    }
    return {};
  }
  QCACHE_TRY_ASSIGN(const OpenArtifact opened, open_now(name, nullptr, settles_in_ns));
  if (opened.filling() != nullptr) {
    opened.filling()->set_warm(true);
  }
  return {};
}

void Engine::on_failure(const std::shared_ptr<FillingArtifact>& artifact, const Error& error) {
  errors_.add(artifact->name().virtual_path(), error, env_.now_ns());
  if (error.kind == ErrorKind::kSourceChanged) {
    // What was made so far is of a model that is gone: the next open starts from what is there now.
    live_.forget(artifact);
  } else if (error.kind == ErrorKind::kCorrupt) {
    give_up_damaged(artifact);
  }
}

void Engine::give_up_damaged(const std::shared_ptr<FillingArtifact>& artifact) {
  if (artifact->filling().is_complete()) {
    store_->abandon(artifact->filling(), "it is damaged on disk");
    artifact->drop();
    live_.forget(artifact);
  }
}

void Engine::on_all_made(const std::shared_ptr<FillingArtifact>& artifact) {
  sealer_.add(artifact);
}

void Engine::on_sealed(const std::shared_ptr<FillingArtifact>& artifact, const Record* record) {
  if (artifact->name().rank > 0) {
    ranks_.changed();
  }
  if (record != nullptr) {
    stats_.files_sealed.fetch_add(1, std::memory_order_relaxed);
    amender_.add(*record, artifact->quality_probe(), artifact->source_device());
  }
  live_.forget(artifact);
}

Result<MeasureQuality> Engine::find_source(const Record& record) {
  const auto path = parse_artifact_path(record.virtual_path);
  const Scheme* const scheme = path ? find_scheme(path->dtype) : nullptr;
  if (scheme == nullptr) {
    return MeasureQuality();
  }
  const ArtifactName name{path->model, scheme, path->rank, path->container};
  if (!index_.locate(name.model) || index_.root_that_may_stop(name.model)) {
    return MeasureQuality();  // nobody is to wait for it here
  }
  const auto source = index_.get(name.model);
  if (!source || recipe_of(name, **source) != record.recipe) {
    return MeasureQuality();
  }
  QCACHE_TRY_ASSIGN(const auto plan, plans_.plan(name, *source, record.recipe));
  QCACHE_TRY_ASSIGN(std::unique_ptr<SourceReader> opened, SourceReader::open(env_, *source, stats_));
  const std::shared_ptr<const SourceReader> reader = std::move(opened);
  return quality_probe(env_, plan, reader, std::make_shared<Surveys>(*plan, *reader));
}

void Engine::on_seal_failure(const std::shared_ptr<FillingArtifact>& artifact, const Error& error) {
  errors_.add(artifact->name().virtual_path(), error, env_.now_ns());
  if (error.kind == ErrorKind::kCorrupt) {
    give_up_damaged(artifact);
  }
}

void Engine::closed(const std::string& file, std::shared_ptr<const void> artifact) {
  if (open_files_.closed(file, env_.now_ns(), std::move(artifact))) {
    maintenance_.wake();  // which writes it
  }
}

std::vector<ErrorEntry> Engine::errors() const {
  std::vector<ErrorEntry> out = errors_.recent();
  for (const std::string& stopped : index_.stopped_roots()) {
    const int64_t now = env_.now_ns();
    out.push_back(ErrorEntry{now, now, 1, "models", Error{ErrorKind::kIo, ETIMEDOUT, stopped}});
  }
  return out;
}

Result<CacheUse> Engine::cache_use() {
  QCACHE_TRY_ASSIGN(const CacheTotals totals, store_->totals());
  return CacheUse{totals.filling_files, totals.sealed_files, totals.disk_bytes};
}

Result<bool> Engine::is_amended() {
  QCACHE_TRY(amender_.look());
  return amender_.is_done();
}

Result<AgingReport> Engine::age() {
  flush_accesses();
  return apply_aging(*store_, options_.aging, false);
}

}  // namespace qcache
