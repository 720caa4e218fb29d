#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <thread>

#include "tests/fs/mount_test.h"

namespace qcache {
namespace {

using MountCache = MountTest;

constexpr const char* kInt8 = "m/int8/0.bin";
constexpr uid_t kNobody = 65534;

// S22: When all tiles are there the file is complete at once, and sealed later; reads and mappings of files opened from
// then on go straight from the kernel to the cache directory (passthrough), and the daemon sees none of them.
TEST_F(MountCache, ACompleteFileIsTheKernelsBeforeItIsSealed) {
  tiled_model().write(model("m"));
  MountedFs& fs = mount();
  const UniqueFd first = open_file(fs.path(kInt8));
  const std::string expected = expected_file(model("m"), "int8");
  EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected));
  ASSERT_TRUE(eventually([&] { return fs.xattr(kInt8, "state") != "filling"; }));
  const UniqueFd second = open_file(fs.path(kInt8));
  ASSERT_EQ(fs.xattr(kInt8, "state"), "complete");
  const uint64_t reads = fs.status("reads");
  EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8), 1000), expected));
  if (MountedFs::passthrough_wanted()) {
    EXPECT_EQ(fs.status("reads"), reads);
  } else {
    EXPECT_LT(fs.status("reads"), reads + 1000) << "the page cache is not used";
  }
  EXPECT_EQ(fs.xattr(kInt8, "state"), "complete");
  EXPECT_EQ(read_at(first.get(), 0, 100).bytes, expected.substr(0, 100)) << "who came before reads on";
}

// S22: When all tiles are there the file is complete at once, and sealed later; reads and mappings of files opened from
// then on go straight from the kernel to the cache directory (passthrough), and the daemon sees none of them.
TEST_F(MountCache, SealedReadsDoNotReachTheDaemon) {
  tiled_model().write(model("m"));
  MountedFs& fs = mount();
  complete(fs, kInt8);
  const uint64_t reads = fs.status("reads");
  EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8), 1000), expected_file(model("m"), "int8")));
  EXPECT_EQ(fs.status("passthrough"), MountedFs::passthrough_wanted() ? 1U : 0U);
  if (MountedFs::passthrough_wanted()) {
    EXPECT_EQ(fs.status("reads"), reads);
  } else {
    EXPECT_GT(fs.status("reads"), reads);
    EXPECT_LT(fs.status("reads"), reads + 1000) << "the page cache is not used";
  }
  EXPECT_EQ(fs.status("opens_sealed"), 1U);
}

