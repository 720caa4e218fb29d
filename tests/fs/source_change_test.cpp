#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <memory>
#include <thread>

#include "tests/fs/mount_test.h"

namespace qcache {
namespace {

using MountSource = MountTest;

constexpr const char* kInt8 = "m/int8/0.bin";

// S30: An open gives the model as it is at that moment: after a model's files were touched, rewritten or replaced, the
// size and bytes are those of the new state.
TEST_F(MountSource, AnOpenSeesTheModelAsItIs) {
  small_model(1).write(model("m"));
  MountedFs& fs = mount();
  const std::string file = fs.path(kInt8);
  uint64_t states = 0;
  const auto check = [&](const char* what) {
    SCOPED_TRACE(what);
    const std::string expected = expected_file(model("m"), "int8");
    EXPECT_EQ(stat_of(file).st_size, static_cast<off_t>(expected.size()));
    EXPECT_TRUE(reads_as(read_whole(file), expected));
    fs.wait_until_sealed(kInt8);
    EXPECT_TRUE(reads_as(read_whole(file), expected));
    EXPECT_EQ(fs.status("files_sealed"), ++states) << "those of earlier states stay until they age";
  };
  check("first");
  const std::string weights = model("m") + "/model.safetensors";
  const uint64_t made = fs.status("tiles_quantized");
  set_mtime(weights, 1'700'000'000'000'000'000);
  EXPECT_EQ(fs.xattr(kInt8, "state"), "absent");
  check("touched");
  EXPECT_EQ(fs.status("tiles_quantized"), 2 * made);
  small_model(2).write(model("m"));
  check("rewritten in place");
  small_model(3).write(dir() / "elsewhere/m");
  std::filesystem::rename(dir() / "elsewhere/m/model.safetensors", weights);
  check("replaced by rename");
  small_model(4).tensor("one.more.weight", DType::kBF16, {128, 64}).write(model("m"));
  check("one tensor more");
  small_model(5).config(R"({"model_type": "gpt2"})").write(model("m"));
  check("another config.json: another choice of tensors");
  small_model(6).shards(2).write(model("m"));
  std::filesystem::remove(weights);
  check("in shards");
  std::filesystem::rename(model("m"), models() + "/.first");
  small_model(7).write(models() + "/.second");
  std::filesystem::create_directory_symlink(models() + "/.first", model("m"));
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // for a second its old path counts
  check("a link to the same");
  std::filesystem::remove(model("m"));
  std::filesystem::create_directory_symlink(models() + "/.second", model("m"));
  check("a link that leads elsewhere");
}

// S81: What was completed of an earlier state of a model is kept beside the new file, and served again should that
// state come back. Aging drops it, whatever its age, once the new file is complete and it has not been opened since;
// `rm` drops both.
TEST_F(MountSource, EarlierStatesOfAModelAreKeptUntilTheyAge) {
  small_model(1).write(model("m"));
  MountedFs& fs = mount();
  const auto complete = [&] {
    EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected_file(model("m"), "int8")));
    fs.wait_until_sealed(kInt8);
  };
  complete();
  std::filesystem::rename(model("m"), dir() / "first");
  small_model(2).write(model("m"));
  EXPECT_EQ(fs.xattr(kInt8, "state"), "absent");
  EXPECT_EQ(stat_of(fs.path(kInt8)).st_blocks, 1) << "as any file that has bytes";
  complete();
  EXPECT_EQ(fs.status("files_sealed"), 2U);
  const uint64_t made = fs.status("tiles_quantized");
  std::filesystem::rename(model("m"), dir() / "second");
  std::filesystem::rename(dir() / "first", model("m"));
  EXPECT_EQ(fs.xattr(kInt8, "state"), "sealed");
  complete();
  EXPECT_EQ(fs.status("tiles_quantized"), made);

