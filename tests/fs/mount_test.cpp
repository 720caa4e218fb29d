#include "tests/fs/mount_test.h"

#include <sched.h>
#include <sys/mount.h>

#include <cerrno>
#include <filesystem>
#include <stdexcept>
#include <system_error>

#include "core/base/env.h"
#include "core/base/mount_info.h"
#include "core/quant/scheme.h"

namespace qcache {
namespace {

/// Keeps the mounts of one test from the others that run meanwhile, and from the machine's own: commands look into
/// every qcache mount that they see, tell of stopped ones, and are in them for a moment. Where this is not allowed,
/// tests see each other's.
class MountsOfOurOwn final : public testing::Environment {
 public:
  void SetUp() override {
    if (::unshare(CLONE_NEWNS) != 0) {
      return;
    }
    ASSERT_EQ(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    for (const MountEntry& entry : parse_all_mounts(read_mount_info(Env::posix()).value_or(""))) {
      if (entry.type == kQcacheMountType) {
        (void)::umount2(entry.mount_point.c_str(), MNT_DETACH);
      }
    }
  }
};

const testing::Environment* const kMounts = testing::AddGlobalTestEnvironment(new MountsOfOurOwn());

}  // namespace

void MountTest::SetUp() {
  static const std::string kReason = MountedFs::reason_to_skip();
  if (!kReason.empty()) {
    GTEST_SKIP() << "mounts cannot be tested on this machine: " << kReason;
  }
  make_directories(models());
}

void MountTest::TearDown() {
  for (const auto& mount : mounts_) {
    if (mount->pid() >= 0) {
      EXPECT_EQ(mount->stop(), 0) << mount->log();
      EXPECT_TRUE(names_in(mount->path()).empty()) << "something is left mounted on " << mount->path();
    }
  }
  mounts_.clear();
}

MountedFs::Setup MountTest::setup(const std::string& name, std::vector<std::string> options) const {
  MountedFs::Setup out;
  out.models = models();
  out.cache = cache();
  out.mount_point = dir_ / name;
  out.log_file = dir_ / (name + ".log");
  out.options = std::move(options);
  return out;
}

MountedFs& MountTest::mount(std::vector<std::string> options) {
  return mount_as("mnt", std::move(options));
}

MountedFs& MountTest::mount_as(const std::string& name, std::vector<std::string> options) {
  return *mounts_.emplace_back(std::make_unique<MountedFs>(setup(name, std::move(options))));
}

std::string MountTest::only_filling_file(std::string_view suffix) const {
  std::string found;
  for (const std::string& name : names_in(cache() + "/filling")) {
    if (name.ends_with(suffix)) {
      if (!found.empty()) {
        throw std::runtime_error("more than one file is being made");
      }
      found = cache() + "/filling/" + name;
    }
  }
  if (found.empty()) {
    throw std::runtime_error("no file is being made");
  }
  return found;
}

OwnFilesystem::OwnFilesystem(std::string path, const std::string& type, const std::string& options, unsigned long flags)
    : path_(std::move(path)) {
  make_directories(path_);
  if (::mount(type.c_str(), path_.c_str(), type.c_str(), flags, options.c_str()) != 0) {
    throw std::runtime_error("cannot mount " + type + ": " + std::generic_category().message(errno));
  }
}

OwnFilesystem::~OwnFilesystem() {
  ::umount2(path_.c_str(), MNT_DETACH);
}

void complete(const MountedFs& fs, const std::string& file) {
  EXPECT_EQ(read_whole(fs.path(file)).error, 0) << file;
  fs.wait_until_sealed(file);
}

ModelBuilder small_model(uint64_t seed) {
  ModelBuilder model;
  model.config(R"({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]})")
      .tensor("model.embed_tokens.weight", DType::kBF16, {40, 64}, TensorData::normal(seed))
      .tensor("model.layers.0.self_attn.q_proj.weight", DType::kBF16, {64, 64}, TensorData::normal(seed + 1))
      .tensor("model.layers.0.self_attn.q_proj.bias", DType::kBF16, {64}, TensorData::normal(seed + 2))
      .tensor("model.layers.0.mlp.up_proj.weight", DType::kF32, {96, 128}, TensorData::normal(seed + 3))
      .tensor("model.layers.0.mlp.down_proj.weight", DType::kF16, {37, 51}, TensorData::normal(seed + 4))
      .tensor("model.layers.0.mlp.scalar", DType::kF32, {}, TensorData::normal(seed + 5))
      .tensor("model.layers.0.mlp.empty", DType::kF32, {0, 8}, TensorData::normal(seed + 6))
      .tensor("model.position_ids", DType::kI64, {3, 5}, TensorData::normal(seed + 7))
      .tensor("model.norm.weight", DType::kF32, {63}, TensorData::normal(seed + 8));
  return model;
}

ModelBuilder tiled_model(uint64_t seed) {
  ModelBuilder model;
  model.config(R"({"model_type": "qwen2"})")
      .tensor("model.layers.0.mlp.up_proj.weight", DType::kBF16, {8192, 1024}, TensorData::normal(seed))
      .tensor("model.layers.0.mlp.down_proj.weight", DType::kBF16, {64, 64}, TensorData::normal(seed + 1));
  return model;
}

ModelBuilder huge_model(uint64_t gigabytes) {
  constexpr uint64_t kColumns = 8192;
  const uint64_t rows = (gigabytes << 30) / (2 * kColumns);
  ModelBuilder model;
  model.config(R"({"model_type": "qwen2"})")
      .tensor("model.layers.0.mlp.up_proj.weight", DType::kBF16, {rows - rows / 16, kColumns}, TensorData::hole())
      .tensor("model.layers.1.mlp.up_proj.weight", DType::kBF16, {rows / 16, kColumns}, TensorData::hole());
  return model;
}

std::vector<std::string> all_dtypes() {
  std::vector<std::string> names;
  for (const Scheme* scheme : all_schemes()) {
    names.emplace_back(scheme->name());
  }
  return names;
}

}  // namespace qcache
