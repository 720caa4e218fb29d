#include <fcntl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "core/base/mount_info.h"
#include "tests/fs/mount_test.h"

namespace qcache {
namespace {

using MountCrash = MountTest;

constexpr const char* kInt8 = "m/int8/0.bin";

// S35: After the daemon was killed the next mount goes on from the tiles that exist: each is checked before it is
// served, and none is made again.
TEST_F(MountCrash, FillingGoesOnAfterKill) {
  tiled_model().write(model("m"));
  const std::string expected = expected_file(model("m"), "fp32");
  const uint32_t tiles = planned_file(model("m"), "fp32")->tile_count();
  MountedFs& fs = mount();
  const UniqueFd fd = open_file(fs.path("m/fp32/0.bin"));
  for (const uint64_t share : {2U, 3U, 7U}) {
    const uint64_t offset = expected.size() / share;
    EXPECT_TRUE(reads_as(read_at(fd.get(), offset, 100), std::string_view(expected).substr(offset, 100)));
  }
  const uint64_t made = fs.status("tiles_quantized");
  EXPECT_GT(made, 0U);
  fs.kill9();
  fs.restart();
  EXPECT_TRUE(reads_as(read_whole(fs.path("m/fp32/0.bin")), expected));
  const auto status = fs.status();
  EXPECT_GE(status.at("tiles_verified"), made);
  EXPECT_EQ(status.at("tiles_quantized"), tiles - status.at("tiles_verified"));
  EXPECT_EQ(status.at("tiles_rejected"), 0U);
  fs.wait_until_sealed("m/fp32/0.bin");
}

// How far a file is, is told by its tiles, also before anybody has opened it.
TEST_F(MountCrash, ProgressIsThatOfTheTilesAlsoOfAFileThatNobodyHasOpen) {
  tiled_model().write(model("m"));
  const uint32_t tiles = planned_file(model("m"), "int8")->tile_count();
  MountedFs& fs = mount();
  {
    const UniqueFd fd = open_file(fs.path(kInt8));
    EXPECT_EQ(read_at(fd.get(), 3U << 20U, 10).error, 0);
    EXPECT_NEAR(std::stod(fs.xattr(kInt8, "progress")), 1.0 / tiles, 0.0001);
  }
  fs.kill9();
  fs.restart();
  EXPECT_EQ(fs.xattr(kInt8, "state"), "filling");
  EXPECT_NEAR(std::stod(fs.xattr(kInt8, "progress")), 1.0 / tiles, 0.0001);
  EXPECT_EQ(fs.xattr("m/nf4/0.bin", "progress"), "0.0000");
}

// S35: After the daemon was killed the next mount goes on from the tiles that exist: each is checked before it is
// served, and none is made again.
TEST_F(MountCrash, KillsAtAnyTimeLoseNothing) {
  tiled_model().write(model("m"));
  MountedFs& fs = mount();
  for (int round = 0; round < 8; ++round) {
    const std::string dtype = round % 2 == 0 ? "int8" : "nf4";
    EXPECT_EQ(set_xattr(fs.path("m/" + dtype + "/0.bin"), "user.qcache.warm", "1"), 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(15 * round));
    fs.kill9();
    fs.restart();
  }
  for (const char* dtype : {"int8", "nf4"}) {
    const std::string file = std::string("m/") + dtype + "/0.bin";
    EXPECT_TRUE(reads_as(read_whole(fs.path(file)), expected_file(model("m"), dtype)));
    fs.wait_until_sealed(file);
  }
  EXPECT_EQ(fs.status("tiles_rejected"), 0U);
}

// S36: Open readers and mappings of complete files outlive a killed daemon with passthrough; without it their reads
// fail with ENOTCONN.
TEST_F(MountCrash, OpenSealedFilesOutliveTheDaemon) {
  tiled_model().write(model("m"));
  const std::string expected = expected_file(model("m"), "int8");
  MountedFs& fs = mount();
  EXPECT_EQ(read_whole(fs.path(kInt8)).error, 0);
  fs.wait_until_sealed(kInt8);
  const UniqueFd fd = open_file(fs.path(kInt8));
  const Mapping mapping(fd.get(), expected.size(), MAP_SHARED, PROT_READ);
  EXPECT_TRUE(reads_as(read_at(fd.get(), 0, 1000), expected.substr(0, 1000)));
  fs.kill9();
  const std::string_view end = std::string_view(expected).substr(expected.size() - 9000);
  if (MountedFs::passthrough_wanted()) {
    EXPECT_TRUE(reads_as(read_at(fd.get(), expected.size() - 9000, 9000), end));
    EXPECT_TRUE(same_bytes(mapping.bytes(), expected));
    fs.restart();
    EXPECT_TRUE(reads_as(read_at(fd.get(), 0, expected.size()), expected));
    EXPECT_TRUE(same_bytes(mapping.bytes(), expected));
  } else {
    EXPECT_EQ(read_at(fd.get(), expected.size() - 9000, 9000).error, ENOTCONN);
    Child reader([&] { return mapping.bytes().ends_with(end) ? 0 : 1; });
    EXPECT_GT(reader.wait_for(5), kSanitized ? 0 : 127) << "SIGBUS";  // which the sanitizers turn into a status
    fs.restart();
  }
  EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected));
}

