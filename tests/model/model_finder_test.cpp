#include "core/model/model_finder.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "tests/support/fake_env.h"
#include "tests/support/model_builder.h"
#include "tests/support/result_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

class ModelFinderTest : public testing::Test {
 protected:
  /// A folder that holds weights, empty ones: the finder opens none.
  void weights(const std::string& folder) { write_file(dir_ / (folder + "/model.safetensors"), ""); }

  /// "name=path below the root" of all models, and find_model must agree on each.
  std::vector<std::string> found(const std::vector<std::string>& roots) {
    FoundModels models = find_models(Env::posix(), roots);
    std::vector<std::string> lines;
    for (const FoundModel& model : models.models) {
      lines.push_back(model.name + '=' + short_path(model.path));
      const auto one = find_model(Env::posix(), roots, model.name);
      EXPECT_THAT(one, is_ok());
      EXPECT_EQ(one->path, model.path);
    }
    shadowed_.clear();
    for (const FoundModel& model : models.shadowed) {
      shadowed_.push_back(model.name + '=' + short_path(model.path));
    }
    problems_ = std::move(models.problems);
    return lines;
  }
  std::vector<std::string> found() { return found({dir_.path()}); }
  [[nodiscard]] std::string short_path(const std::string& path) const { return path.substr(dir_.path().size()); }

  using Lines = std::vector<std::string>;
  TempDir dir_;
  Lines shadowed_;
  Lines problems_;
};

TEST_F(ModelFinderTest, NamesModelsAfterTheirFolders) {
  weights("b");
  weights("Qwen2.5-0.5B");
  weights("b/sub");
  weights(".hidden");
  write_file(dir_ / "notes.txt", "");
  write_file(dir_ / "empty/readme", "");
  EXPECT_EQ(found(), (Lines{"Qwen2.5-0.5B=/Qwen2.5-0.5B", "b=/b"}));
  EXPECT_EQ(problems_, Lines());
  EXPECT_EQ(shadowed_, Lines());
}

TEST_F(ModelFinderTest, TorchCheckpointsAreModels) {
  write_file(dir_ / "a/pytorch_model.bin", "");
  write_file(dir_ / "b/pytorch_model.bin.index.json", "");
  write_file(dir_ / "c/net.pth", "PK\3\4");
  write_file(dir_ / "d/vocab.bin", "words");
  write_file(dir_ / "d/net.pt", "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.");
  EXPECT_EQ(found(), (Lines{"a=/a", "b=/b", "c=/c", "d=/d"}));
}

TEST_F(ModelFinderTest, OtherFilesOfTheSameNamesAreNoModelsAndHideNone) {
  write_file(dir_ / "firmware/chip.bin",
             "\x7f"
             "ELF");
  write_file(dir_ / "firmware/empty.pt", "");
  make_link("nowhere", dir_ / "firmware/gone.bin");
  make_directories(dir_ / "firmware/folder.bin");
  write_file(dir_ / "run/optimizer.pt", "PK\3\4");
  weights("firmware/inside");
  weights("run/checkpoint");
  EXPECT_EQ(found(), (Lines{"firmware--inside=/firmware/inside", "run--checkpoint=/run/checkpoint"}));
  EXPECT_EQ(problems_, Lines());
}

TEST_F(ModelFinderTest, LooksTwoLevelsIntoFoldersWithoutWeights) {
  weights("org/name");
  weights("a/b/c");
  weights("x/y/z/deep");
  weights("flux/.cache");
  EXPECT_EQ(found(), (Lines{"a--b--c=/a/b/c", "org--name=/org/name"}));
}