// S66: A program that reads a complete file is left alone: it is hashed by an idle thread, and not before the program
// has closed it, has not read it for a second, or has had the kernel read it for ten; or the file is being warmed.
TEST_F(MountCache, AFileIsSealedWhenItsReadersAreDone) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::milliseconds kQuiet{1000};
  tiled_model().write(model("m"));
  MountedFs& fs = mount();
  {
    const UniqueFd fd = open_file(fs.path(kInt8));
    const Clock::time_point end = Clock::now() + 2 * kQuiet;
    for (Clock::time_point last = Clock::now(); last < end; last = Clock::now()) {
      ASSERT_EQ(read_whole(fs.path(kInt8)).error, 0);
      const std::string state = fs.xattr(kInt8, "state");
      if (Clock::now() - last < kQuiet / 2) {  // else this machine did not let us read
        ASSERT_NE(state, "sealed");
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    fs.wait_until_sealed(kInt8);
  }
  const auto time_from_last_read = [&](bool stay_open) {
    EXPECT_EQ(::unlink(fs.path(kInt8).c_str()), 0);
    UniqueFd fd = open_file(fs.path(kInt8));
    EXPECT_EQ(read_whole(fs.path(kInt8)).error, 0);
    const Clock::time_point last = Clock::now();
    if (!stay_open) {
      fd.reset();
    }
    fs.wait_until_sealed(kInt8);
    return Clock::now() - last;
  };
  Clock::duration open_and_quiet = Clock::duration::max();
  Clock::duration closed = Clock::duration::max();
  for (int i = 0; i < 3; ++i) {  // the least of them, because a busy machine makes both longer
    open_and_quiet = std::min(open_and_quiet, time_from_last_read(true));
    closed = std::min(closed, time_from_last_read(false));
  }
  EXPECT_LT(closed, open_and_quiet - kQuiet / 2);
}

// S66: A program that reads a complete file is left alone: it is hashed by an idle thread, and not before the program
// has closed it, has not read it for a second, or has had the kernel read it for ten; or the file is being warmed.
TEST_F(MountCache, AWarmedFileIsSealedWhileItIsRead) {
  tiled_model().write(model("m"));
  MountedFs& fs = mount();
  const UniqueFd fd = open_file(fs.path(kInt8));
  ASSERT_EQ(read_whole(fs.path(kInt8)).error, 0);
  ASSERT_EQ(set_xattr(fs.path(kInt8), "user.qcache.warm", "1"), 0);
  EXPECT_TRUE(eventually([&] { return read_at(fd.get(), 0, 10).error == 0 && fs.xattr(kInt8, "state") == "sealed"; }));
}

// S103: A complete file that cannot be sealed is `failed`, and `user.qcache.error` says why; sealing is tried again
// while it is open, and when it is warmed. `qcache warm` ends with the reason.
TEST_F(MountCache, SealingThatFailsIsTriedAgainAndWarmingSaysWhy) {
  tiled_model().write(model("m"));
  MountedFs& fs = mount();
  const std::string expected = expected_file(model("m"), "int8");
  const UniqueFd fd = open_file(fs.path(kInt8));
  for (uint64_t offset = 0; offset < expected.size(); offset += 1 << 20) {
    ASSERT_EQ(read_at(fd.get(), offset, 1 << 20).error, 0);
  }
  // All tiles are there, and its reader holds sealing back for a second. The name that it gets is taken meanwhile.
  const std::string taken = cache() / std::filesystem::path(fs.xattr(kInt8, "backing")).filename();
  make_directories(taken);
  ASSERT_TRUE(eventually([&] { return fs.xattr(kInt8, "state") == "failed"; })) << fs.xattr(kInt8, "state");
  EXPECT_NE(fs.xattr(kInt8, "error").find("Is a directory"), std::string::npos) << fs.xattr(kInt8, "error");
  EXPECT_NE(run_program({"timeout", "60", MountedFs::program(), "warm", fs.path(kInt8)}, dir() / "warm"), 124);
  EXPECT_NE(read_file(dir() / "warm").find("Is a directory"), std::string::npos) << read_file(dir() / "warm");
  std::filesystem::remove(taken);
  EXPECT_EQ(run_program({"timeout", "60", MountedFs::program(), "warm", fs.path(kInt8)}, dir() / "warm"), 0)
      << read_file(dir() / "warm");
  EXPECT_EQ(fs.xattr(kInt8, "state"), "sealed");
  EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected));
}

// S23: Where the kernel refuses passthrough (mounted by a user without privileges, or the cache directory on
// overlayfs), the same files are served through the page cache, and `passthrough` in `/.qcache/status` is false.
TEST_F(MountCache, OverlayCacheDirectoryFallsBack) {
  const OwnFilesystem tmpfs(dir() / "layers", "tmpfs", "size=256M");
  for (const char* layer : {"lower", "upper", "work"}) {
    make_directories(dir() / (std::string("layers/") + layer));
  }
  std::unique_ptr<OwnFilesystem> overlay;
  try {
    const std::string layers = dir() / "layers";
    overlay = std::make_unique<OwnFilesystem>(
        cache(), "overlay", "lowerdir=" + layers + "/lower,upperdir=" + layers + "/upper,workdir=" + layers + "/work");
  } catch (const std::exception& e) {
    GTEST_SKIP() << e.what();
  }
  tiled_model().write(model("m"));
  MountedFs& fs = mount();
  const std::string expected = expected_file(model("m"), "int8");
  complete(fs, kInt8);
  EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected));
  EXPECT_EQ(fs.status("passthrough"), 0U);
  EXPECT_EQ(fs.log().find("the kernel refuses passthrough") != std::string::npos, MountedFs::passthrough_wanted());
  EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8), 5000), expected));
}