TEST_F(MountCrash, AnAbortedConnectionEndsTheDaemonWithoutHarm) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "only root aborts a connection";
  }
  small_model().write(model("m"));
  for (int round = 0; round < 8; ++round) {
    const std::string name = "aborted" + std::to_string(round);
    MountedFs fs(setup(name));
    EXPECT_EQ(read_whole(fs.path(kInt8)).error, 0);
    fs.wait_until_sealed(kInt8);
    std::vector<std::unique_ptr<Child>> openers;
    for (int i = 0; i < 6; ++i) {
      openers.push_back(std::make_unique<Child>([&] {
        for (;;) {
          const UniqueFd fd(::open(fs.path(i % 2 == 0 ? kInt8 : "m/nf4/0.bin").c_str(), O_RDONLY));
          if (!fd.valid() && errno != ENOENT && errno != EINTR && errno != EIO) {
            return 0;
          }
        }
      }));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    (void)::umount2(fs.path().c_str(), MNT_FORCE);
    EXPECT_TRUE(eventually([&] { return !fs.running(); }));
    EXPECT_LT(fs.stop(), 128) << "ended by a signal: " << fs.log();
  }
}

// S37: A new mount clears a dead one off its mount point.
TEST_F(MountCrash, TheNextMountClearsTheDeadOne) {
  small_model().write(model("m"));
  MountedFs& fs = mount();
  for (int round = 0; round < 3; ++round) {
    fs.kill9();
    EXPECT_EQ(stat_error(fs.path("m")), ENOTCONN);
    fs.restart();
    EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected_file(model("m"), "int8")));
    EXPECT_NE(fs.log().find("cleared a dead mount"), std::string::npos);
  }
}

// S111: A daemon that is killed at any moment ends at once, also while it mounts.
TEST_F(MountCrash, ADaemonThatIsKilledWhileItMountsEnds) {
  small_model().write(model("m"));
  make_directories(dir() / "place");
  const auto is_mounted = [&] {
    return read_mount_info(Env::posix()).value_or("").find(' ' + (dir() / "place") + ' ') != std::string::npos;
  };
  constexpr int kRounds = 60;
  for (int round = 0; round < kRounds; ++round) {
    Child daemon([&] {
      const std::string place = dir() / "place";
      ::execl(MountedFs::program().c_str(), "qcache", "mount", "-f", "--log-level", "off", "--cache-dir",
              cache().c_str(), models().c_str(), place.c_str(), nullptr);
      return 99;
    });
    ASSERT_TRUE(eventually(is_mounted));
    std::this_thread::sleep_for(std::chrono::microseconds(50 * (round % 20)));
    daemon.signal(SIGKILL);
    ASSERT_EQ(daemon.wait_for(10), 128 + SIGKILL) << "round " << round;
    ASSERT_EQ(run_program({MountedFs::program(), "unmount", dir() / "place"}), 0);
  }
}