  const std::vector<std::string> collect = {MountedFs::program(), "gc", "--cache-dir", cache()};
  EXPECT_TRUE(eventually([&] { return fs.xattr(kInt8, "hits") == "1"; }));
  EXPECT_EQ(run_program(collect, dir() / "said"), 0);
  EXPECT_EQ(fs.status("files_sealed"), 2U) << "each has been opened since the later one was complete, or is that";
  small_model(3).write(model("m"));
  complete();
  EXPECT_EQ(fs.status("files_sealed"), 3U);
  EXPECT_EQ(run_program(collect, dir() / "said"), 0);
  EXPECT_EQ(fs.status("files_sealed"), 1U);
  EXPECT_EQ(fs.xattr(kInt8, "state"), "sealed");

  small_model(4).write(model("m"));
  complete();
  EXPECT_EQ(fs.status("files_sealed"), 2U);
  EXPECT_EQ(::unlink(fs.path(kInt8).c_str()), 0);
  EXPECT_EQ(fs.status("files_sealed"), 0U);
}

// S82: Another device number alone, of the disk with the models or of the one with the cache directory, is no change:
// a disk plugged in again, a network mount, a boot.
TEST_F(MountSource, ADiskThatComesBackUnderAnotherNumberIsTheSame) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root: it mounts a filesystem of its own";
  }
  small_model().write(dir() / "disk/m");
  make_directories(dir() / "nothing");
  const auto plug_in = [&] {
    return std::make_unique<OwnFilesystem>(models(), "overlay",
                                           "lowerdir=" + (dir() / "disk") + ":" + (dir() / "nothing"));
  };
  const auto first = plug_in();
  const std::string weights = model("m") + "/model.safetensors";
  const struct ::stat before = stat_of(weights);
  MountedFs& fs = mount();
  EXPECT_EQ(read_whole(fs.path(kInt8)).error, 0);
  fs.wait_until_sealed(kInt8);
  EXPECT_EQ(set_xattr(fs.path(kInt8), "user.qcache.pinned", "1"), 0);
  const auto second = plug_in();
  ASSERT_NE(stat_of(weights).st_dev, before.st_dev);
  ASSERT_EQ(stat_of(weights).st_ino, before.st_ino);
  for (const char* when : {"while it is mounted", "after a restart"}) {
    SCOPED_TRACE(when);
    EXPECT_EQ(fs.xattr(kInt8, "state") + fs.xattr(kInt8, "pinned"), "sealed1");
    EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected_file(model("m"), "int8")));
    EXPECT_EQ(fs.status("opens_filling"), when[0] == 'w' ? 1U : 0U);
    fs.restart();
  }
}

// S31: That holds for a file of the same size written again within one tick of the filesystem's clock.
TEST_F(MountSource, RewritesWithinTheClocksTickAreSeen) {
  MountedFs& fs = mount();
  small_model(0).write(model("m"));
  for (uint64_t round = 1; round <= 40; ++round) {
    EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected_file(model("m"), "int8"))) << "round " << round;
    small_model(round).write(model("m"));
  }
  EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected_file(model("m"), "int8")));
}

// S32: Who has a complete file open keeps the old bytes.
TEST_F(MountSource, OpenSealedFilesKeepTheirBytes) {
  tiled_model(1).write(model("m"));
  MountedFs& fs = mount();
  const std::string old_bytes = expected_file(model("m"), "int8");
  EXPECT_EQ(read_whole(fs.path(kInt8)).error, 0);
  fs.wait_until_sealed(kInt8);
  const UniqueFd fd = open_file(fs.path(kInt8));
  small_model(2).write(model("m"));
  const std::string new_bytes = expected_file(model("m"), "int8");
  EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), new_bytes));
  fs.wait_until_sealed(kInt8);
  EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), new_bytes));
  EXPECT_TRUE(reads_as(read_at(fd.get(), 0, old_bytes.size() + 1), old_bytes));
  struct ::stat found {};
  EXPECT_EQ(::fstat(fd.get(), &found), 0);
  EXPECT_EQ(found.st_size, static_cast<off_t>(old_bytes.size()));
}

