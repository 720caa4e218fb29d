#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <vector>

#include "tests/fs/mount_test.h"

namespace qcache {
namespace {

using MountDaemon = MountTest;
using MountTiming = MountTest;

constexpr const char* kInt8 = "m/int8/0.bin";
constexpr uid_t kNobody = 65534;

size_t open_files(pid_t pid) {
  return names_in("/proc/" + std::to_string(pid) + "/fd").size();
}

// S43: `qcache mount` returns 0 when the mount can be used; else it returns another status, with the reason on standard
// error.
TEST_F(MountDaemon, BackgroundMountReturnsWhenUsable) {
  small_model().write(model("m"));
  const std::string mount_point = dir() / "mnt";
  make_directories(mount_point);
  ASSERT_EQ(run_program({MountedFs::program(), "mount", models(), mount_point, "--cache-dir", cache()}, dir() / "said"),
            0);
  EXPECT_TRUE(reads_as(read_whole(mount_point + "/m/int8/0.bin"), expected_file(model("m"), "int8")));
  EXPECT_EQ(read_file(dir() / "said"), "");
  EXPECT_NE(read_file(cache() + "/qcache.log").find("mounted"), std::string::npos);
  EXPECT_EQ(run_program({MountedFs::program(), "unmount", mount_point}), 0);
  EXPECT_EQ(stat_error(mount_point + "/.qcache"), ENOENT);
}

// S47: The daemon holds no file open that nobody uses. One that is not complete counts as in use for up to 10 s more.
TEST_F(MountDaemon, ABackgroundMountKeepsNothingOfItsCallersOpen) {
  small_model().write(model("m"));
  const std::string mount_point = dir() / "mnt";
  make_directories(mount_point);
  write_file(dir() / "lock", "");
  UniqueFd held(::open((dir() / "lock").c_str(), O_RDWR));  // NOLINT: inherited, as a shell's descriptors are
  ASSERT_EQ(::flock(held.get(), LOCK_EX), 0);
  ASSERT_EQ(run_program({MountedFs::program(), "mount", models(), mount_point, "--cache-dir", cache()}), 0);
  held.reset();
  const UniqueFd again = open_file(dir() / "lock");
  EXPECT_EQ(::flock(again.get(), LOCK_EX | LOCK_NB), 0) << "the daemon keeps the lock";
  EXPECT_EQ(run_program({MountedFs::program(), "unmount", mount_point}), 0);
}

// S43: `qcache mount` returns 0 when the mount can be used; else it returns another status, with the reason on standard
// error.
TEST_F(MountDaemon, FailedMountsSayWhy) {
  make_directories(dir() / "mnt");
  write_file(dir() / "file", "x");
  struct Case {
    std::vector<std::string> words;
    const char* reason;
  };
  const std::string mnt = dir() / "mnt";
  const std::vector<Case> cases = {
      {{dir() / "nothing", mnt}, "nothing"},
      {{models(), dir() / "nothing"}, "to mount on: make it first"},
      {{models(), dir() / "file"}, "is not a folder"},
      {{dir() / "file", mnt}, "is not a folder"},
      {{models(), mnt, "-o", "nonsense=1"}, "nonsense"},
      {{models(), mnt, "--max-age", "soon"}, "soon"},
      {{models(), models()}, "lies below the mount point"},
      {{models(), mnt, "--cache-dir", dir() / "file"}, "file is not a directory"},
  };
  for (const auto& [words, reason] : cases) {
    for (const bool foreground : {false, true}) {
      SCOPED_TRACE(reason + std::string(foreground ? ", in the foreground" : ""));
      std::vector<std::string> command = {MountedFs::program(), "mount", "-o", "cache_dir=" + cache(), "-o", "noatime"};
      if (foreground) {
        command.emplace_back("-f");
      }
      command.insert(command.end(), words.begin(), words.end());
      std::filesystem::remove(dir() / "said");
      EXPECT_NE(run_program(command, dir() / "said"), 0);
      EXPECT_NE(read_file(dir() / "said").find(reason), std::string::npos) << read_file(dir() / "said");
    }
  }
  EXPECT_EQ(names_in(mnt), std::vector<std::string>{});
}

// S42: A cache directory that cannot be written, or lies inside the mount point, is refused when mounting.
TEST_F(MountDaemon, UnusableCacheDirectoriesAreRefused) {
  make_directories(dir() / "mnt/cache");
  const OwnFilesystem read_only(dir() / "read-only", "tmpfs", "size=1M", MS_RDONLY);
  MountedFs& running = mount_as("running");
  for (const auto& [cache_dir, reason] :
       {std::pair(dir() / "mnt/cache", "lies below the mount point"),
        std::pair(dir() / "mnt", "lies below the mount point"),
        std::pair(dir() / "mnt/not/yet", "lies below the mount point"),
        std::pair(dir() / "read-only", "Read-only file system"),
        std::pair(dir() / "read-only/new", "Read-only file system"), std::pair(running.path("cache"), "cannot be used"),
        std::pair(running.path(), "inside the qcache mount")}) {
    SCOPED_TRACE(cache_dir);
    std::filesystem::remove(dir() / "said");
    EXPECT_NE(run_program({MountedFs::program(), "mount", "-f", "-o", "nonempty", models(), dir() / "mnt",
                           "--cache-dir", cache_dir},
                          dir() / "said"),
              0);
    const std::string said = read_file(dir() / "said");
    EXPECT_NE(said.find(reason), std::string::npos) << said;
  }
  EXPECT_TRUE(running.running());
}

// S91: A catalog that another version of LMDB wrote is left as it is: mounting and commands fail, and say so.
TEST_F(MountDaemon, ACatalogOfAnotherLmdbIsLeftAlone) {
  small_model().write(model("m"));
  MountedFs& fs = mount();
  EXPECT_EQ(read_whole(fs.path("m/int8/0.bin")).error, 0);
  fs.wait_until_sealed("m/int8/0.bin");
  EXPECT_EQ(fs.stop(), 0);
  std::string bytes = read_file(cache() + "/index/data.mdb");
  bytes[20] = 2;
  write_file(cache() + "/index/data.mdb", bytes);
  const std::vector<std::string> names = names_in(cache());
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"ls"}, {"gc"}, {"verify"}, {"mount", "-f", models(), dir() / "mnt"}}) {
    SCOPED_TRACE(words.front());
    std::vector<std::string> all = {MountedFs::program()};
    all.insert(all.end(), words.begin(), words.end());
    all.insert(all.end(), {"--cache-dir", cache()});
    std::filesystem::remove(dir() / "said");
    EXPECT_EQ(run_program(all, dir() / "said"), 5);
    EXPECT_NE(read_file(dir() / "said").find("data format 2"), std::string::npos) << read_file(dir() / "said");
  }
  EXPECT_TRUE(same_bytes(read_file(cache() + "/index/data.mdb"), bytes));
  EXPECT_EQ(names_in(cache()), names);
}