TEST_F(ModelFinderTest, ARootThatHoldsWeightsIsOneModel) {
  weights("m");
  weights("m/sub");
  write_file(dir_ / "m/config.json", "{}");
  make_link("m", dir_ / "alias");
  EXPECT_EQ(found({dir_ / "m"}), Lines{"m=/m"});
  EXPECT_EQ(found({dir_ / "m/"}), Lines{"m=/m"});
  EXPECT_EQ(found({dir_ / "m/."}), Lines{"m=/m"});
  EXPECT_EQ(found({dir_ / "alias"}), Lines{"alias=/m"});
}

TEST_F(ModelFinderTest, StrayWeightsInARootHideNoModels) {
  weights("root");
  weights("root/a");
  weights("root/org/b");
  EXPECT_EQ(found({dir_ / "root"}), (Lines{"a=/root/a", "org--b=/root/org/b", "root=/root"}));
}

TEST_F(ModelFinderTest, LinksToModelsAreModels) {
  weights("store/m");
  make_link("../store/m", dir_ / "root/link");
  make_link("../nowhere", dir_ / "root/dangling");
  make_link("loop", dir_ / "root/loop");
  make_link(".", dir_ / "root/self");
  EXPECT_EQ(found({dir_ / "root"}),
            (Lines{"link=/root/link", "self--link=/root/self/link", "self--self--link=/root/self/self/link"}));
  EXPECT_EQ(problems_, Lines());
}

