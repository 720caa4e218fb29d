#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "core/engine/engine.h"
#include "fs/control_files.h"
#include "fs/nodes/root.h"
#include "tests/support/fake_env.h"
#include "tests/support/model_builder.h"
#include "tests/support/result_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"

namespace qcache {

/// The nodes of a mount without a mount, over an engine on private folders.
class NodesTest : public testing::Test {
 protected:
  using Names = std::vector<std::string>;

  /// `shared` as for NodeContext.
  void start(bool shared = false) {
    EngineOptions options;
    options.roots = {dir_ / "models"};
    options.cache_directory = dir_ / "cache";
    options.mount_point = "/mnt/q";
    options.threads = 2;
    auto engine = Engine::start(env_, options);
    ASSERT_THAT(engine, is_ok());
    engine_ = std::move(*engine);
    control_ = std::make_unique<ControlFiles>(*engine_, "/mnt/q");
    context_ = std::make_unique<NodeContext>(*engine_, *control_, shared);
    root_ = std::make_shared<const RootNode>(*context_);
  }

  [[nodiscard]] std::string model(std::string_view name) const { return (dir_ / "models/") + std::string(name); }

  static ModelBuilder small_model() {
    ModelBuilder builder;
    builder.config(R"({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]})")
        .tensor("model.embed_tokens.weight", DType::kBF16, {40, 64})
        .tensor("model.layers.0.self_attn.q_proj.weight", DType::kBF16, {64, 64});
    return builder;
  }

  /// What a path leads to, looked up name by name.
  [[nodiscard]] Result<FoundNode> find(std::string_view path) const {
    FoundNode found{root_, root_->attributes()};
    while (!path.empty()) {
      const auto folder = std::dynamic_pointer_cast<const FolderNode>(found.node);
      if (!folder) {
        return fail(ErrorKind::kInvalidArgument, std::string(found.node->path()) + " is no folder");
      }
      const size_t slash = path.find('/');
      QCACHE_TRY_ASSIGN(found, folder->lookup(std::string(path.substr(0, slash))));
      path = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
    }
    return found;
  }

  /// The same, where it must be there.
  [[nodiscard]] std::shared_ptr<const Node> node(std::string_view path) const {
    auto found = find(path);
    EXPECT_THAT(found, is_ok()) << path;
    return found ? std::move(found->node) : nullptr;
  }
  [[nodiscard]] std::shared_ptr<const FolderNode> folder(std::string_view path) const {
    return std::dynamic_pointer_cast<const FolderNode>(node(path));
  }
  [[nodiscard]] std::shared_ptr<const FileNode> file(std::string_view path) const {
    return std::dynamic_pointer_cast<const FileNode>(node(path));
  }

  /// The names in a folder, those of folders with a slash, sorted.
  [[nodiscard]] Names list(std::string_view path) const {
    const auto entries = folder(path)->list();
    EXPECT_THAT(entries, is_ok()) << path;
    Names names;
    for (const FolderEntry& entry : entries.value_or(std::vector<FolderEntry>())) {
      names.push_back(entry.name + (entry.folder ? "/" : ""));
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  /// Opens a file, once its model's files have settled.
  static Result<OpenFile> open(const FileNode& file) {
    for (int attempt = 0;; ++attempt) {
      int64_t settles_in_ns = 0;
      auto opened = file.open(settles_in_ns);
      if (opened || settles_in_ns == 0 || attempt == Engine::kSettleAttempts) {
        return opened;
      }
      std::this_thread::sleep_for(std::chrono::nanoseconds(settles_in_ns));
    }
  }

  [[nodiscard]] std::string text(std::string_view path) const {
    const auto opened = open(*file(path));
    EXPECT_THAT(opened, is_ok()) << path;
    return opened && opened->text() != nullptr ? *opened->text() : "no text";
  }

  [[nodiscard]] std::string xattr(std::string_view path, const std::string& name) const {
    const auto xattrs = node(path)->xattrs();
    EXPECT_THAT(xattrs, is_ok()) << path;
    const std::string* const value = xattrs ? xattrs->find("user.qcache." + name) : nullptr;
    return value == nullptr ? "" : *value;
  }

  static Status set(const Node& node, std::string_view name, std::string_view value) {
    int64_t settles_in_ns = 0;
    Status done;
    for (int attempt = 0; attempt < Engine::kSettleAttempts; ++attempt) {
      done = node.set_xattr(name, value, settles_in_ns);
      if (done || settles_in_ns == 0) {
        break;
      }
      std::this_thread::sleep_for(std::chrono::nanoseconds(settles_in_ns));
    }
    return done;
  }

  /// Makes the whole file and waits until it is sealed, and hashed.
  void seal(std::string_view path) const {
    ASSERT_THAT(set(*node(path), "user.qcache.warm", "1"), is_ok()) << path;
    for (int i = 0; i < 2000 && xattr(path, "state") != "sealed"; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ASSERT_EQ(xattr(path, "state"), "sealed") << path;
    for (int i = 0; i < 2000 && xattr(path, "sha256").empty(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }

  TempDir dir_;
  FakeEnv env_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<ControlFiles> control_;
  std::unique_ptr<NodeContext> context_;
  std::shared_ptr<const RootNode> root_;
};

}  // namespace qcache