// S44: A mount is usable within milliseconds, whatever the size of its models.
TEST_F(MountTiming, ReadyAtOnce) {
  huge_model(15).write(model("huge"));
  for (int i = 0; i < 30; ++i) {
    small_model().write(model("m" + std::to_string(i)));
  }
  const auto start = std::chrono::steady_clock::now();
  const MountedFs& fs = mount();
  EXPECT_EQ(names_in(fs.path()).size(), 32U);
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  std::printf("from the start of the program to a listing: %.1f ms\n", took.count());
  EXPECT_LT(took.count(), 2000);
}

// S45: SIGTERM, SIGINT and SIGHUP unmount; the daemon ends with status 0.
TEST_F(MountDaemon, SignalsUnmountCleanly) {
  tiled_model().write(model("m"));
  MountedFs& fs = mount({"--linger", "0s"});
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    SCOPED_TRACE(signal);
    const UniqueFd open_one = open_file(fs.path("m/nf4/0.bin"));  // open files do not keep it from ending
    EXPECT_EQ(read_at(open_one.get(), 0, 10).error, 0);
    ::kill(fs.pid(), signal);
    EXPECT_TRUE(eventually([&] { return !fs.running(); }));
    EXPECT_EQ(fs.stop(), 0) << "that was its status";
    EXPECT_EQ(stat_error(fs.path(".qcache")), ENOENT);
    EXPECT_NE(read_at(open_one.get(), 0, 10).error, 0);
    fs.restart();
  }
  EXPECT_TRUE(reads_as(read_whole(fs.path("m/nf4/0.bin")), expected_file(model("m"), "nf4")));
}