// S76: A filesystem that the kernel refuses, such as models on overlayfs, does not keep files on others from
// passthrough, and is tried again after a minute.
TEST_F(MountCache, ModelsOnOverlayLeavePassthroughToTheCache) {
  const OwnFilesystem tmpfs(dir() / "layers", "tmpfs", "size=256M");
  for (const char* layer : {"lower", "upper", "work"}) {
    make_directories(dir() / (std::string("layers/") + layer));
  }
  std::unique_ptr<OwnFilesystem> overlay;
  try {
    const std::string layers = dir() / "layers";
    overlay = std::make_unique<OwnFilesystem>(
        models(), "overlay", "lowerdir=" + layers + "/lower,upperdir=" + layers + "/upper,workdir=" + layers + "/work");
  } catch (const std::exception& e) {
    GTEST_SKIP() << e.what();
  }
  tiled_model().write(model("m"));
  write_file(model("m") + "/tokenizer.json", "{}");
  MountedFs& fs = mount();
  complete(fs, kInt8);
  for (int round = 0; round < 3; ++round) {
    EXPECT_TRUE(reads_as(read_whole(fs.path("m/int8/0/tokenizer.json")), "{}"));
    const uint64_t reads = fs.status("reads");
    EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected_file(model("m"), "int8")));
    EXPECT_EQ(fs.status("passthrough"), MountedFs::passthrough_wanted() ? 1U : 0U);
    if (MountedFs::passthrough_wanted()) {
      EXPECT_EQ(fs.status("reads"), reads);
    }
  }
}

// S77: O_DIRECT works on files that are made, and on complete ones where the filesystem below has it; else their
// opening fails with EINVAL, as there.
TEST_F(MountCache, DirectIoIsThatOfTheFilesystemBelow) {
  const auto direct_read = [&](const std::string& file) {
    const UniqueFd fd(::open(file.c_str(), O_RDONLY | O_DIRECT));
    if (!fd.valid()) {
      return std::make_pair(errno, std::string());
    }
    constexpr size_t kBytes = 8192;
    const std::unique_ptr<void, decltype(&std::free)> buffer(std::aligned_alloc(4096, kBytes), &std::free);
    const ssize_t got = ::pread(fd.get(), buffer.get(), kBytes, 4096);
    return got < 0 ? std::make_pair(errno, std::string())
                   : std::make_pair(0, std::string(static_cast<const char*>(buffer.get()), static_cast<size_t>(got)));
  };
  tiled_model().write(model("m"));
  write_file(model("m") + "/tokenizer.json", std::string(100'000, 't'));
  for (const char* type : {"ramfs", ""}) {  // without O_DIRECT, and whatever the tests lie on
    SCOPED_TRACE(type);
    const std::string name = std::string("direct") + type;
    MountedFs::Setup other = setup(name);
    other.cache = dir() / (name + "-cache");
    std::unique_ptr<OwnFilesystem> own;
    if (*type != '\0') {
      own = std::make_unique<OwnFilesystem>(other.cache, type, "");
    }
    MountedFs fs(other);
    const auto right = std::make_pair(0, expected_file(model("m"), "int8").substr(4096, 8192));
    EXPECT_EQ(direct_read(fs.path(kInt8)), right) << "while it is made";
    complete(fs, kInt8);
    const int below = open_error(fs.xattr(kInt8, "backing"), O_RDONLY | O_DIRECT);
    if (*type != '\0') {
      EXPECT_EQ(below, EINVAL);
    }
    if (below == 0 || !MountedFs::passthrough_wanted()) {
      EXPECT_EQ(direct_read(fs.path(kInt8)), right);
    } else {
      EXPECT_EQ(direct_read(fs.path(kInt8)).first, below);
    }
    EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected_file(model("m"), "int8")));
    EXPECT_EQ(fs.stop(), 0);
  }
}

// S23: Where the kernel refuses passthrough (mounted by a user without privileges, or the cache directory on
// overlayfs), the same files are served through the page cache, and `passthrough` in `/.qcache/status` is false.
TEST_F(MountCache, UnprivilegedMountFallsBack) {
  // Root of a user namespace: may mount, but has no privileges outside.
  const std::vector<std::string> launcher = {"unshare", "--user", "--map-root-user", "--mount"};
  std::vector<std::string> probe = launcher;
  probe.emplace_back("true");
  if (run_program(probe, dir() / "unshare") != 0) {
    GTEST_SKIP() << "no user namespaces: " << read_file(dir() / "unshare");
  }
  tiled_model().write(model("m"));
  MountedFs::Setup inside = setup("mnt");
  inside.launcher = launcher;
  inside.own_namespace = true;
  MountedFs fs(inside);
  const std::string expected = expected_file(model("m"), "int8");
  complete(fs, kInt8);
  EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected));
  EXPECT_EQ(fs.status("opens_sealed"), 1U);
  EXPECT_EQ(fs.status("passthrough"), 0U);
  EXPECT_EQ(fs.log().find("the kernel refuses passthrough") != std::string::npos, MountedFs::passthrough_wanted());
  EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8), 5000), expected));
  EXPECT_EQ(fs.stop(), 0);
}

