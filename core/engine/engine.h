#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/engine/amender.h"
#include "core/engine/artifact.h"
#include "core/engine/artifact_name.h"
#include "core/engine/cached_ranks.h"
#include "core/engine/error_log.h"
#include "core/engine/filling_artifact.h"
#include "core/engine/live_files.h"
#include "core/engine/maintenance.h"
#include "core/engine/model_index.h"
#include "core/engine/open_files.h"
#include "core/engine/plan_cache.h"
#include "core/engine/sealer.h"
#include "core/engine/size_watch.h"
#include "core/engine/stats.h"
#include "core/engine/workshop.h"
#include "core/layout/model_folder.h"
#include "core/model/companion_files.h"
#include "core/store/aging.h"
#include "core/store/store.h"

namespace qcache {

struct EngineOptions {
  std::vector<std::string> roots;  ///< folders that hold models, absolute
  std::string cache_directory;
  AgingPolicy aging;
  unsigned threads = 0;                       ///< that quantize; 0: one per core, at least two
  std::string mount_point;                    ///< where programs see the files, for adapters to name; may be empty
  std::chrono::seconds aging_interval{3600};  ///< zero: never by itself
};

enum class ArtifactState {
  kAbsent,
  kFilling,
  kComplete,  ///< every byte is in place and checked by this process; to be sealed
  kSealed,
  kFailed,
};
[[nodiscard]] std::string_view to_string(ArtifactState state);

/// What is recorded of a complete file.
struct FileRecord {
  std::optional<Sha256Digest> sha256;  ///< of all bytes; none until they were hashed as a whole, in quiet
  Sha256Digest contents{};             ///< Record::contents()
  int64_t created_ns = 0;
  int64_t accessed_ns = 0;
  uint64_t hits = 0;               ///< opens since it was made
  std::array<uint64_t, 2> seal{};  ///< other numbers for every file that was sealed, that of the same recipe included
};

/// What can be said of a file of the mount without opening it.
struct ArtifactInfo {
  ArtifactName name;
  std::string model_path;
  std::string file;     ///< its name in the cache directory where it has bytes there, else the one it goes by
  std::string backing;  ///< the path of its bytes; empty where it has none
  Sha256Digest recipe{};
  uint64_t size_bytes = 0;  ///< exact
  uint64_t disk_bytes = 0;  ///< what the cached bytes occupy now
  ArtifactState state = ArtifactState::kAbsent;
  int64_t completed_ns = 0;          ///< where every byte is in place: FillingArtifact::completed_ns(); else 0
  std::optional<double> progress;    ///< share of the tiles made; empty where only the map on disk knows (progress())
  std::string error;                 ///< why the last read failed, where one did
  std::optional<FileRecord> record;  ///< where sealed and not touched since
  int64_t source_mtime_ns = 0;       ///< of the youngest source file
  std::shared_ptr<const SourceModel> source;
};

/// Why a file cannot be opened whose model does not settle.
[[nodiscard]] Error still_being_written(const std::string& model);

/// A scheme, and why a model cannot be served in it (empty where it can).
struct DtypeInfo {
  const Scheme* scheme = nullptr;
  std::string refusal;
};

class Engine;

/// A reader's hold on an artifact. Counts as "open", and so as used, until it is destroyed. Move-only.
class OpenArtifact {
 public:
  /// `file`: its name in the cache directory. `filling` is the same artifact where it is filling, else null.
  OpenArtifact(Engine& engine, std::string file, std::shared_ptr<Artifact> artifact,
               std::shared_ptr<FillingArtifact> filling);
  ~OpenArtifact();
  OpenArtifact(OpenArtifact&&) noexcept = default;
  OpenArtifact& operator=(OpenArtifact&&) = delete;
  OpenArtifact(const OpenArtifact&) = delete;
  OpenArtifact& operator=(const OpenArtifact&) = delete;

  [[nodiscard]] Artifact& operator*() const { return *artifact_; }
  [[nodiscard]] Artifact* operator->() const { return artifact_.get(); }
  /// The same artifact where it is filling, else null.
  [[nodiscard]] FillingArtifact* filling() const { return filling_.get(); }