TEST_F(ModelFinderTest, ShowsTheCurrentSnapshotOfAHubRepo) {
  const ModelBuilder model = ModelBuilder().tensor("x", DType::kU8, {1});
  const std::string old_commit(40, 'a');
  const std::string new_commit(40, 'b');
  model.write_hub(dir_.path(), "org--name", old_commit);
  model.write_hub(dir_.path(), "org--name", new_commit);
  const std::string repo = "/models--org--name";
  EXPECT_EQ(found(), Lines{"org--name=" + repo + "/snapshots/" + new_commit});
  write_file(dir_ / (repo + "/refs/main"), old_commit + "\n");
  EXPECT_EQ(found(), Lines{"org--name=" + repo + "/snapshots/" + old_commit});

  // Without a usable ref: the snapshot that changed last.
  set_mtime(dir_ / (repo + "/snapshots/" + old_commit), 2'000'000'000);
  set_mtime(dir_ / (repo + "/snapshots/" + new_commit), 1'000'000'000);
  for (const std::string& ref : {std::string(40, 'c'), std::string("../../x"), std::string(), std::string(300, 'a')}) {
    write_file(dir_ / (repo + "/refs/main"), ref);
    EXPECT_EQ(found(), Lines{"org--name=" + repo + "/snapshots/" + old_commit}) << ref;
  }
}

TEST_F(ModelFinderTest, FindsHubReposAtAnyDepthByTheirOwnName) {
  const ModelBuilder model = ModelBuilder().tensor("x", DType::kU8, {1});
  const std::string commit = ModelBuilder::kDefaultCommit;
  model.write_hub(dir_ / "hf/hub", "org--name");
  weights("hf/datasets--a--b/snapshots/x");
  make_directories(dir_ / "hf/hub/models--not--downloaded/refs");
  const std::string snapshot = "/hf/hub/models--org--name/snapshots/" + commit;
  EXPECT_EQ(found(), Lines{"org--name=" + snapshot});
  EXPECT_EQ(found({dir_ / "hf/hub"}), Lines{"org--name=" + snapshot});
  EXPECT_EQ(found({dir_ / "hf/hub/models--org--name"}), Lines{"org--name=" + snapshot});
  EXPECT_EQ(found({dir_.path() + snapshot}), Lines{"org--name=" + snapshot});
  EXPECT_EQ(problems_, Lines());
}

TEST_F(ModelFinderTest, ShowsThePartsOfAPipelineInAHubRepo) {
  const std::string commit = ModelBuilder::kDefaultCommit;
  const std::string snapshot = "/models--bfl--flux/snapshots/" + commit;
  weights(snapshot.substr(1) + "/transformer");
  weights(snapshot.substr(1) + "/vae");
  EXPECT_EQ(found(),
            (Lines{"bfl--flux--transformer=" + snapshot + "/transformer", "bfl--flux--vae=" + snapshot + "/vae"}));
  EXPECT_EQ(found({dir_.path() + snapshot + "/vae"}), Lines{"bfl--flux--vae=" + snapshot + "/vae"});
}

TEST_F(ModelFinderTest, TheFirstOfTwoModelsWithOneNameIsShown) {
  weights("r1/m");
  weights("r2/m");
  weights("r2/a/b");
  weights("r2/a--b");
  EXPECT_EQ(found({dir_ / "r1", dir_ / "r2"}), (Lines{"a--b=/r2/a/b", "m=/r1/m"}));
  EXPECT_EQ(shadowed_, (Lines{"a--b=/r2/a--b", "m=/r2/m"}));
  EXPECT_EQ(found({dir_ / "r2", dir_ / "r1"}), (Lines{"a--b=/r2/a/b", "m=/r2/m"}));
  EXPECT_EQ(found({dir_ / "r1", dir_ / "r1/"}), Lines{"m=/r1/m"});
  EXPECT_EQ(shadowed_, Lines());
}

TEST_F(ModelFinderTest, AFolderThatCannotBeListedHidesNoOther) {
  weights("r/m");
  EXPECT_EQ(found({dir_ / "missing", dir_ / "r"}), Lines{"m=/r/m"});
  ASSERT_EQ(problems_.size(), 1U);
  EXPECT_THAT(problems_[0], testing::HasSubstr("/missing"));

  weights("r/closed/x");
  FakeEnv env;
  env.fail_all(EnvCall::kList, EACCES, "closed");
  const FoundModels models = find_models(env, {dir_ / "r"});
  EXPECT_EQ(models.models.size(), 1U);
  ASSERT_EQ(models.problems.size(), 1U);
  EXPECT_THAT(models.problems[0], testing::HasSubstr("closed"));
  EXPECT_THAT(find_model(env, {dir_ / "r"}, "closed--x"),
              fails_with(ErrorKind::kNotFound, {"'closed--x'", "Permission denied"}));
  EXPECT_THAT(find_model(env, {dir_ / "r"}, "m"), is_ok());
}

TEST_F(ModelFinderTest, NamesThatNoFileCanHaveAreSkippedAndTold) {
  weights("good");
  weights("bad\xFF");
  const std::string long_name(200, 'n');
  weights(long_name + '/' + long_name);
  EXPECT_EQ(found(), Lines{"good=/good"});
  ASSERT_EQ(problems_.size(), 2U);
  EXPECT_THAT(problems_[0], testing::HasSubstr("not UTF-8"));
  EXPECT_THAT(problems_[1], testing::HasSubstr("longer than 255"));
}

TEST_F(ModelFinderTest, AnUnknownNameIsNotFound) {
  weights("m");
  for (const char* name : {"x", "", "m/", "../m", "M"}) {
    EXPECT_THAT(find_model(Env::posix(), {dir_.path()}, name), fails_with(ErrorKind::kNotFound, {"no model"}));
  }
}

TEST_F(ModelFinderTest, OpensNothingAndListsEachFolderOnce) {
  for (int i = 0; i < 20; ++i) {
    weights("m" + std::to_string(i));
  }
  FakeEnv env;
  EXPECT_EQ(find_models(env, {dir_.path()}).models.size(), 20U);
  EXPECT_EQ(env.count(EnvCall::kOpen), 0U);
  EXPECT_EQ(env.count(EnvCall::kStat), 0U);
  EXPECT_EQ(env.count(EnvCall::kList), 21U);
  FakeEnv first;
  ASSERT_THAT(find_model(first, {dir_.path()}, "m0"), is_ok());
  EXPECT_EQ(first.count(EnvCall::kList), 2U);
}

}  // namespace
}  // namespace qcache