// S93: Told to end while programs have files open that only the daemon can serve (being made, or complete without
// passthrough), it takes the mount off its mount point at once, and serves them until they are closed, for `linger` (60
// s) at most; a second signal ends that.
TEST_F(MountDaemon, ASignalServesOpenFilesUntilTheyAreClosed) {
  tiled_model().write(model("m"));
  const std::string expected = expected_file(model("m"), "nf4");
  const std::vector<std::string> lingering = {"--linger", "60s"};
  MountedFs& fs = mount(lingering);
  MountedFs::Setup again = setup("mnt", lingering);
  again.log_file = dir() / "next.log";
  std::vector<std::unique_ptr<MountedFs>> others;  // kept to the end: each unmounts what is on its mount point
  for (const bool sealed : {false, true}) {
    SCOPED_TRACE(sealed);
    MountedFs& old = others.empty() ? fs : *others.back();
    UniqueFd fd = open_file(old.path("m/nf4/0.bin"));
    auto mapping = std::make_unique<Mapping>(fd.get(), expected.size(), MAP_SHARED, PROT_READ);
    EXPECT_EQ(read_at(fd.get(), 0, 10).error, 0);
    ::kill(old.pid(), SIGTERM);
    EXPECT_TRUE(eventually([&] { return stat_error(old.path(".qcache")) == ENOENT; }));
    if (sealed && MountedFs::passthrough_wanted()) {
      EXPECT_TRUE(eventually([&] { return !old.running(); })) << "the kernel serves its files";
      EXPECT_TRUE(reads_as(read_at(fd.get(), 0, expected.size()), expected));
      EXPECT_EQ(old.stop(), 0);
      continue;
    }
    const MountedFs& newer = *others.emplace_back(std::make_unique<MountedFs>(again));
    EXPECT_TRUE(reads_as(read_whole(newer.path("m/nf4/0.bin")), expected)) << "another daemon has taken its place";
    newer.wait_until_sealed("m/nf4/0.bin");
    EXPECT_TRUE(old.running());
    Child program([&] { return same_bytes(mapping->bytes(), expected) ? 0 : 1; });
    EXPECT_EQ(program.wait_for(60), 0);
    EXPECT_TRUE(reads_as(read_at(fd.get(), 0, expected.size()), expected));
    mapping.reset();
    EXPECT_TRUE(old.running());
    fd.reset();
    EXPECT_TRUE(eventually([&] { return !old.running(); }));
    EXPECT_EQ(old.stop(), 0);
    EXPECT_EQ(stat_error(newer.path("m/nf4/0.bin")), 0) << "the old daemon has unmounted the new one";
  }
  EXPECT_EQ(others.back()->stop(), 0);
}

