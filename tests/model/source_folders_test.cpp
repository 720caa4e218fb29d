#include "core/model/source_folders.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/support/fake_env.h"
#include "tests/support/result_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

using testing::HasSubstr;
using testing::UnorderedElementsAre;

class SourceFoldersTest : public testing::Test {
 protected:
  [[nodiscard]] SourceFolders folders(std::vector<std::string> roots = {}) {
    if (roots.empty()) {
      roots = {dir_ / "models"};
    }
    return {env_, resolve_folders(env_, roots)};
  }
  std::string text(const SourceFile& file) {
    std::string out(file.stat().size_bytes, '\0');
    EXPECT_THAT(env_.read_at(file.fd(), std::as_writable_bytes(std::span(out)), 0), is_ok());
    return out;
  }
  /// What is read under that name, or the kind of the error.
  std::string read(const SourceFolders& folders, const std::string& path) {
    auto file = folders.read(path, 1000);
    return file ? file->content : std::string(to_string(file.error().kind));
  }
  static void mode(const std::string& path, mode_t mode) { ASSERT_EQ(::chmod(path.c_str(), mode), 0); }

  TempDir dir_;
  FakeEnv env_;
  const std::string model_ = dir_ / "models/m";
};

TEST_F(SourceFoldersTest, LinksAreFollowedIntoTheFoldersOnly) {
  write_file(dir_ / "models/common/words", "common");
  write_file(dir_ / "more/words", "more");
  write_file(dir_ / "models2/words", "another folder whose name begins alike");
  write_file(dir_ / "secret", "secret");
  write_file(model_ + "/plain", "plain");
  make_link("../common/words", model_ + "/inside");
  make_link(dir_ / "more/words", model_ + "/second");
  make_link(dir_ / "models2/words", model_ + "/alike");
  make_link("../../secret", model_ + "/out");
  make_link("out", model_ + "/twice");
  make_link("../..", model_ + "/up");
  make_link("gone", model_ + "/nowhere");
  const SourceFolders one = folders();
  EXPECT_EQ(read(one, model_ + "/plain"), "plain");
  EXPECT_EQ(read(one, model_ + "/inside"), "common");
  EXPECT_EQ(read(one, model_ + "/../../models/m/plain"), "plain");
  for (const char* name : {"/second", "/alike", "/out", "/twice", "/up/secret", "/../../secret"}) {
    EXPECT_EQ(read(one, model_ + name), "invalid-model") << name;
  }
  EXPECT_EQ(read(one, model_ + "/nowhere"), "not-found");
  EXPECT_THAT(one.open(model_ + "/second"),
              fails_with(ErrorKind::kInvalidModel,
                         {"/m/second is a link to", "/more/words, which is outside", "mount that folder too"}));
  EXPECT_EQ(read(folders({dir_ / "models", dir_ / "more"}), model_ + "/second"), "more");
  EXPECT_EQ(read(folders({"/"}), model_ + "/out"), "secret");
}

TEST_F(SourceFoldersTest, ARootMayBeALinkAndIsResolvedOnce) {
  write_file(dir_ / "disk/m/file", "x");
  write_file(dir_ / "secret/m/file", "secret");
  make_link("disk", dir_ / "alias");
  const SourceFolders found = folders({dir_ / "alias"});
  EXPECT_EQ(read(found, dir_ / "alias/m/file"), "x");
  std::filesystem::remove(dir_ / "alias");
  make_link("secret", dir_ / "alias");
  EXPECT_EQ(read(found, dir_ / "alias/m/file"), "invalid-model");
}

