#include "core/model/model_finder.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <map>
#include <random>
#include <set>

#include "tests/support/fake_env.h"
#include "tests/support/model_builder.h"
#include "tests/support/result_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

SourceFolders folders_below(Env& env, const std::string& root) {
  return SourceFolders(env, resolve_folders(env, {root}));
}

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

TEST_F(ModelFinderTest, LinksToModelsBelowTheRootsAreModels) {
  weights("root/.store/m");
  weights("second/n");
  make_link(".store/m", dir_ / "root/link");
  make_link("../second/n", dir_ / "root/other");
  make_link("../nowhere", dir_ / "root/dangling");
  make_link("loop", dir_ / "root/loop");
  make_link(".", dir_ / "root/self");
  EXPECT_EQ(found({dir_ / "root", dir_ / "second"}), (Lines{"link=/root/link", "n=/second/n", "other=/root/other"}));
  EXPECT_EQ(problems_, Lines());
}

TEST_F(ModelFinderTest, NoFolderOutsideTheRootsIsLookedInto) {
  weights("store/m");
  weights("root/good");
  make_link("../store/m", dir_ / "root/link");
  make_link("../store", dir_ / "root/group");
  FakeEnv env;
  const FoundModels models = find_models(env, {dir_ / "root"});
  ASSERT_EQ(models.models.size(), 1U);
  EXPECT_EQ(models.models[0].name, "good");
  ASSERT_EQ(models.problems.size(), 2U);
  EXPECT_THAT(models.problems[1], testing::HasSubstr("/root/link is a link to"));
  EXPECT_THAT(models.problems[1], testing::HasSubstr("mount that folder too"));
  EXPECT_EQ(env.count(EnvCall::kList), 2U);
  EXPECT_EQ(found({dir_ / "root", dir_ / "store"}).size(), 4U) << "two under the names of the links";
}