// S48: A user without privileges mounts by fusermount3, and may then do with the mount all that its owner may.
TEST_F(MountCache, UsersMountByFusermount) {
  // It runs among mounts of its own, so that where only root may open /dev/fuse there can be one for everybody.
  make_directories(dir() / "dev");
  const std::string with_fuse_as_nobody = R"(
    nobody='setpriv --reuid=65534 --regid=65534 --clear-groups --pdeathsig=TERM'
    $nobody test -w /dev/fuse ||
      { mount -t tmpfs none "$0" && mknod -m 666 "$0/fuse" c 10 229 && mount --bind "$0/fuse" /dev/fuse; }
    exec $nobody "$@")";
  const std::vector<std::string> launcher = {"unshare", "--mount", "sh", "-c", with_fuse_as_nobody, dir() / "dev"};
  std::vector<std::string> probe = launcher;
  probe.insert(probe.end(),
               {"sh", "-c", "fusermount3 --version && true 3<>/dev/fuse && test -x " + MountedFs::program()});
  ASSERT_EQ(::chmod(dir().path().c_str(), 0755), 0);
  if (run_program(probe, dir() / "said") != 0) {
    GTEST_SKIP() << "needs root (to become another user, and for a mount namespace with /dev/fuse), setpriv, "
                    "fusermount3, and that others may run "
                 << MountedFs::program() << ": " << read_file(dir() / "said");
  }
  for (const std::string& name : {std::string("nobody"), std::string("nobody-cache")}) {
    make_directories(dir() / name);
    ASSERT_EQ(::chown((dir() / name).c_str(), kNobody, kNobody), 0);
  }
  tiled_model().write(model("m"));
  const std::string expected = expected_file(model("m"), "int8");
  MountedFs::Setup other = setup("nobody");
  other.cache = dir() / "nobody-cache";
  other.launcher = launcher;
  other.own_namespace = true;
  MountedFs fs(other);
  const UniqueFd mounts = open_file("/proc/" + std::to_string(fs.pid()) + "/ns/mnt");
  Child user([&] {
    if (::setgid(kNobody) != 0 || ::setuid(kNobody) != 0 || !reads_as(read_whole(fs.path(kInt8)), expected)) {
      return 1;
    }
    fs.wait_until_sealed(kInt8);
    if (!reads_as(read_whole(fs.path(kInt8)), expected) || stat_of(fs.path(kInt8)).st_uid != kNobody) {
      return 2;
    }
    if (set_xattr(fs.path(kInt8), "user.qcache.pinned", "1") != 0 || fs.xattr(kInt8, "pinned") != "1") {
      return 3;
    }
    return ::unlink(fs.path(kInt8).c_str()) == 0 && fs.xattr(kInt8, "state") == "absent" ? 0 : 4;
  });
  EXPECT_EQ(user.wait(), 0) << fs.log();
  EXPECT_EQ(fs.stop(), 0);
  const std::string visited = "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(mounts.get());
  EXPECT_EQ(run_program({"nsenter", "--mount=" + visited, "ls", "-A", other.mount_point}, dir() / "left"), 0);
  EXPECT_EQ(read_file(dir() / "left"), "") << "it is not unmounted: " << fs.log();
}