TEST_F(SourceFoldersTest, WhatWasCheckedIsWhatIsRead) {
  write_file(dir_ / "secret/file", "secret");
  for (const EnvCall call : {EnvCall::kOpen, EnvCall::kPathOf, EnvCall::kStat, EnvCall::kReadAt}) {
    for (const bool folder : {false, true}) {
      for (uint64_t nth = 1;; ++nth) {
        std::filesystem::remove_all(dir_ / "models");
        write_file(model_ + "/file", "checked");
        // At each step the file, or its folder, becomes a link that leads out.
        const std::string place = folder ? model_ : model_ + "/file";
        bool swapped = false;
        env_.heal();
        env_.before(call, nth, [&] {
          swapped = true;
          std::filesystem::rename(place, place + ".old");
          make_link(folder ? dir_ / "secret" : dir_ / "secret/file", place);
        });
        const std::string got = read(folders(), model_ + "/file");
        if (!swapped) {
          EXPECT_GT(nth, 1U);
          break;
        }
        // A file that was renamed meanwhile is told so, by its ctime.
        EXPECT_TRUE(got == "checked" || got == "invalid-model" || got == "source-changed") << got;
      }
    }
  }
}

TEST_F(SourceFoldersTest, AFileThatIsReplacedIsReadAsItIs) {
  write_file(model_ + "/file", "old");
  write_file(model_ + "/next", "new");
  env_.before(EnvCall::kPathOf, 1, [&] { std::filesystem::rename(model_ + "/next", model_ + "/file"); });
  EXPECT_EQ(read(folders(), model_ + "/file"), "new");
  env_.fail_all(EnvCall::kPathOf, ENOENT);
  EXPECT_THAT(folders().open(model_ + "/file"), fails_with(ErrorKind::kSourceChanged, {"/file was replaced"}));
}

TEST_F(SourceFoldersTest, OnlyRegularFilesAreOpened) {
  make_directories(model_ + "/folder");
  ASSERT_EQ(::mkfifo((model_ + "/pipe").c_str(), 0600), 0);
  make_link("pipe", model_ + "/link");
  for (const char* name : {"/folder", "/pipe", "/link"}) {
    const uint64_t opens = env_.count(EnvCall::kOpen);
    EXPECT_THAT(folders().open(model_ + name), fails_with(ErrorKind::kInvalidModel, {name, "not a regular file"}));
    EXPECT_EQ(env_.count(EnvCall::kOpen), opens + 1) << "only looked at";
  }
  EXPECT_THAT(folders({"/"}).open("/dev/null"), fails_with(ErrorKind::kInvalidModel, {"not a regular file"}));
}

TEST_F(SourceFoldersTest, APipeThatTakesThePlaceOfAFileHoldsNobodyUp) {
  for (uint64_t nth = 1; nth <= 2; ++nth) {
    write_file(model_ + "/file", "x");
    env_.heal();
    env_.before(EnvCall::kOpen, nth, [&] {
      std::filesystem::remove(model_ + "/file");
      ASSERT_EQ(::mkfifo((model_ + "/file").c_str(), 0600), 0);
    });
    EXPECT_THAT(folders().open(model_ + "/file").has_value(), nth == 2) << "the one that was looked at";
    std::filesystem::remove(model_ + "/file");
  }
}