// S38: A complete file that was written to, cut, moved or restored behind our back is hashed again before it is opened,
// wrong tiles are made again, and the log says so.
TEST_F(MountCrash, DamagedSealedFilesAreFoundOut) {
  tiled_model().write(model("m"));
  const std::string expected = expected_file(model("m"), "int8");
  MountedFs& fs = mount();
  const uint64_t weights = planned_file(model("m"), "int8")->group(0)->data_offsets[0];
  uint64_t rejected = 0;
  for (const bool restarted : {false, true}) {
    for (const uint64_t offset : {uint64_t{0}, weights + 3'000'000, expected.size() - 1}) {
      SCOPED_TRACE("byte " + std::to_string(offset) + (restarted ? ", restarted" : ""));
      EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected));
      fs.wait_until_sealed(kInt8);
      const std::string backing = fs.xattr(kInt8, "backing");
      damage_byte(backing, offset);
      EXPECT_FALSE(same_bytes(read_file(backing), expected));
      if (restarted) {
        fs.restart();
        rejected = 0;
      }
      EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected));
      fs.wait_until_sealed(kInt8);
      EXPECT_TRUE(same_bytes(read_file(fs.xattr(kInt8, "backing")), expected)) << "the damage is still on disk";
      const bool in_a_tile = offset != 0 && offset != expected.size() - 1;
      rejected += in_a_tile ? 1 : 0;
      EXPECT_EQ(fs.status("tiles_rejected"), rejected);
    }
  }
  EXPECT_NE(fs.log().find("corrupt: tile"), std::string::npos);
  EXPECT_NE(fs.log().find("is not the one that was sealed"), std::string::npos);
}

// S38: A complete file that was written to, cut, moved or restored behind our back is hashed again before it is opened,
// wrong tiles are made again, and the log says so.
TEST_F(MountCrash, CutOrMissingSealedFilesAreMadeAgain) {
  tiled_model().write(model("m"));
  const std::string expected = expected_file(model("m"), "int8");
  MountedFs& fs = mount();
  const std::vector<std::function<void(const std::string&)>> harms = {
      [](const std::string& path) { std::filesystem::resize_file(path, 1'000'000); },
      [](const std::string& path) { std::filesystem::remove(path); },
      [&](const std::string& path) {  // as a restored backup: right bytes, another inode
        std::filesystem::copy_file(path, dir() / "copy");
        std::filesystem::rename(dir() / "copy", path);
      }};
  for (size_t harm = 0; harm < harms.size(); ++harm) {
    SCOPED_TRACE(harm);
    EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected));
    fs.wait_until_sealed(kInt8);
    harms[harm](fs.xattr(kInt8, "backing"));
    EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected));
    fs.wait_until_sealed(kInt8);
    EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected));
  }
  // All of a missing file, of a cut one what is beyond the cut or across it; the copy's tiles needed hashing only.
  const uint32_t tiles = planned_file(model("m"), "int8")->tile_count();
  EXPECT_LE(fs.status("tiles_quantized"), 3 * tiles);
  EXPECT_GE(fs.status("tiles_quantized"), 3 * tiles - 1);
}

// S89: A complete file that is found touched keeps its pin, hits and times while it is looked through, and when it is
// complete again: also where a tile was wrong, and where the daemon was killed meanwhile.
TEST_F(MountCrash, WhatPeopleSetOutlivesASecondLookAtTheBytes) {
  tiled_model().write(model("m"));
  const std::string expected = expected_file(model("m"), "int8");
  MountedFs& fs = mount();
  EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected));
  fs.wait_until_sealed(kInt8);
  EXPECT_EQ(read_whole(fs.path(kInt8)).error, 0);
  EXPECT_TRUE(eventually([&] { return fs.xattr(kInt8, "hits") == "1"; }));
  EXPECT_EQ(set_xattr(fs.path(kInt8), "user.qcache.pinned", "1"), 0);
  const std::string created = fs.xattr(kInt8, "created");
  const std::vector<std::function<void(const std::string&)>> touches = {
      [&](const std::string& path) {
        std::filesystem::copy_file(path, dir() / "copy");
        std::filesystem::rename(dir() / "copy", path);
      },
      [&](const std::string& path) { damage_byte(path, expected.size() / 2); },
      [&](const std::string& path) { std::filesystem::resize_file(path, expected.size() / 3); }};
  for (size_t touch = 0; touch < touches.size(); ++touch) {
    SCOPED_TRACE(touch);
    const std::string backing = fs.xattr(kInt8, "backing");
    const std::string accessed = fs.xattr(kInt8, "accessed");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    touches[touch](backing);
    EXPECT_EQ(fs.xattr(kInt8, "pinned"), "1") << "before anybody has opened it";
    EXPECT_GT(stat_of(fs.path(kInt8)).st_blocks, 0);
    { const UniqueFd fd = open_file(fs.path(kInt8)); }
    EXPECT_EQ(fs.xattr(kInt8, "state"), "filling");
    fs.kill9();
    EXPECT_EQ(run_program({MountedFs::program(), "gc", "--max-age", "0s", "--cache-dir", cache()}, dir() / "said"), 0);
    fs.restart();
    EXPECT_EQ(fs.xattr(kInt8, "state") + fs.xattr(kInt8, "pinned"), "filling1");
    EXPECT_EQ(set_xattr(fs.path(kInt8), "user.qcache.warm", "1"), 0);
    fs.wait_until_sealed(kInt8);
    EXPECT_EQ(fs.xattr(kInt8, "pinned"), "1");
    EXPECT_EQ(fs.xattr(kInt8, "hits"), "1");
    EXPECT_EQ(fs.xattr(kInt8, "created"), created);
    EXPECT_EQ(fs.xattr(kInt8, "accessed"), accessed) << "nobody has read it";
  }
  EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected));
  EXPECT_EQ(set_xattr(fs.path(kInt8), "user.qcache.pinned", "0"), 0);
}