/// Reads everything of an open file in pieces, backwards, so that nothing is made in advance: each piece is either the
/// old bytes or fails with ESTALE. Returns how many failed.
size_t read_backwards(int fd, const std::string& old_bytes) {
  constexpr uint64_t kPiece = 50'000;
  size_t failed = 0;
  for (uint64_t i = old_bytes.size() / kPiece + 1; i-- > 0;) {
    const ReadResult got = read_at(fd, i * kPiece, kPiece);
    if (got.error != 0) {
      EXPECT_EQ(got.error, ESTALE);
      ++failed;
    } else {
      EXPECT_TRUE(same_bytes(got.bytes, std::string_view(old_bytes).substr(i * kPiece, kPiece)));
    }
  }
  return failed;
}

// S33: Who has a file open that is being made gets the old bytes where they were made, else ESTALE: never bytes of two
// states.
TEST_F(MountSource, ReadsOfAChangedSourceFailInsteadOfMixing) {
  MountedFs& fs = mount();
  struct Case {
    const char* what;
    std::function<void()> change;
  };
  const std::string weights = model("m") + "/model.safetensors";
  const std::string other = dir() / "new/model.safetensors";
  const std::vector<Case> cases = {
      {"rewritten",
       [&] { std::filesystem::copy_file(other, weights, std::filesystem::copy_options::overwrite_existing); }},
      {"touched", [&] { set_mtime(weights, 1'700'000'000'000'000'000); }},
      {"replaced", [&] { std::filesystem::rename(other, weights); }},
      {"one byte",
       [&] {
         const UniqueFd fd(::open(weights.c_str(), O_WRONLY | O_CLOEXEC));
         EXPECT_EQ(::pwrite(fd.get(), "x", 1, 10'000'001), 1);
       }},
  };
  for (const auto& [what, change] : cases) {
    SCOPED_TRACE(what);
    tiled_model(1).write(model("m"));
    const std::string old_bytes = expected_file(model("m"), "int8");
    // Made in advance: a file that has been open for 2 s is filled to its end, and on a slow machine that is soon.
    tiled_model(2).write(dir() / "new");
    const UniqueFd fd = open_file(fs.path(kInt8));
    EXPECT_TRUE(reads_as(read_at(fd.get(), 100'000, 50'000), std::string_view(old_bytes).substr(100'000, 50'000)));
    change();
    EXPECT_GT(read_backwards(fd.get(), old_bytes), 0U);
    const std::string new_bytes = expected_file(model("m"), "int8");
    EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), new_bytes));
    fs.wait_until_sealed(kInt8);
    EXPECT_GT(read_backwards(fd.get(), old_bytes), 0U) << "what it never got";
    EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), new_bytes));
  }
}

// S34: A source that becomes shorter or vanishes while it is read is ESTALE for its open readers; a model that is gone
// is ENOENT for new ones.
TEST_F(MountSource, VanishedSourcesFailCleanly) {
  MountedFs& fs = mount();
  const std::string weights = model("m") + "/model.safetensors";
  for (const bool gone : {false, true}) {
    SCOPED_TRACE(gone ? "removed" : "cut");
    tiled_model(1).write(model("m"));
    const std::string old_bytes = expected_file(model("m"), "int8");
    const UniqueFd fd = open_file(fs.path(kInt8));
    EXPECT_EQ(read_at(fd.get(), 100'000, 100).error, 0);
    if (gone) {
      std::filesystem::remove_all(model("m"));
    } else {
      std::filesystem::resize_file(weights, 1'000'000);
    }
    EXPECT_GT(read_backwards(fd.get(), old_bytes), 0U);
    EXPECT_EQ(open_error(fs.path(kInt8), O_RDONLY), gone ? ENOENT : EIO);
    EXPECT_EQ(stat_error(fs.path("m")), gone ? ENOENT : 0);
  }
  EXPECT_TRUE(fs.running());
}

}  // namespace
}  // namespace qcache