// S24: `rm` of a file gives its disk space back: it stays listed with one block, and the next read makes it again.
TEST_F(MountCache, RemovingAFileDropsItsBytes) {
  tiled_model().write(model("m"));
  MountedFs& fs = mount();
  const std::string expected = expected_file(model("m"), "int8");
  for (const bool sealed : {false, true, true}) {
    const UniqueFd fd = open_file(fs.path(kInt8));
    EXPECT_EQ(read_at(fd.get(), 100'000, 10).error, 0);
    if (sealed) {
      complete(fs, kInt8);
      EXPECT_EQ(fs.status("files_sealed"), 1U);
    }
    EXPECT_GT(fs.status("cache_bytes"), 0U);
    EXPECT_EQ(::unlink(fs.path(kInt8).c_str()), 0);
    EXPECT_EQ(names_in(fs.path("m/int8")), (std::vector<std::string>{"0", "0.bin"}));
    const struct ::stat dropped = stat_of(fs.path(kInt8));
    EXPECT_EQ(dropped.st_blocks, 1);
    EXPECT_EQ(dropped.st_size, static_cast<off_t>(expected.size()));
    EXPECT_EQ(fs.xattr(kInt8, "state"), "absent");
    EXPECT_EQ(fs.status("files_sealed") + fs.status("files_filling") + fs.status("cache_bytes"), 0U);
  }
  EXPECT_EQ(::unlink(fs.path(kInt8).c_str()), 0) << "dropping nothing is no error";
  EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected));
}

// S25: Who has a file open when it is dropped keeps its bytes.
TEST_F(MountCache, OpenReadersKeepDroppedBytes) {
  tiled_model().write(model("m"));
  MountedFs& fs = mount();
  const std::string expected = expected_file(model("m"), "int8");
  const UniqueFd filling = open_file(fs.path(kInt8));
  EXPECT_EQ(read_at(filling.get(), 0, 10).error, 0);
  EXPECT_EQ(::unlink(fs.path(kInt8).c_str()), 0);
  complete(fs, kInt8);
  const UniqueFd sealed = open_file(fs.path(kInt8));
  EXPECT_EQ(::unlink(fs.path(kInt8).c_str()), 0);
  for (const int fd : {filling.get(), sealed.get()}) {
    EXPECT_TRUE(reads_as(read_at(fd, 0, expected.size()), expected));
  }
  EXPECT_EQ(fs.xattr(kInt8, "state"), "absent") << "the old reader's file must not come back";
}

// S26: `rm -r` of a dtype or a model drops all files below it, and only those.
TEST_F(MountCache, RemovingAFolderDropsAllBelow) {
  small_model().write(model("m"));
  small_model().write(model("n"));
  MountedFs& fs = mount();
  const auto fill = [&] {
    for (const char* file : {kInt8, "m/nf4/0.bin", "n/int8/0.bin"}) {
      complete(fs, file);
    }
    EXPECT_EQ(fs.status("files_sealed"), 3U);
  };
  fill();
  EXPECT_EQ(run_program({"rm", "-r", fs.path("m/int8")}), 0);
  EXPECT_EQ(fs.status("files_sealed"), 2U);
  EXPECT_EQ(fs.xattr("m/nf4/0.bin", "state"), "sealed");
  fill();
  EXPECT_EQ(run_program({"rm", "-r", fs.path("m")}), 0);
  EXPECT_EQ(fs.status("files_sealed"), 1U);
  EXPECT_EQ(fs.xattr("n/int8/0.bin", "state"), "sealed");
  EXPECT_EQ(fs.xattr(kInt8, "state"), "absent");
  fill();
  EXPECT_EQ(::rmdir(fs.path("m").c_str()), 0);
  EXPECT_EQ(fs.status("files_sealed"), 1U);
  EXPECT_EQ(::rmdir(fs.path(".qcache").c_str()) == 0 ? 0 : errno, EACCES);
  EXPECT_EQ(::unlink(fs.path(".qcache/status").c_str()) == 0 ? 0 : errno, EACCES);
  EXPECT_EQ(names_in(model("m")).size(), 2U) << "the model itself is not touched";
}