// S88: Where the catalog of the cache directory was lost or damaged, as in a copy that was made while the directory
// was in use, a new one is begun; complete files are checked and served, and none is made again. Pins, hits and times
// of access go with the old one.
TEST_F(MountCrash, ALostCatalogCostsNoCompleteFile) {
  tiled_model().write(model("m"));
  const std::vector<std::string> dtypes = {"int8", "nf4", "bf16"};
  const std::vector<std::function<void(const std::string&)>> harms = {
      [](const std::string& index) { std::filesystem::remove_all(index); },
      [](const std::string& index) { damage_byte(index + "/data.mdb", 3); },
      [](const std::string& index) {
        std::filesystem::resize_file(index + "/data.mdb", 8192);
        std::filesystem::resize_file(index + "/data.mdb", 100'000);
      }};
  MountedFs& fs = mount();
  for (const std::string& dtype : dtypes) {
    EXPECT_EQ(read_whole(fs.path("m/" + dtype + "/0.bin")).error, 0);
    fs.wait_until_sealed("m/" + dtype + "/0.bin");
  }
  for (size_t harm = 0; harm < harms.size(); ++harm) {
    SCOPED_TRACE(harm);
    EXPECT_EQ(fs.stop(), 0);
    harms[harm](cache() + "/index");
    fs.restart();
    EXPECT_EQ(fs.status("files_sealed") + fs.status("files_filling"), dtypes.size());
    for (const std::string& dtype : dtypes) {
      EXPECT_TRUE(reads_as(read_whole(fs.path("m/" + dtype + "/0.bin")), expected_file(model("m"), dtype)));
      fs.wait_until_sealed("m/" + dtype + "/0.bin");
    }
    EXPECT_EQ(fs.status("tiles_quantized"), 0U);
    EXPECT_NE(fs.log().find("was lost: it is checked"), std::string::npos);
  }
  EXPECT_EQ(fs.status("files_sealed"), dtypes.size());
}

// S39: A tile of an unfinished file that was damaged while no daemon ran is made again.
TEST_F(MountCrash, DamagedTilesAreMadeAgain) {
  tiled_model().write(model("m"));
  const std::string expected = expected_file(model("m"), "int8");
  const auto plan = planned_file(model("m"), "int8");
  MountedFs& fs = mount();
  const uint64_t offset = plan->group(0)->data_offsets[0] + 5000;
  const UniqueFd fd = open_file(fs.path(kInt8));
  EXPECT_EQ(read_at(fd.get(), offset, 1).error, 0);
  fs.kill9();
  damage_byte(only_filling_file(".bin"), offset);
  fs.restart();
  EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected));
  EXPECT_EQ(fs.status("tiles_rejected"), 1U);
  EXPECT_NE(fs.log().find("corrupt: tile"), std::string::npos);
  fs.wait_until_sealed(kInt8);
  EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected));
}

}  // namespace
}  // namespace qcache