 private:
  Engine* engine_;
  std::string file_;
  std::shared_ptr<Artifact> artifact_;
  std::shared_ptr<FillingArtifact> filling_;  // the same object, where it is filling
};

/// The facade: everything that `fs` and `tools` ask of the core.
///
/// Finds models, describes and opens their quantized files, seals complete ones, ages the cache directory. Any number
/// of engines, in any number of processes, may share a cache directory. Thread-safe. Calls read headers and records,
/// look through model folders, and wait for a file just written to settle: they take as long as those filesystems do
/// (milliseconds on a local disk, 2 s more at most for settling), but never wait for quantization; reads are
/// asynchronous. The engine must outlive every OpenArtifact. Start it after forking.
class Engine final : private FillingObserver, private SealObserver {
 public:
  static Result<std::unique_ptr<Engine>> start(Env& env, EngineOptions options);
  /// Fails waiting reads with kInterrupted, ends all threads (a file being sealed is left for a later run), writes
  /// access times. What is complete by then can still be read. Idempotent; called by the destructor.
  void stop();
  ~Engine() override;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // --- names ------------------------------------------------------------------------------------------------------
  /// Lists the folders anew; what is wrong with them goes to errors().
  [[nodiscard]] FoundModels models();
  /// kNotFound where there is no such folder; other errors where it cannot be served (kept in errors()).
  Result<std::shared_ptr<const SourceModel>> model(const std::string& name);
  /// Whether a model folder of this name exists, servable or not.
  [[nodiscard]] Result<FoundModel> locate_model(const std::string& name) { return index_.locate(name); }
  /// As ModelIndex::root_that_may_stop().
  [[nodiscard]] std::optional<size_t> root_that_may_stop(const std::string& name) {
    return index_.root_that_may_stop(name);
  }
  [[nodiscard]] static std::vector<DtypeInfo> dtypes(const SourceModel& model);

  /// What qcache adds to the folder of a model in a dtype and rank. kNotFound as for model() and where there is no
  /// such rank; kUnsupported where there is no such folder.
  Result<std::shared_ptr<const ModelFolder>> folder(const std::string& model_name, const Scheme& scheme, uint32_t rank);
  /// The text of one of the files in folder(), as it is now: qcache.json tells the quality of the weights once a file
  /// of them is sealed.
  Result<std::string> folder_text(const std::string& model_name, const Scheme& scheme, const FolderFile& file);
  /// The files of a model that are passed through.
  Result<CompanionFiles> companions(const std::string& model_name);

  // --- artifacts --------------------------------------------------------------------------------------------------
  /// kNotFound where the model, dtype or rank does not exist.
  Result<ArtifactInfo> describe(const ArtifactName& name);
  /// The share of the tiles made, 0 to 1, of a file as it was described. Reads the map of one that nobody has open
  /// here.
  Result<double> progress(const ArtifactInfo& info);
  /// How near the weights in a file as it was described are to their source; empty where that was not measured.
  Result<std::vector<TensorQuality>> quality(const ArtifactInfo& info);
  /// Whether the file as it was described is pinned; none where it is neither complete nor looked through again.
  Result<std::optional<bool>> is_pinned(const ArtifactInfo& info);
  /// The files of ranks above 0 that hold bytes, of one model in one dtype; some perhaps twice. May miss what other
  /// processes have done within the last second.
  [[nodiscard]] std::vector<ArtifactName> cached_ranks(const std::string& model_name, const Scheme& scheme);
  /// Opens for reading. kSourceChanged where `expected` is given and the bytes would be other ones by now: look again.
  /// Waits where a file of the model is younger than its clock's granularity (20 ms on most filesystems, at most 2 s),
  /// as set_warm() does.
  Result<OpenArtifact> open(const ArtifactName& name, const Sha256Digest* expected = nullptr);
  /// The same, but fails with kBusy instead of waiting, and `settles_in_ns`, else 0, says when to ask again. Who has
  /// asked kSettleAttempts times asks for files that are being written.
  Result<OpenArtifact> open_now(const ArtifactName& name, const Sha256Digest* expected, int64_t& settles_in_ns);
  static constexpr int kSettleAttempts = 4;
  /// A program is about to load the file: begins to make it ahead, where it is not complete. Fails as open();
  /// the second as open_now().
  Status expect_reader(const ArtifactName& name);
  Status expect_reader_now(const ArtifactName& name, int64_t& settles_in_ns);
  /// For who opens a file of this recipe that was announced: as FillingArtifact::load_comes_in(). Nothing where it is
  /// not being made here.
  [[nodiscard]] std::optional<std::chrono::nanoseconds> load_comes_in(const ArtifactName& name,
                                                                      const Sha256Digest& recipe);
  /// Drops the cached bytes, also those of former states of the model. Readers keep theirs. Absent bytes are no error.
  Status remove(const ArtifactName& name);
  /// The same for all that is cached of a model, in one scheme or (null) in all. Goes by what is cached, so that it
  /// also works for a model that cannot be served.
  Status remove_all(const std::string& model_name, const Scheme* scheme);
  /// Pins what the model makes as it is now; unpins also what was made of former states. kNotFound where it is not
  /// complete.
  Status set_pinned(const ArtifactName& name, bool pinned);
  /// Starts making the whole file in the background, or stops. Returns at once; describe() tells how far it is.
  Status set_warm(const ArtifactName& name, bool warm);
  /// The same, failing as open_now() instead of waiting.
  Status set_warm_now(const ArtifactName& name, bool warm, int64_t& settles_in_ns);