TEST_F(ModelFinderTest, WeightsThatLeadOutOfTheRootsAreAModelThatCanSayWhyItIsNotServed) {
  write_file(dir_ / "store/x.pt", "not torch's");
  write_file(dir_ / "root/no/x.pt", "not torch's");
  make_directories(dir_ / "root/m");
  make_link("../../store/x.pt", dir_ / "root/m/x.pt");
  EXPECT_EQ(found({dir_ / "root"}), Lines{"m=/root/m"});
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

TEST_F(ModelFinderTest, OpensNoModelAndListsEachFolderOnce) {
  for (int i = 0; i < 20; ++i) {
    weights("m" + std::to_string(i));
  }
  FakeEnv env;
  std::atomic<uint64_t> steps{0};
  const auto walk = walk_root(env, folders_below(env, dir_.path()), dir_.path(), MountTable(), nullptr, steps);
  EXPECT_EQ(walk->models.size(), 20U);
  EXPECT_EQ(env.count(EnvCall::kReadAt), 0U);
  EXPECT_EQ(env.count(EnvCall::kList), 21U);
  FakeEnv first;
  ASSERT_THAT(find_model(first, {dir_.path()}, "m0"), is_ok());
  EXPECT_EQ(first.count(EnvCall::kList), 2U);
}

TEST_F(ModelFinderTest, ALinkToAFolderAboveShowsNothingTwice) {
  weights("m");
  weights("org/n");
  make_link(dir_.path(), dir_ / "self");
  make_link("../..", dir_ / "org/up");
  make_link("..", dir_ / "org/above");
  EXPECT_EQ(found(), (Lines{"m=/m", "org--n=/org/n"}));
}

TEST_F(ModelFinderTest, ASecondWalkListsOnlyWhatHasChanged) {
  FakeEnv env;
  for (int i = 0; i < 20; ++i) {
    weights("m" + std::to_string(i));
    make_directories(dir_ / ("empty/" + std::to_string(i)));
  }
  env.set_time(Env::posix().now_ns() + 10'000'000'000);  // all of it happened long ago
  std::atomic<uint64_t> steps{0};
  const auto first = walk_root(env, folders_below(env, dir_.path()), dir_.path(), MountTable(), nullptr, steps);
  EXPECT_EQ(env.count(EnvCall::kList), 42U);
  EXPECT_EQ(steps, 42U);
  const auto second = walk_root(env, folders_below(env, dir_.path()), dir_.path(), MountTable(), first.get(), steps);
  EXPECT_EQ(env.count(EnvCall::kList), 42U);
  EXPECT_EQ(second->models.size(), 20U);
  weights("empty/5");
  Env::posix().remove(dir_ / "m7/model.safetensors");
  const auto third = walk_root(env, folders_below(env, dir_.path()), dir_.path(), MountTable(), second.get(), steps);
  EXPECT_EQ(env.count(EnvCall::kList), 44U);
  EXPECT_EQ(third->models.size(), 20U);
  EXPECT_EQ(third->paths.count("m7"), 0U);
  EXPECT_EQ(third->paths.count("empty--5"), 1U);
}

TEST_F(ModelFinderTest, ALookupAsksOnlyForTheFoldersThatTheNameLeadsTo) {
  for (int i = 0; i < 200; ++i) {
    weights("m" + std::to_string(i));
  }
  weights("org/a/b");
  ModelBuilder().tensor("x", DType::kU8, {1}).write_hub(dir_ / "hf/hub", "org--name");
  FakeEnv env;
  env.set_time(Env::posix().now_ns() + 10'000'000'000);
  std::atomic<uint64_t> steps{0};
  const auto walk = walk_root(env, folders_below(env, dir_.path()), dir_.path(), MountTable(), nullptr, steps);
  const auto asked = [&](const char* name, const char* path) {
    const uint64_t before = env.count(EnvCall::kStat) + env.count(EnvCall::kList) + env.count(EnvCall::kOpen);
    const RootLookup looked =
        look_up_in_root(env, folders_below(env, dir_.path()), dir_.path(), MountTable(), name, walk.get());
    EXPECT_TRUE(looked.sure);
    EXPECT_EQ(looked.found.has_value(), *path != 0) << name;
    if (looked.found) {
      EXPECT_EQ(short_path(looked.found->path), path);
    }
    return env.count(EnvCall::kStat) + env.count(EnvCall::kList) + env.count(EnvCall::kOpen) - before;
  };
  EXPECT_LE(asked("m5", "/m5"), 3U);
  EXPECT_LE(asked("org--a--b", "/org/a/b"), 10U);
  EXPECT_LE(asked("nothing", ""), 12U);
  EXPECT_LE(asked("no--thing--at--all", ""), 20U);
  EXPECT_LE(
      asked("org--name", (std::string("/hf/hub/models--org--name/snapshots/") + ModelBuilder::kDefaultCommit).c_str()),
      20U);
}

TEST_F(ModelFinderTest, WhatOnlyAWalkTellsIsNotGuessed) {
  weights("m");
  FakeEnv env;
  env.set_time(Env::posix().now_ns() + 10'000'000'000);
  std::atomic<uint64_t> steps{0};
  const auto look = [&](const RootWalk* last) {
    return look_up_in_root(env, folders_below(env, dir_.path()), dir_.path(), MountTable(), "org--name", last);
  };
  EXPECT_FALSE(look(nullptr).sure);
  const auto walk = walk_root(env, folders_below(env, dir_.path()), dir_.path(), MountTable(), nullptr, steps);
  EXPECT_TRUE(look(walk.get()).sure);
  ModelBuilder().tensor("x", DType::kU8, {1}).write_hub(dir_ / "hf/hub", "org--name");
  EXPECT_FALSE(look(walk.get()).sure);
  const auto next = walk_root(env, folders_below(env, dir_.path()), dir_.path(), MountTable(), walk.get(), steps);
  EXPECT_TRUE(look(next.get()).found.has_value());
}

TEST_F(ModelFinderTest, ALookupGivesWhatAWalkShowsInAnyTree) {
  std::mt19937 random(11);
  const auto pick = [&](const std::vector<std::string>& from) { return from[random() % from.size()]; };
  const std::vector<std::string> parts = {"a",       "b",      "a--b", "models--a--b", "models--a",
                                          ".h",      "a-",     "-b",   "datasets--a",  "models--b",
                                          "a--b--c", "models", "snap", "transformer",  "models--a--"};
  std::set<std::string> asked = {"a",         "a--a",   "a--b",  "a--b--c", "b", "b--a--b",
                                 "models--a", "models", "a---b", "x",       "--"};
  size_t unsure = 0;
  size_t lookups = 0;
  for (int tree = 0; tree < 60; ++tree) {
    const std::string root = "t" + std::to_string(tree);
    make_directories(dir_ / root);
    for (int i = 0; i < 14; ++i) {
      std::string folder = root;
      for (uint32_t depth = random() % 4; depth > 0; --depth) {
        folder += '/' + pick(parts);
        if (random() % 3 == 0) {
          folder += "/snapshots/" + pick({"c1", "c2"});
        }
      }
      switch (random() % 5) {
        case 0:
          write_file(dir_ / (folder + "/model_index.json"), "{}");
          break;
        case 1:
          write_file(dir_ / (folder + "/config.json"), "{}");
          break;
        default:
          if (folder != root || random() % 8 == 0) {
            weights(folder);
          }
      }
    }
    const std::vector<std::string> roots = {dir_ / root};
    const FoundModels all = find_models(Env::posix(), roots);
    std::map<std::string, std::string> paths;
    for (const FoundModel& model : all.models) {
      paths[model.name] = model.path;
      asked.insert(model.name);
    }
    FakeEnv env;
    env.set_time(Env::posix().now_ns() + 10'000'000'000);
    std::atomic<uint64_t> steps{0};
    const auto walk = walk_root(env, folders_below(env, roots[0]), roots[0], MountTable(), nullptr, steps);
    for (const std::string& name : asked) {
      SCOPED_TRACE(root + " " + name);
      ++lookups;
      const auto expected = paths.find(name);
      const auto one = find_model(Env::posix(), roots, name);
      const RootLookup looked =
          look_up_in_root(env, folders_below(env, roots[0]), roots[0], MountTable(), name, walk.get());
      ASSERT_EQ(one.has_value(), expected != paths.end());
      if (one) {
        ASSERT_EQ(one->path, expected->second);
      }
      unsure += looked.found || looked.sure ? 0U : 1U;
      if (looked.sure) {
        ASSERT_EQ(looked.found.has_value(), expected != paths.end());
      }
      if (looked.found) {
        ASSERT_EQ(looked.found->path, expected->second);
      }
    }
  }
  // Folders that may be pipelines are told by more than their names.
  EXPECT_LT(unsure, lookups / 4);
}

TEST_F(ModelFinderTest, MountsOfQcacheAreNotEvenLookedAt) {
  weights("m");
  weights("mnt/x");
  weights("org/mnt/y");
  make_link(dir_ / "other", dir_ / "link");
  weights("other/z");
  FakeEnv env;
  const uint64_t device = Env::posix().stat(dir_ / "other")->device;
  MountTable mounts({{1, 1, "/", dir_ / "mnt", "fuse.qcache", {}}, {2, 2, "/", dir_ / "org/mnt", "fuse.qcache", {}}});
  env.fail_all(EnvCall::kStat, ENOTCONN, "mnt");
  env.fail_all(EnvCall::kList, ENOTCONN, "mnt");
  std::atomic<uint64_t> steps{0};
  const auto walk = walk_root(env, folders_below(env, dir_.path()), dir_.path(), mounts, nullptr, steps);
  EXPECT_THAT(walk->problems, testing::IsEmpty());
  EXPECT_EQ(walk->paths.count("m"), 1U);
  EXPECT_EQ(walk->paths.count("mnt--x"), 0U);
  EXPECT_EQ(walk->paths.count("org--mnt--y"), 0U);
  env.heal();
  for (const char* name : {"mnt", "mnt--x", "org--mnt--y"}) {
    const RootLookup looked =
        look_up_in_root(env, folders_below(env, dir_.path()), dir_.path(), mounts, name, walk.get());
    EXPECT_FALSE(looked.found) << name;
    EXPECT_THAT(looked.problems, testing::IsEmpty()) << name;
  }
  // A link to such a mount is told by its device.
  MountTable everywhere({{1, device, "/", "/elsewhere", "fuse.qcache", {}}});
  EXPECT_THAT(walk_root(env, folders_below(env, dir_.path()), dir_.path(), everywhere, nullptr, steps)->models,
              testing::IsEmpty());
}

TEST_F(ModelFinderTest, ACacheDirectoryIsNoModel) {
  weights("m");
  write_file(dir_ / "cache/CACHEDIR.TAG", "");
  write_file(dir_ / "cache/quantized_model_0.safetensors", "");
  make_directories(dir_ / "cache/filling");
  make_directories(dir_ / "cache/index");
  EXPECT_EQ(found(), Lines{"m=/m"});
  EXPECT_THAT(find_model(Env::posix(), {dir_.path()}, "cache"), fails_with(ErrorKind::kNotFound, {"no model"}));
}

}  // namespace
}  // namespace qcache