// S28: Files that were not read for `max_age` are dropped, looked for every `aging_interval`; those that are open or
// pinned stay.
TEST_F(MountCache, AgingDropsWhatIsUnused) {
  small_model().write(model("m"));
  MountedFs& fs = mount({"-o", "aging_interval=1s", "--max-age", "2s"});
  for (const char* file : {kInt8, "m/nf4/0.bin", "m/fp8/0.bin"}) {
    EXPECT_EQ(read_whole(fs.path(file)).error, 0);
  }
  for (const char* file : {kInt8, "m/nf4/0.bin", "m/fp8/0.bin"}) {
    fs.wait_until_sealed(file);
  }
  EXPECT_EQ(set_xattr(fs.path("m/nf4/0.bin"), "user.qcache.pinned", "1"), 0);
  const UniqueFd open_one = open_file(fs.path("m/fp8/0.bin"));
  EXPECT_TRUE(eventually([&] { return fs.xattr(kInt8, "state") == "absent"; }));
  EXPECT_TRUE(eventually([&] { return fs.log().find("dropped m/int8/0.bin: not read for") != std::string::npos; }));
  ::usleep(2'500'000);
  EXPECT_EQ(fs.xattr("m/nf4/0.bin", "state"), "sealed");
  EXPECT_EQ(fs.xattr("m/fp8/0.bin", "state"), "sealed");
  EXPECT_TRUE(reads_as(read_at(open_one.get(), 0, 100'000), expected_file(model("m"), "fp8").substr(0, 100'000)));
}

// S79: A file counts as read for as long as it is open: its age begins when the last reader closes it or its daemon
// ends, and up to an hour earlier where that is killed.
TEST_F(MountCache, AgingCountsFromTheLastClose) {
  small_model().write(model("m"));
  MountedFs& fs = mount({"-o", "aging_interval=1s", "--max-age", "5s"});
  complete(fs, kInt8);
  UniqueFd fd = open_file(fs.path(kInt8));
  ::sleep(7);
  fd.reset();
  const auto closed = std::chrono::steady_clock::now();
  ::sleep(2);
  EXPECT_EQ(fs.xattr(kInt8, "state"), "sealed");
  EXPECT_TRUE(eventually([&] { return fs.xattr(kInt8, "state") == "absent"; }));
  EXPECT_GT(std::chrono::steady_clock::now() - closed, std::chrono::seconds(4));
}

// S78: `rm -r` also drops what is cached of a model that cannot be served any more, whose folder is empty.
TEST_F(MountCache, RemovingABrokenModelDropsItsFiles) {
  small_model().write(model("m"));
  small_model().write(model("n"));
  MountedFs& fs = mount();
  const auto complete_all = [&] {
    for (const char* file : {kInt8, "m/nf4/0/model.safetensors", "n/int8/0.bin"}) {
      complete(fs, file);
    }
    EXPECT_EQ(read_at(open_file(fs.path("m/fp32/0.bin")).get(), 5000, 100).error, 0);
    EXPECT_EQ(fs.status("files_sealed"), 3U);
    EXPECT_EQ(fs.status("files_filling"), 1U);
  };
  complete_all();
  std::filesystem::resize_file(model("m") + "/model.safetensors", 100);
  EXPECT_TRUE(names_in(fs.path("m")).empty());
  EXPECT_NE(fs.xattr("m", "error"), "");
  EXPECT_EQ(run_program({"rm", "-r", fs.path("m")}, dir() / "said"), 0) << read_file(dir() / "said");
  EXPECT_EQ(fs.status("files_sealed"), 1U);
  EXPECT_EQ(fs.status("files_filling"), 0U);
  EXPECT_EQ(fs.xattr("n/int8/0.bin", "state"), "sealed");
  small_model().write(model("m"));
  complete_all();
}