  // --- the whole --------------------------------------------------------------------------------------------------
  [[nodiscard]] const Stats& stats() const { return stats_; }
  /// What went wrong lately, and which roots do not answer now.
  [[nodiscard]] std::vector<ErrorEntry> errors() const;
  [[nodiscard]] Store& store() { return *store_; }
  [[nodiscard]] Env& env() const { return env_; }
  [[nodiscard]] const std::string& cache_directory() const { return store_->directory().path(); }
  Result<CacheUse> cache_use();
  /// Of the cache directory's filesystem.
  [[nodiscard]] Result<SpaceInfo> space() const { return env_.space(cache_directory()); }
  /// In bytes on disk; none: no limit.
  [[nodiscard]] std::optional<uint64_t> max_size() const { return options_.aging.max_bytes; }
  [[nodiscard]] const std::vector<std::string>& roots() const { return index_.roots(); }
  /// Where models may be read from.
  [[nodiscard]] const SourceFolders& folders() const { return index_.folders(); }
  [[nodiscard]] int64_t now_ns() const { return env_.now_ns(); }
  /// Whether all that can be found out of complete files in quiet is recorded. Begins with what is not.
  Result<bool> is_amended();
  /// Drops what the policy says; also runs by itself every `aging_interval`.
  Result<AgingReport> age();

 private:
  class SealedArtifact;
  friend class OpenArtifact;

  Engine(Env& env, EngineOptions options, std::shared_ptr<Store> store);

  /// Of the weights in a scheme, from whichever container of them is sealed; empty where it is not known.
  Result<std::vector<TensorQuality>> quality(const std::string& model_name, const Scheme& scheme);

  /// Nothing where the file was sealed between two looks at it: look again.
  Result<std::optional<OpenArtifact>> try_open(const ArtifactName& name, const Sha256Digest* expected,
                                               int64_t& settles_in_ns);
  /// Null as try_open().
  Result<std::shared_ptr<FillingArtifact>> filling(const ArtifactName& name,
                                                   const std::shared_ptr<const SourceModel>& model,
                                                   const std::string& base, const Sha256Digest& recipe);
  // Drops what may be the last reference, on a worker: closing a large file that was removed takes seconds.
  void let_go(std::shared_ptr<const void> last);
  /// Drops all that goes by this name. Readers keep their bytes.
  Status drop_all(const std::string& base);

  void on_all_made(const std::shared_ptr<FillingArtifact>& artifact) override;
  void on_failure(const std::shared_ptr<FillingArtifact>& artifact, const Error& error) override;
  void on_sealed(const std::shared_ptr<FillingArtifact>& artifact, const Record* record) override;
  void on_seal_failure(const std::shared_ptr<FillingArtifact>& artifact, const Error& error) override;

  /// As FindSource.
  Result<MeasureQuality> find_source(const Record& record);

  // A complete file that proved damaged: nobody finds it any more.
  void give_up_damaged(const std::shared_ptr<FillingArtifact>& artifact);

  // What is due by the clock (engine_background.cpp).
  void add_tasks();
  // Replaces workers that hang, ends processes that nobody needs.
  void tend_workers();
  void tick_artifacts();
  // Notes that open files are used, those that are being made included.
  void renew_uses();
  void flush_accesses();
  void closed(const std::string& file, std::shared_ptr<const void> artifact);
  // Drops what is over the size limit while files are made, instead of when aging is next due.
  Status keep_to_size();
  void check_free_space();

  Env& env_;
  const EngineOptions options_;
  const std::shared_ptr<Store> store_;
  Stats stats_;
  ErrorLog errors_;
  ModelIndex index_;
  PlanCache plans_;
  OpenFiles open_files_;
  LiveFiles live_;
  CachedRanks ranks_;
  bool low_space_ = false;  // maintenance thread only
  SizeWatch size_watch_;    // likewise
  Workshop workshop_;
  Sealer sealer_;
  Amender amender_;
  Maintenance maintenance_;
  std::atomic<bool> stopped_{false};
};

}  // namespace qcache