// S93: Told to end while programs have files open that only the daemon can serve (being made, or complete without
// passthrough), it takes the mount off its mount point at once, and serves them until they are closed, for `linger` (60
// s) at most; a second signal ends that.
TEST_F(MountDaemon, LingeringEndsInTimeAndByASecondSignal) {
  using Clock = std::chrono::steady_clock;
  tiled_model().write(model("m"));
  for (const bool second_signal : {false, true}) {
    SCOPED_TRACE(second_signal);
    MountedFs fs(setup("mnt", {"--linger", second_signal ? "50s" : "2s"}));
    // A file that the first round leaves complete would be the kernel's to serve in the second.
    const UniqueFd fd = open_file(fs.path(second_signal ? "m/int8/0.bin" : "m/nf4/0.bin"));
    EXPECT_EQ(read_at(fd.get(), 0, 10).error, 0);
    const Clock::time_point told = Clock::now();
    ::kill(fs.pid(), SIGTERM);
    EXPECT_TRUE(eventually([&] { return stat_error(fs.path(".qcache")) == ENOENT; }));
    EXPECT_EQ(read_at(fd.get(), 100'000, 10).error, 0);
    if (second_signal) {
      ::kill(fs.pid(), SIGTERM);
    }
    EXPECT_TRUE(eventually([&] { return !fs.running(); }));
    if (!second_signal) {
      EXPECT_GT(Clock::now() - told, std::chrono::milliseconds(1500));
    }
    EXPECT_EQ(fs.stop(), 0);
    EXPECT_NE(read_at(fd.get(), 200'000, 10).error, 0);
  }
}

// S46: Other users get EACCES, unless it was mounted with `allow_other`.
TEST_F(MountDaemon, OtherUsersNeedAllowOther) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "must be root, to become another user";
  }
  ASSERT_EQ(::chmod(dir().path().c_str(), 0755), 0);
  small_model().write(model("m"));
  const std::string expected = expected_file(model("m"), "int8");
  MountedFs& mine = mount_as("mine");
  MountedFs& everybodys = mount_as("everybodys", {"--allow-other"});
  EXPECT_TRUE(reads_as(read_whole(mine.path(kInt8)), expected));
  Child other([&] {
    if (::setgid(kNobody) != 0 || ::setuid(kNobody) != 0) {
      return 1;
    }
    if (open_error(mine.path(kInt8), O_RDONLY) != EACCES) {
      return 2;
    }
    if (!reads_as(read_whole(everybodys.path(kInt8)), expected)) {
      return 3;
    }
    return ::unlink(everybodys.path(kInt8).c_str()) != 0 && errno == EACCES &&
                   set_xattr(everybodys.path(kInt8), "user.qcache.pinned", "1") == EACCES
               ? 0
               : 4;
  });
  EXPECT_EQ(other.wait(), 0);
}

// S47: The daemon holds no file open that nobody uses. One that is not complete counts as in use for up to 10 s more.
TEST_F(MountDaemon, NoDescriptorIsLeaked) {
  tiled_model(1).write(model("m"));
  small_model().write(model("n"));
  MountedFs& fs = mount();
  for (const char* file : {kInt8, "n/int8/0.bin"}) {
    EXPECT_EQ(read_whole(fs.path(file)).error, 0);
    fs.wait_until_sealed(file);
  }
  EXPECT_EQ(read_whole(fs.path("n/int8/0.bin")).error, 0);  // what is opened once has been opened
  const size_t before = open_files(fs.pid());
  for (uint64_t round = 0; round < 20; ++round) {
    EXPECT_EQ(read_whole(fs.path(kInt8), 500'000).error, 0);  // sealed
    const UniqueFd fd = open_file(fs.path("m/nf4/0.bin"));    // filling
    EXPECT_EQ(read_at(fd.get(), round * 100'000, 10).error, 0);
    EXPECT_EQ(open_error(fs.path(kInt8), O_RDWR), EROFS);
    EXPECT_EQ(names_in(fs.path("m")).size(), all_dtypes().size());
    EXPECT_NE(read_whole(fs.path(".qcache/metrics")).bytes, "");
    small_model(round).write(model("n"));
    EXPECT_EQ(read_whole(fs.path("n/int8/0.bin")).error, 0);  // a changed source
    EXPECT_EQ(::unlink(fs.path("n/int8/0.bin").c_str()), 0);  // dropped
  }
  EXPECT_TRUE(eventually([&] { return open_files(fs.pid()) <= before; }, std::chrono::seconds(30)))
      << open_files(fs.pid()) << " instead of " << before;
}

}  // namespace
}  // namespace qcache