// S75: A model's folder has one set of cached files, by whichever names mounts show it: no mount or command drops or
// makes again what another has made, and what people set counts for all.
TEST_F(MountCache, OneFolderUnderTwoNamesHasOneSetOfFiles) {
  small_model().write(models() + "/org/m");
  const std::string expected = expected_file(models() + "/org/m", "int8");
  ASSERT_EQ(run_program({MountedFs::program(), "warm", models() + "/org/m", "int8", "0.bin", "--cache-dir", cache()}),
            0);
  std::filesystem::create_directory_symlink("org/m", models() + "/latest");
  MountedFs& outer = mount();
  MountedFs::Setup below = setup("below");
  below.models = models() + "/org";
  const MountedFs inner(below);
  const std::string in_outer = "org--m/int8/0.bin";
  EXPECT_EQ(outer.xattr(in_outer, "state"), "sealed") << "made before it was mounted, by the folder's own name";
  EXPECT_EQ(run_program({MountedFs::program(), "pin", "org--m", "int8", "--cache-dir", cache()}), 0);
  EXPECT_EQ(outer.xattr("latest/int8/0.bin", "state") + outer.xattr("latest/int8/0.bin", "pinned"), "sealed1");
  for (int round = 0; round < 3; ++round) {
    EXPECT_TRUE(reads_as(read_whole(inner.path(kInt8)), expected));
    EXPECT_TRUE(reads_as(read_whole(outer.path(in_outer)), expected));
    EXPECT_EQ(outer.xattr(in_outer, "state") + outer.xattr(in_outer, "pinned"), "sealed1");
    EXPECT_EQ(inner.xattr(kInt8, "state") + inner.xattr(kInt8, "pinned"), "sealed1");
  }
  EXPECT_EQ(inner.status("tiles_quantized") + outer.status("tiles_quantized"), 0U);

  // Half made by one, completed by the other; each folder names the model as its mount does.
  const std::string weights = "/nf4/0/model.safetensors";
  const UniqueFd half = open_file(outer.path("org--m" + weights));
  EXPECT_EQ(read_at(half.get(), 10'000, 10).error, 0);
  complete(inner, "m" + weights);
  EXPECT_EQ(outer.xattr("org--m" + weights, "state"), "sealed");
  EXPECT_NE(read_whole(outer.path("org--m/nf4/0/qcache.json")).bytes.find(R"("model": "org--m")"), std::string::npos);
  EXPECT_NE(read_whole(inner.path("m/nf4/0/qcache.json")).bytes.find(R"("model": "m")"), std::string::npos);
  EXPECT_EQ(inner.status("files_sealed"), 2U);
  EXPECT_EQ(::unlink(outer.path(in_outer).c_str()), 0);
  EXPECT_EQ(inner.xattr(kInt8, "state"), "absent") << "rm drops it under every name";
}

// S29: Setting `user.qcache.pinned` to 1 pins a complete file, sealed or not, 0 unpins it; other values are EINVAL, a
// file that is not complete is ENOENT.
TEST_F(MountCache, PinningIsForCompleteFiles) {
  small_model().write(model("m"));
  MountedFs& fs = mount();
  const std::string file = fs.path(kInt8);
  EXPECT_EQ(set_xattr(file, "user.qcache.pinned", "1"), ENOENT);
  complete(fs, kInt8);
  EXPECT_EQ(fs.xattr(kInt8, "pinned"), "0");
  EXPECT_EQ(set_xattr(file, "user.qcache.pinned", "1"), 0);
  EXPECT_EQ(fs.xattr(kInt8, "pinned"), "1");
  EXPECT_EQ(set_xattr(file, "user.qcache.pinned", "2"), EINVAL);
  fs.restart();
  EXPECT_EQ(fs.xattr(kInt8, "pinned"), "1");
  EXPECT_EQ(set_xattr(file, "user.qcache.pinned", "no"), 0);
  EXPECT_EQ(fs.xattr(kInt8, "pinned"), "0");
}

// S80: Pinning means the file of the model as it is now: what was made of an earlier state is not pinned in its place,
// but 0 unpins it.
TEST_F(MountCache, PinningMeansTheModelAsItIsNow) {
  small_model().write(model("m"));
  MountedFs& fs = mount();
  const std::string file = fs.path(kInt8);
  complete(fs, kInt8);
  EXPECT_EQ(set_xattr(file, "user.qcache.pinned", "1"), 0);
  set_mtime(model("m") + "/model.safetensors", 1'000'000'000);
  EXPECT_EQ(fs.xattr(kInt8, "state") + fs.xattr(kInt8, "pinned"), "absent");
  EXPECT_EQ(set_xattr(file, "user.qcache.pinned", "1"), ENOENT);
  complete(fs, kInt8);
  EXPECT_EQ(fs.xattr(kInt8, "pinned"), "0");
  const std::vector<std::string> collect = {MountedFs::program(), "gc", "--cache-dir", cache()};
  EXPECT_EQ(run_program(collect, dir() / "said"), 0);
  EXPECT_EQ(fs.status("files_sealed"), 2U) << "pinned is pinned";
  EXPECT_EQ(set_xattr(file, "user.qcache.pinned", "0"), 0);
  EXPECT_EQ(run_program(collect, dir() / "said"), 0);
  EXPECT_EQ(fs.status("files_sealed"), 1U);
  EXPECT_EQ(fs.xattr(kInt8, "state"), "sealed");
}

}  // namespace
}  // namespace qcache
