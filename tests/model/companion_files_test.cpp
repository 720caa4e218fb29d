#include "core/model/companion_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <string>
#include <vector>

#include "tests/support/result_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

using testing::ElementsAre;

class CompanionFilesTest : public testing::Test {
 protected:
  [[nodiscard]] CompanionFiles files(const std::string& weights_folder = {}) const {
    const SourceFolders folders(Env::posix(), resolve_folders(Env::posix(), {dir_ / "models"}));
    return {folders.of_model(model_), model_, weights_folder};
  }
  static std::vector<std::string> names(const CompanionFiles& files, const std::string& relative) {
    std::vector<std::string> out;
    const auto entries = files.list(relative);
    EXPECT_THAT(entries, is_ok());
    for (const CompanionEntry& entry : entries.value_or(std::vector<CompanionEntry>())) {
      out.push_back(entry.name + (entry.directory ? "/" : ""));
    }
    return out;
  }

  TempDir dir_;
  std::string model_ = dir_ / "models/m";
};

TEST_F(CompanionFilesTest, ListsEverythingButWeightsAndHiddenNames) {
  for (const char* name :
       {"config.json", "tokenizer.json", "modeling.py", "model.safetensors", "pytorch_model.bin",
        "model.safetensors.index.json", "consolidated.00.pth", "m.gguf", "tf_model.h5", "flax_model.msgpack",
        ".gitattributes", "1_Pooling/config.json", "2_Dense/model.safetensors", "2_Dense/.hidden", ".git/HEAD"}) {
    write_file(model_ + "/" + name, "x");
  }
  EXPECT_THAT(names(files(), ""),
              ElementsAre("1_Pooling/", "2_Dense/", "config.json", "modeling.py", "tokenizer.json"));
  // A module of another kind keeps its weights.
  EXPECT_THAT(names(files(), "2_Dense"), ElementsAre(".hidden", "model.safetensors"));
  EXPECT_THAT(files().look("model.safetensors"), fails_with(ErrorKind::kNotFound, {"model.safetensors"}));
  EXPECT_THAT(files().open(".git"), fails_with(ErrorKind::kNotFound, {}));
}

TEST_F(CompanionFilesTest, OfAPipelineLeavesOutTheWeightsOfTheQuantizedPartOnly) {
  for (const char* name :
       {"model_index.json", "whole.safetensors", "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"}) {
    write_file(model_ + "/" + name, "x");
  }
  const CompanionFiles pipeline = files("transformer");
  EXPECT_THAT(names(pipeline, ""), ElementsAre("model_index.json", "transformer/", "vae/"));
  EXPECT_THAT(names(pipeline, "transformer"), ElementsAre("config.json"));
  EXPECT_THAT(names(pipeline, "vae"), ElementsAre("diffusion_pytorch_model.safetensors"));
}

TEST_F(CompanionFilesTest, FollowsLinksInsideTheRootsOnly) {
  write_file(dir_ / "secret", "secret");
  write_file(dir_ / "models/common/tokenizer.json", "common");
  write_file(model_ + "/config.json", "{}");
  make_link("../common/tokenizer.json", model_ + "/tokenizer.json");
  make_link("../../secret", model_ + "/leak.txt");
  make_link(dir_.path(), model_ + "/up");
  make_link("nowhere", model_ + "/dangling");
  make_link("circle", model_ + "/circle");
  EXPECT_THAT(names(files(), ""), ElementsAre("config.json", "tokenizer.json"));
  EXPECT_THAT(files().open("tokenizer.json"), is_ok());
  EXPECT_THAT(files().open("leak.txt"), fails_with(ErrorKind::kNotFound, {"leak.txt", "outside"}));
  EXPECT_THAT(files().look("up/secret"), fails_with(ErrorKind::kNotFound, {}));
  EXPECT_THAT(files().look("circle"), fails_with(ErrorKind::kNotFound, {}));
}

TEST_F(CompanionFilesTest, LeavesOutLinksToFolders) {
  write_file(model_ + "/sub/file", "x");
  make_link(".", model_ + "/sub/loop");
  make_link("sub", model_ + "/alias");
  EXPECT_THAT(names(files(), ""), ElementsAre("sub/"));
  EXPECT_THAT(names(files(), "sub"), ElementsAre("file"));
  EXPECT_THAT(files().look("alias/file"), fails_with(ErrorKind::kNotFound, {}));
  EXPECT_THAT(files().list("alias"), fails_with(ErrorKind::kNotFound, {}));
}

TEST_F(CompanionFilesTest, InAHubCacheFollowsLinksInsideItsRepoOnly) {
  const std::string repo = dir_ / "models/models--org--name";
  model_ = repo + "/snapshots/abc";
  write_file(repo + "/blobs/1", "{}");
  write_file(dir_ / "models/models--org--other/blobs/2", "{}");
  make_link("../../blobs/1", model_ + "/config.json");
  make_link("../../../models--org--other/blobs/2", model_ + "/other.json");
  EXPECT_THAT(names(files(), ""), ElementsAre("config.json"));
}

TEST_F(CompanionFilesTest, RefusesPathsThatAreNotMadeOfPlainNames) {
  write_file(model_ + "/a/b", "x");
  write_file(dir_ / "models/other", "x");
  for (const char* path : {"../other", "a/../../other", "a//b", "/a", "a/.", "a/./b"}) {
    EXPECT_THAT(files().look(path), fails_with(ErrorKind::kNotFound, {})) << path;
  }
  EXPECT_THAT(files().look("a/b"), is_ok());
}

TEST_F(CompanionFilesTest, ShowsFilesAndFoldersOnlyAndNeverBlocks) {
  write_file(model_ + "/config.json", "x");
  ASSERT_EQ(::mkfifo((model_ + "/pipe").c_str(), 0600), 0);
  EXPECT_THAT(names(files(), ""), ElementsAre("config.json"));
  EXPECT_THAT(files().open("pipe"), fails_with(ErrorKind::kNotFound, {"pipe"}));
}

}  // namespace
}  // namespace qcache
