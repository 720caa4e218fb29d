// The cache directory in real surroundings: full disks, and people who remove it while it is used.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <utility>
#include <vector>

#include "tests/fs/mount_test.h"
#include "tests/support/btrfs_disk.h"

namespace qcache {
namespace {

using MountCache = MountTest;

constexpr const char* kInt8 = "m/int8/0.bin";

// S40: A file that is being made can be read and mapped on a full disk, too: what cannot be stored is served from
// memory, and made again by later reads. The file is `failed`, `user.qcache.error` says why, and warming it fails; it
// is completed when there is room and somebody reads or warms it.
TEST_F(MountCache, AFullDiskIsReadFromMemory) {
  const OwnFilesystem tmpfs(cache(), "tmpfs", "size=12M");
  tiled_model().write(model("m"));
  small_model().write(model("small"));
  MountedFs& fs = mount();
  const std::string expected = expected_file(model("m"), "int8");
  const std::string fp8 = expected_file(model("m"), "fp8");
  complete(fs, "small/int8/0.bin");
  complete(fs, kInt8);  // 8 MiB
  {
    const UniqueFd fd = open_file(fs.path("m/fp8/0.bin"));
    const Mapping mapping(fd.get(), fp8.size(), MAP_SHARED, PROT_READ);
    Child program([&] { return same_bytes(mapping.bytes(), fp8) ? 0 : 1; });
    EXPECT_EQ(program.wait_for(60), 0) << "a signal, or other bytes";
  }
  EXPECT_TRUE(reads_as(read_whole(fs.path("m/fp8/0.bin"), 100'000), fp8));
  EXPECT_EQ(fs.xattr("m/fp8/0.bin", "state"), "failed");
  EXPECT_NE(fs.xattr("m/fp8/0.bin", "error").find("No space left"), std::string::npos);
  EXPECT_NE(read_whole(fs.path(".qcache/errors")).bytes.find("m/fp8/0.bin"), std::string::npos);
  EXPECT_EQ(fs.status("read_errors"), 0U);
  EXPECT_TRUE(reads_as(read_whole(fs.path("m/bf16/0.bin")), expected_file(model("m"), "bf16"))) << "one more file";
  EXPECT_NE(run_program({MountedFs::program(), "warm", fs.path("m/fp8/0.bin")}, dir() / "warm"), 0);
  EXPECT_NE(read_file(dir() / "warm").find("No space left"), std::string::npos) << read_file(dir() / "warm");
  EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected));
  EXPECT_TRUE(reads_as(read_whole(fs.path("small/int8/0.bin")), expected_file(model("small"), "int8")));
  EXPECT_EQ(::unlink(fs.path(kInt8).c_str()), 0);
  EXPECT_EQ(::unlink(fs.path("m/bf16/0.bin").c_str()), 0);
  EXPECT_TRUE(reads_as(read_whole(fs.path("m/fp8/0.bin")), fp8));
  fs.wait_until_sealed("m/fp8/0.bin");
}

// S104: The cache directory and what lies in it may be removed or moved at any time, also while mounts use it, and its
// catalog may be cut short: what is open is served to its end, and what is read later is made again.
TEST_F(MountCache, TheCacheDirectoryMayBeRemovedWhileInUse) {
  namespace files = std::filesystem;
  tiled_model().write(model("m"));
  small_model().write(model("small"));
  const std::string expected = expected_file(model("m"), "int8");
  const std::string nf4 = expected_file(model("m"), "nf4");
  const std::string small = expected_file(model("small"), "fp8");
  const std::vector<MountedFs*> mounts = {&mount_as("one"), &mount_as("two")};
  const MountedFs& fs = *mounts[0];
  const std::string index = cache() + "/index";
  const auto cut_maps = [&] {
    for (const auto& entry : files::directory_iterator(cache() + "/filling")) {
      if (entry.path().extension() == ".map") {
        files::resize_file(entry.path(), 0);
      }
    }
  };
  const std::vector<std::pair<const char*, std::function<void()>>> losses = {
      {"the catalog's file is empty", [&] { files::resize_file(index + "/data.mdb", 0); }},
      {"the catalog's file is cut", [&] { files::resize_file(index + "/data.mdb", 3 * 4096); }},
      {"the catalog's file is gone", [&] { files::remove(index + "/data.mdb"); }},
      {"the catalog's folder is gone", [&] { files::remove_all(index); }},
      {"the catalog's folder is moved", [&] { files::rename(index, dir() / "index"); }},
      {"the maps of unfinished files are empty", cut_maps},
      {"the folder of unfinished files is gone", [&] { files::remove_all(cache() + "/filling"); }},
      {"the cache directory is moved", [&] { files::rename(cache(), dir() / "moved"); }},
      {"the cache directory is gone", [&] { files::remove_all(cache()); }},
  };
  for (const auto& [what, lose] : losses) {
    SCOPED_TRACE(what);
    complete(fs, kInt8);
    ASSERT_EQ(::unlink(fs.path("m/nf4/0.bin").c_str()), 0);
    const UniqueFd sealed = open_file(fs.path(kInt8));
    const UniqueFd filling = open_file(fs.path("m/nf4/0.bin"));
    EXPECT_TRUE(reads_as(read_at(filling.get(), 0, 1000), std::string_view(nf4).substr(0, 1000)));
    lose();
    EXPECT_TRUE(reads_as(read_at(sealed.get(), 0, expected.size()), expected));
    EXPECT_TRUE(reads_as(read_at(filling.get(), 0, nf4.size()), nf4));
    ::usleep(150'000);  // for so long a reader may take a catalog for what it was
    for (const MountedFs* one : mounts) {
      EXPECT_TRUE(reads_as(read_whole(one->path(kInt8)), expected));
      EXPECT_TRUE(reads_as(read_whole(one->path("small/fp8/0.bin")), small));
      one->wait_until_sealed("small/fp8/0.bin");
    }
    ASSERT_EQ(::unlink(fs.path("small/fp8/0.bin").c_str()), 0);
    EXPECT_EQ(run_program({MountedFs::program(), "ls", "--cache-dir", cache()}, dir() / "ls"), 0)
        << read_file(dir() / "ls");
  }
  for (MountedFs* one : mounts) {
    EXPECT_EQ(one->status("read_errors"), 0U);
    EXPECT_EQ(one->stop(), 0);
  }
}

// S108: A link or a pipe in the place of a file of the cache directory is none of qcache's, whoever put it there: what
// a link leads to is neither read nor changed, and nobody waits for a pipe. A file of a model, or the catalog, is made
// again; in the place of a lock, the log, or a folder it is refused. A complete file of a model that has another name
// elsewhere (a hard link) is not changed there.
TEST_F(MountCache, LinksAndPipesInTheCacheDirectoryAreNotFollowed) {
  namespace files = std::filesystem;
  tiled_model().write(model("m"));
  small_model().write(model("small"));
  const std::string expected = expected_file(model("m"), "int8");
  const std::string nf4 = expected_file(model("m"), "nf4");
  const std::string small = expected_file(model("small"), "fp8");
  const std::string victim = dir() / "victim";
  write_file(victim, "precious");
  ASSERT_EQ(::chmod(victim.c_str(), 0600), 0);
  MountedFs& fs = mount();
  const auto complete_file = [&] {
    const auto all = names_in(cache());
    const auto found = std::ranges::find_if(all, [](const std::string& name) { return name.ends_with(".bin"); });
    return found == all.end() ? std::string("none") : cache() + '/' + *found;
  };
  const std::vector<std::pair<const char*, std::function<std::string()>>> places = {
      {"a complete file", complete_file},
      {"an unfinished file", [&] { return only_filling_file(".bin"); }},
      {"its map", [&] { return only_filling_file(".map"); }},
      {"the catalog", [&] { return cache() + "/index/data.mdb"; }},
  };
  for (int round = 0; round < 4; ++round) {
    const bool pipe = round % 2 == 1;
    const bool restarted = round / 2 == 1;
    for (const auto& [what, place] : places) {
      SCOPED_TRACE(std::string(pipe ? "a pipe" : "a link") + " for " + what + (restarted ? ", then a start" : ""));
      complete(fs, kInt8);
      EXPECT_EQ(read_at(open_file(fs.path("m/nf4/0.bin")).get(), 0, 1000).error, 0);
      const std::string path = place();
      if (restarted) {
        EXPECT_EQ(fs.stop(), 0);
      }
      ASSERT_TRUE(files::remove(path));
      if (pipe) {
        ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
      } else {
        make_link(victim, path);
      }
      if (restarted) {
        fs.restart();
      }
      ::usleep(150'000);  // for so long a reader may take a catalog for what it was
      EXPECT_EQ(run_program({MountedFs::program(), "ls", "--cache-dir", cache()}, dir() / "ls"), 0)
          << read_file(dir() / "ls");
      EXPECT_TRUE(reads_as(read_whole(fs.path("small/fp8/0.bin")), small));
      EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected));
      EXPECT_TRUE(reads_as(read_whole(fs.path("m/nf4/0.bin")), nf4));
      for (const char* file : {kInt8, "m/nf4/0.bin", "small/fp8/0.bin"}) {
        fs.wait_until_sealed(file);
        ASSERT_EQ(::unlink(fs.path(file).c_str()), 0);
      }
      EXPECT_EQ(read_file(victim), "precious");
      EXPECT_EQ(files::status(victim).permissions(), files::perms::owner_read | files::perms::owner_write);
    }
  }
  make_directories(dir() / "elsewhere");
  write_file(dir() / "elsewhere/data.mdb", "precious");
  for (const char* name : {"filling/lock", "index/users", "qcache.log", "filling", "index"}) {
    SCOPED_TRACE(name);
    EXPECT_EQ(fs.stop(), 0);
    const std::string path = cache() + '/' + name;
    const bool folder = files::is_directory(path);
    files::rename(path, dir() / "kept");
    make_link(folder ? dir() / "elsewhere" : victim, path);
    for (const std::vector<std::string>& words :
         {std::vector<std::string>{"mount", "--cache-dir", cache(), models(), fs.path()},
          {"gc", "--cache-dir", cache()}}) {
      if (words[0] == "gc" && std::string_view(name) == "qcache.log") {
        continue;  // commands do not write it
      }
      std::vector<std::string> command = {MountedFs::program()};
      command.insert(command.end(), words.begin(), words.end());
      ASSERT_EQ(run_program(command, dir() / "said"), 5) << words[0] << read_file(dir() / "said");
      EXPECT_NE(read_file(dir() / "said").find("move it away"), std::string::npos) << read_file(dir() / "said");
    }
    files::remove(path);
    files::rename(dir() / "kept", path);
    EXPECT_EQ(read_file(victim), "precious");
    EXPECT_EQ(names_in(dir() / "elsewhere"), std::vector<std::string>{"data.mdb"});
    fs.restart();
  }
}

// S108: A link or a pipe in the place of a file of the cache directory is none of qcache's, whoever put it there: what
// a link leads to is neither read nor changed, and nobody waits for a pipe. A file of a model, or the catalog, is made
// again; in the place of a lock, the log, or a folder it is refused. A complete file of a model that has another name
// elsewhere (a hard link) is not changed there.
TEST_F(MountCache, WhatHasAnotherNameElsewhereIsNotChanged) {
  namespace files = std::filesystem;
  tiled_model().write(model("m"));
  const std::string expected = expected_file(model("m"), "int8");
  MountedFs& fs = mount();
  for (const bool ours : {true, false}) {
    for (const bool without_catalog : {false, true}) {
      SCOPED_TRACE(std::string(ours ? "a copy by hard links" : "another file") +
                   (without_catalog ? ", no catalog" : ""));
      complete(fs, kInt8);
      EXPECT_EQ(fs.stop(), 0);
      std::string path;
      for (const std::string& name : names_in(cache())) {
        path = name.ends_with(".bin") ? cache() + '/' + name : path;
      }
      const std::string other = dir() / "other";
      if (ours) {
        files::create_hard_link(path, other);
      } else {
        write_file(other, std::string(10'000, 'x'));
        files::remove(path);
        files::create_hard_link(other, path);
      }
      const std::string before = read_file(other);
      const auto mode = files::status(other).permissions();
      if (without_catalog) {
        files::remove_all(cache() + "/index");
      }
      fs.restart();
      EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected));
      complete(fs, kInt8);
      EXPECT_EQ(read_file(other), before);
      EXPECT_EQ(files::status(other).permissions(), mode);
      files::remove(other);
      EXPECT_EQ(::unlink(fs.path(kInt8).c_str()), 0);
    }
  }
}

// S90: On a full disk that copies what it writes (btrfs, a thin volume, a snapshot) the daemon lives on, another can
// be started, complete files are read, and `rm`, `qcache ls` and `qcache gc` work.
TEST_F(MountCache, AFullBtrfsEndsNobodyAndCanBeCleared) {
  std::string reason;
  const auto disk = BtrfsDisk::make(dir() / "image", cache(), reason);
  if (disk == nullptr) {
    GTEST_SKIP() << "NOT TESTED: " << reason;
  }
  const std::string fp32 = "m/fp32/0.bin";
  tiled_model().write(model("m"));
  MountedFs& fs = mount();
  const std::string expected = expected_file(model("m"), "int8");
  const std::string whole = expected_file(model("m"), "fp32");
  complete(fs, kInt8);
  EXPECT_EQ(read_at(open_file(fs.path(fp32)).get(), 0, 3'000'000).error, 0);
  disk->fill();

  for (const bool restarted : {false, true}) {
    SCOPED_TRACE(restarted ? "started on the full disk" : "there when it became full");
    int refused = 0;
    const UniqueFd fd = open_file(fs.path(fp32));
    for (uint64_t offset = 0; offset < whole.size(); offset += 1'000'000) {
      const ReadResult got = read_at(fd.get(), offset, 1000);
      EXPECT_TRUE(got.error == ENOSPC || reads_as(got, std::string_view(whole).substr(offset, 1000))) << got.error;
      refused += got.error == ENOSPC ? 1 : 0;
    }
    std::printf("%d reads found the disk full\n", refused);
    EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected));
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));  // access times are written meanwhile, or not
    disk->sync();
    for (const std::string command : {"ls", "gc"}) {
      EXPECT_EQ(run_program({MountedFs::program(), command, "--cache-dir", cache()}, dir() / "said"), 0)
          << command << ": " << read_file(dir() / "said");
    }
    ASSERT_TRUE(fs.running());
    if (!restarted) {
      fs.restart();
    }
  }
  EXPECT_EQ(::unlink(fs.path(kInt8).c_str()), 0);
  disk->remove_filling();
  EXPECT_TRUE(reads_as(read_whole(fs.path(fp32)), whole));
  fs.wait_until_sealed(fp32);
  EXPECT_EQ(fs.xattr(kInt8, "state"), "absent");
}

// S41: The cache directory may be on any filesystem, and is made with the folders above it where it is missing.
TEST_F(MountCache, TheCacheDirectoryIsMadeAnywhere) {
  const OwnFilesystem tmpfs(dir() / "tmpfs", "tmpfs", "size=64M");
  small_model().write(model("m"));
  MountedFs::Setup elsewhere = setup("mnt");
  elsewhere.cache = dir() / "tmpfs/a/b/c";
  MountedFs fs(elsewhere);
  complete(fs, kInt8);
  EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected_file(model("m"), "int8")));
  EXPECT_EQ(fs.status("passthrough"), MountedFs::passthrough_wanted() ? 1U : 0U);
  EXPECT_TRUE(read_file(elsewhere.cache + "/CACHEDIR.TAG").starts_with("Signature: 8a477f597d28d172789f06886806bc55"));
  EXPECT_EQ(stat_of(elsewhere.cache).st_mode & 0777, 0700U) << "model weights are nobody else's business";
  EXPECT_EQ(fs.stop(), 0);
}

}  // namespace
}  // namespace qcache