TEST_F(SourceFoldersTest, AFileOnLeaseIsNotWaitedFor) {
  write_file(model_ + "/file", "x");
  const UniqueFd holder(::open((model_ + "/file").c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_NE(std::signal(SIGIO, SIG_IGN), SIG_ERR);  // what the holder of a lease gets when somebody comes
  ASSERT_EQ(::fcntl(holder.get(), F_SETLEASE, F_WRLCK), 0);
  EXPECT_THAT(folders().open(model_ + "/file"), fails_with(ErrorKind::kBusy, {"cannot open", model_ + "/file"}));
  ASSERT_EQ(::fcntl(holder.get(), F_SETLEASE, F_UNLCK), 0);
  EXPECT_THAT(folders().open(model_ + "/file"), is_ok());
}

TEST_F(SourceFoldersTest, ListsTheFolderThatWasChecked) {
  write_file(model_ + "/a", "");
  write_file(model_ + "/b", "");
  write_file(dir_ / "secret/hidden", "");
  make_link("../../secret", model_ + "/c");
  EXPECT_THAT(folders().list(model_ + "/c"), fails_with(ErrorKind::kInvalidModel, {"outside"}));
  EXPECT_THAT(folders().list(model_ + "/a"), fails_with(ErrorKind::kNotFound, {"cannot list", "/m/a"}));
  env_.before(EnvCall::kList, 1, [&] {
    std::filesystem::rename(model_, dir_ / "moved");
    make_link("../secret", model_);
  });
  const auto names = folders().list(model_);
  ASSERT_THAT(names, is_ok());
  EXPECT_THAT(*names, UnorderedElementsAre("a", "b", "c"));
}

TEST_F(SourceFoldersTest, AModelInAHubCacheIsItsRepo) {
  const std::string hub = dir_ / "models";
  const std::string snapshot = hub + "/models--org--name/snapshots/abc";
  write_file(hub + "/models--org--name/blobs/1", "blob");
  write_file(hub + "/models--org--other/blobs/2", "other");
  make_directories(snapshot);
  make_link("../../blobs/1", snapshot + "/own");
  make_link("../../../models--org--other/blobs/2", snapshot + "/other");
  const SourceFolders of_model = folders().of_model(snapshot);
  EXPECT_EQ(read(of_model, snapshot + "/own"), "blob");
  EXPECT_THAT(
      of_model.open(snapshot + "/other"),
      fails_with(ErrorKind::kInvalidModel, {"outside", "models--org--name:", "put the files themselves there"}));
  // A root that is a snapshot, or the folder of all of them, has its files above it.
  for (const std::string& root : {snapshot, hub + "/models--org--name/snapshots"}) {
    EXPECT_EQ(read(folders({root}), snapshot + "/own"), "blob");
    EXPECT_EQ(read(folders({root}), snapshot + "/other"), "invalid-model");
  }
  // A repo outside is as far outside as anything.
  const SourceFolders elsewhere = folders({dir_ / "elsewhere"}).of_model(snapshot);
  EXPECT_EQ(read(elsewhere, snapshot + "/own"), "invalid-model");
}

TEST_F(SourceFoldersTest, AccessIsThatOfTheFileAndOfTheFoldersBelowTheRoots) {
  const std::string real = std::filesystem::canonical(dir_.path());
  write_file(model_ + "/file", "x");
  mode(dir_ / "models", 0700);
  mode(model_, 0755);
  mode(model_ + "/file", 0644);
  const auto bits = [&](const std::string& path) {
    const auto place = folders().look(path);
    EXPECT_THAT(place, is_ok());
    return folders().access({SourceSpot{place->real, place->stat.mode, place->stat.gid}}).bits & 055;
  };
  EXPECT_EQ(bits(model_ + "/file"), 044U) << "the root itself does not count";
  EXPECT_EQ(bits(dir_ / "models"), 055U);
  EXPECT_EQ(bits(model_), 055U);
  mode(model_, 0711);
  EXPECT_EQ(bits(model_), 011U);
  EXPECT_EQ(bits(model_ + "/file"), 044U);
  mode(model_, 0710);
  EXPECT_EQ(bits(model_ + "/file"), 040U);
  mode(model_, 0700);
  EXPECT_EQ(bits(model_ + "/file"), 0U);
  mode(model_, 0755);
  mode(model_ + "/file", 0604);
  EXPECT_EQ(bits(model_ + "/file"), 004U);
  // Where a link leads counts, not where it lies.
  write_file(dir_ / "models/private/file", "x");
  mode(dir_ / "models/private", 0700);
  make_link("../private/file", model_ + "/link");
  EXPECT_EQ(bits(model_ + "/link"), 0U);
  // What cannot be asked forbids.
  mode(model_ + "/file", 0644);
  env_.fail_all(EnvCall::kStat, EIO, real + "/models/m");
  EXPECT_EQ(folders().access({SourceSpot{real + "/models/m/file", 0644, 0}}).bits, 0U);
}

}  // namespace
}  // namespace qcache
