#include <fcntl.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/fs/mount_test.h"

namespace qcache {
namespace {

using MountTree = MountTest;
using Names = std::vector<std::string>;

Names sorted(Names names) {
  std::sort(names.begin(), names.end());
  return names;
}

std::set<std::string> xattr_names(const std::string& path) {
  std::string joined(4096, '\0');
  const ssize_t size = ::listxattr(path.c_str(), joined.data(), joined.size());
  EXPECT_GE(size, 0) << path;
  std::set<std::string> names;
  for (size_t begin = 0; begin < static_cast<size_t>(std::max<ssize_t>(size, 0));) {
    names.emplace(joined.c_str() + begin);
    begin = joined.find('\0', begin) + 1;
  }
  return names;
}

// S1: The mount has one folder per model below the model folders, a model one folder per dtype that it can be served
// in, and a dtype the file `0.bin` and the folder `0`; `.qcache` is there besides.
TEST_F(MountTree, ListsModelsDtypesAndFiles) {
  small_model().write(model("a"));
  small_model().write(model("B c"));
  small_model().write_hub(models(), "org--name");
  ModelBuilder()
      .config(R"({"model_type": "mixtral", "num_local_experts": 4})")
      .tensor("model.layers.0.block_sparse_moe.experts.0.w1.weight", DType::kBF16, {64, 64})
      .write(model("moe"));
  MountedFs& fs = mount();
  EXPECT_EQ(names_in(fs.path()), (Names{".qcache", "B c", "a", "moe", "org--name"}));
  EXPECT_EQ(names_in(fs.path(".qcache")), (Names{"errors", "metrics", "status"}));
  EXPECT_EQ(names_in(fs.path("B c")), sorted(all_dtypes()));
  EXPECT_EQ(names_in(fs.path("moe")), (Names{"bf16", "fp16", "fp32", "fp4", "fp8", "fp8-block", "int4", "int8-bnb",
                                             "mxfp4", "nf4", "nf4-dq", "w8a16"}));
  for (const std::string& dtype : all_dtypes()) {
    EXPECT_EQ(names_in(fs.path("a/" + dtype)), (Names{"0", "0.bin"}));
  }
}

// S2: Other names of a dtype, such as `w8a8` for `int8`, lead to the same file; they are not listed.
TEST_F(MountTree, OtherNamesOfADtypeLeadToTheSameFile) {
  small_model().write(model("m"));
  MountedFs& fs = mount();
  for (const auto& [alias, dtype] : {std::pair("w8a8", "int8"), std::pair("INT8-dynamic", "int8"),
                                     std::pair("float8_e4m3fn", "fp8"), std::pair("bfloat16", "bf16")}) {
    SCOPED_TRACE(alias);
    const std::string by_alias = fs.path(std::string("m/") + alias + "/0.bin");
    const std::string by_name = fs.path(std::string("m/") + dtype + "/0.bin");
    EXPECT_TRUE(reads_as(read_whole(by_alias), expected_file(model("m"), dtype)));
    EXPECT_TRUE(reads_as(read_whole(by_name), expected_file(model("m"), dtype)));
    EXPECT_EQ(stat_of(by_alias).st_ino, stat_of(by_name).st_ino);
  }
  EXPECT_EQ(names_in(fs.path("m")), sorted(all_dtypes()));
  EXPECT_TRUE(eventually([&] { return fs.status("files_sealed") == 3 && fs.status("files_filling") == 0; }));
}

// S3: Any other model, dtype, rank (see S58) or way to write a rank does not exist (ENOENT).
TEST_F(MountTree, NothingElseExists) {
  small_model().write(model("m"));
  MountedFs& fs = mount();
  for (const char* name : {"x", "M", "m.safetensors", "m/xyz", "m/int", "m/int8/97.bin", "m/int8/00.bin",
                           "m/int8/0.gguf", "m/int8/00", "m/int8/97", "m/int8/0.bin2", "m/int8/-0.bin", "m/int8/+0.bin",
                           "m/int8/4294967296.bin", "m/int8/.bin", "m/config.json", ".qcache/x", ".Trash", "m/0.bin"}) {
    EXPECT_EQ(stat_error(fs.path(name)), ENOENT) << name;
    EXPECT_EQ(open_error(fs.path(name), O_RDONLY), ENOENT) << name;
  }
  EXPECT_EQ(stat_error(fs.path("m/int8/0.bin/x")), ENOTDIR);
  for (const char* folder : {"", "m/", "m/int8/"}) {
    EXPECT_EQ(stat_error(fs.path(folder + std::string(255, 'x'))), ENOENT) << folder;
  }
}

// S4: Models that come or go below the model folders come or go in a running mount.
TEST_F(MountTree, ModelsComeAndGoWithoutRemount) {
  MountedFs& fs = mount();
  EXPECT_EQ(names_in(fs.path()), Names{".qcache"});
  EXPECT_EQ(stat_error(fs.path("m/int8/0.bin")), ENOENT);
  small_model().write(model("m"));
  EXPECT_EQ(names_in(fs.path()), (Names{".qcache", "m"}));
  EXPECT_TRUE(reads_as(read_whole(fs.path("m/int8/0.bin")), expected_file(model("m"), "int8")));
  std::filesystem::rename(model("m"), model("n"));
  EXPECT_EQ(names_in(fs.path()), (Names{".qcache", "n"}));
  EXPECT_EQ(open_error(fs.path("m/int8/0.bin"), O_RDONLY), ENOENT);
  EXPECT_TRUE(reads_as(read_whole(fs.path("n/int8/0.bin")), expected_file(model("n"), "int8")));
  std::filesystem::remove_all(model("n"));
  EXPECT_EQ(names_in(fs.path()), Names{".qcache"});
  EXPECT_EQ(stat_error(fs.path("n")), ENOENT);
}

// S5: A model that cannot be served is an empty folder: its `user.qcache.error` and `/.qcache/errors` say why, and
// other models are not affected.
TEST_F(MountTree, BadModelsAreEmptyFoldersThatSayWhy) {
  small_model().write(model("good"));
  const std::string whole = read_file(model("good") + "/model.safetensors");
  write_file(model("cut") + "/model.safetensors", whole.substr(0, 100));
  write_file(model("garbage") + "/model.safetensors", std::string(1000, '\xff'));
  write_file(model("empty") + "/model.safetensors", "");
  write_file(model("overlap") + "/model.safetensors",
             safetensors_file(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                              R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                              "abc"));
  MountedFs& fs = mount();
  for (const char* name : {"cut", "garbage", "empty", "overlap"}) {
    SCOPED_TRACE(name);
    EXPECT_EQ(names_in(fs.path(name)), Names{});
    EXPECT_NE(fs.xattr(name, "error").find("model.safetensors"), std::string::npos) << fs.xattr(name, "error");
    EXPECT_EQ(fs.xattr(name, "source"), model(name));
    EXPECT_EQ(open_error(fs.path(std::string(name) + "/int8/0.bin"), O_RDONLY), EIO);
    EXPECT_NE(read_whole(fs.path(".qcache/errors")).bytes.find(model(name)), std::string::npos);
  }
  EXPECT_TRUE(reads_as(read_whole(fs.path("good/int8/0.bin")), expected_file(model("good"), "int8")));
  EXPECT_EQ(fs.xattr("good", "error"), "");
}

// S8: Listing, `stat`, `find`, `du`, `df` and reading attributes make nothing and read no tensor of a model.
TEST_F(MountTree, LookingAroundReadsNoTensor) {
  for (int i = 0; i < 30; ++i) {
    small_model().write(model("m" + std::to_string(i)));
  }
  MountedFs& fs = mount();
  size_t files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(fs.path())) {
    const struct ::stat found = stat_of(entry.path());
    files += S_ISREG(found.st_mode) && entry.path().filename() == "0.bin" ? 1U : 0U;
    (void)xattr_names(entry.path());
  }
  EXPECT_EQ(files, 30 * all_dtypes().size());
  const std::string quoted = "'" + fs.path() + "'";
  EXPECT_EQ(
      run_program({"sh", "-c",
                   "ls -lasR " + quoted + " && find " + quoted + " -size +1 && du -a " + quoted + " && df " + quoted},
                  dir() / "walk"),
      0);
  EXPECT_NE(read_file(dir() / "walk").find("0.bin"), std::string::npos);
  const auto status = fs.status();
  for (const char* counter :
       {"tiles_quantized", "source_bytes_read", "opens_filling", "files_filling", "files_sealed"}) {
    EXPECT_EQ(status.at(counter), 0U) << counter;
  }
}

// S9: Files belong to whoever mounted (mode 0644: the owner may set attributes, and nobody can write; S101 says what
// others may do with `allow_other`); `st_mtime` is that of the model's youngest file, and `st_ino` stays the same while
// a file is made, completed and dropped.
TEST_F(MountTree, AttributesTellTheTruth) {
  small_model().write(model("m"));
  set_mtime(model("m") + "/config.json", 1'600'000'000'250'000'000);
  set_mtime(model("m") + "/model.safetensors", 1'500'000'000'000'000'000);
  MountedFs& fs = mount();
  const std::string file = fs.path("m/int8/0.bin");
  const struct ::stat absent = stat_of(file);
  EXPECT_EQ(absent.st_mode, static_cast<mode_t>(S_IFREG | 0644));
  EXPECT_EQ(absent.st_uid, ::geteuid());
  EXPECT_EQ(absent.st_nlink, 1U);
  EXPECT_EQ(absent.st_mtim.tv_sec, 1'600'000'000);
  EXPECT_EQ(absent.st_mtim.tv_nsec, 250'000'000);
  EXPECT_TRUE(S_ISDIR(stat_of(fs.path("m/int8")).st_mode));

  const UniqueFd fd = open_file(file);
  (void)read_at(fd.get(), 0, 100'000);
  EXPECT_EQ(stat_of(file).st_ino, absent.st_ino);
  EXPECT_EQ(read_whole(file).error, 0);
  fs.wait_until_sealed("m/int8/0.bin");
  EXPECT_EQ(stat_of(file).st_ino, absent.st_ino);
  EXPECT_EQ(stat_of(file).st_mtim.tv_sec, 1'600'000'000);
  EXPECT_EQ(::unlink(file.c_str()), 0);
  EXPECT_EQ(stat_of(file).st_ino, absent.st_ino);
  struct ::stat open_one {};
  EXPECT_EQ(::fstat(fd.get(), &open_one), 0);
  EXPECT_EQ(open_one.st_ino, absent.st_ino);
  EXPECT_EQ(open_one.st_size, absent.st_size);
}

// S10: `statfs` (`df`) speaks of the filesystem of the cache directory.
TEST_F(MountTree, StatfsIsThatOfTheCacheDirectory) {
  const OwnFilesystem tmpfs(cache(), "tmpfs", "size=64M");
  MountedFs& fs = mount();
  struct ::statvfs shown {};
  struct ::statvfs real {};
  ASSERT_EQ(::statvfs(fs.path().c_str(), &shown), 0);
  ASSERT_EQ(::statvfs(cache().c_str(), &real), 0);
  EXPECT_EQ(shown.f_blocks * shown.f_frsize, real.f_blocks * real.f_frsize);
  EXPECT_EQ(shown.f_bavail * shown.f_frsize, real.f_bavail * real.f_frsize);
}

// S27: Everything else that would change the mount fails with EROFS, also for root: creating, writing, truncating (by
// O_TRUNC too), renaming, linking, changing modes and times; with EACCES: removing control files and setting other
// attributes.
TEST_F(MountTree, NothingCanBeWritten) {
  small_model().write(model("m"));
  MountedFs& fs = mount();
  const std::string file = fs.path("m/int8/0.bin");
  const std::string fresh = fs.path("m/int8/new");
  const auto error = [](int result) { return result == 0 ? 0 : errno; };
  const std::string expected = expected_file(model("m"), "int8");
  const UniqueFd reader = open_file(file);
  const Mapping mapping(reader.get(), expected.size(), MAP_SHARED, PROT_READ);
  for (const bool sealed : {false, true}) {
    for (const char* name : {"m/int8/0.bin", "m/int8/0/config.json", "m/int8/0/qcache.json", ".qcache/status"}) {
      EXPECT_EQ(open_error(fs.path(name), O_RDONLY | O_TRUNC), EROFS) << name;
    }
    Child touches([&] { return mapping.bytes() == expected ? 0 : 1; });
    EXPECT_EQ(touches.wait(), 0) << "a mapping lost its pages";
    EXPECT_EQ(open_error(file, O_WRONLY), EROFS);
    EXPECT_EQ(open_error(file, O_RDWR), EROFS);
    EXPECT_EQ(open_error(file, O_WRONLY | O_TRUNC), EROFS);
    EXPECT_EQ(open_error(fresh, O_WRONLY | O_CREAT), EROFS);
    EXPECT_EQ(open_error(fs.path("new"), O_WRONLY | O_CREAT | O_EXCL), EROFS);
    EXPECT_EQ(open_error(fs.path(".qcache/status"), O_WRONLY), EROFS);
    EXPECT_EQ(error(::truncate(file.c_str(), 0)), EROFS);
    EXPECT_EQ(error(::rename(file.c_str(), fresh.c_str())), EROFS);
    EXPECT_EQ(error(::rename(fs.path("m").c_str(), fs.path("n").c_str())), EROFS);
    EXPECT_EQ(error(::link(file.c_str(), fresh.c_str())), EROFS);
    EXPECT_EQ(error(::symlink("x", fresh.c_str())), EROFS);
    EXPECT_EQ(error(::mkdir(fs.path("m/new").c_str(), 0755)), EROFS);
    EXPECT_EQ(error(::chmod(file.c_str(), 0644)), EROFS);
    EXPECT_EQ(error(::utimensat(AT_FDCWD, file.c_str(), nullptr, 0)), EROFS);
    EXPECT_EQ(error(::unlink(fs.path(".qcache/status").c_str())), EACCES);
    EXPECT_EQ(error(::rmdir(fs.path(".qcache").c_str())), EACCES);
    EXPECT_EQ(set_xattr(file, "user.other", "1"), EACCES);
    EXPECT_EQ(error(::removexattr(file.c_str(), "user.qcache.state")), EPERM);
    EXPECT_EQ(read_whole(file).error, 0) << "sealed " << sealed;
    fs.wait_until_sealed("m/int8/0.bin");
  }
  EXPECT_TRUE(reads_as(read_whole(file), expected_file(model("m"), "int8")));
}

// S49: `/.qcache/status` is JSON with the keys below, and its size does not change while the mount runs; `metrics` has
// the same numbers in Prometheus' text format.
TEST_F(MountTree, StatusAndMetricsCanBeParsed) {
  tiled_model().write(model("m"));
  MountedFs& fs = mount();
  const off_t size = stat_of(fs.path(".qcache/status")).st_size;
  EXPECT_EQ(read_whole(fs.path("m/int8/0.bin")).error, 0);
  fs.wait_until_sealed("m/int8/0.bin");
  EXPECT_TRUE(eventually([&] { return fs.status("files_filling") == 0; }));
  EXPECT_EQ(read_whole(fs.path("m/int8/0.bin")).error, 0);
  const std::string text = read_whole(fs.path(".qcache/status")).bytes;
  EXPECT_EQ(stat_of(fs.path(".qcache/status")).st_size, size);
  EXPECT_EQ(text.size(), static_cast<size_t>(size));

  const nlohmann::json status = nlohmann::json::parse(text);
  EXPECT_EQ(status.at("pid").get<pid_t>(), fs.pid());
  EXPECT_EQ(status.at("mount_point"), fs.path());
  EXPECT_EQ(status.at("cache_dir"), cache());
  EXPECT_EQ(status.at("models"), nlohmann::json::array({models()}));
  EXPECT_TRUE(status.at("version").is_string());
  EXPECT_TRUE(status.at("started").is_string());
  EXPECT_EQ(status.at("passthrough").get<bool>(), MountedFs::passthrough_wanted());
  EXPECT_EQ(status.at("tiles_quantized"), planned_file(model("m"), "int8")->tile_count());
  EXPECT_EQ(status.at("files_sealed"), 1);
  EXPECT_EQ(status.at("files_filling"), 0);
  EXPECT_EQ(status.at("opens_filling"), 1);
  EXPECT_EQ(status.at("opens_sealed"), 1);
  EXPECT_GE(status.at("bytes_quantized"), uint64_t{8} << 20);
  constexpr uint64_t kModelBytes = (uint64_t{16} << 20) + 64 * 64 * 2;
  EXPECT_GE(status.at("source_bytes_read"), kModelBytes);
  EXPECT_LE(status.at("source_bytes_read"), kModelBytes + kModelBytes / 16) << "a sample is read again to be measured";
  EXPECT_GE(status.at("cache_bytes"), uint64_t{8} << 20);
  EXPECT_GT(status.at("free_bytes"), 0);
  const std::string metrics = read_whole(fs.path(".qcache/metrics")).bytes;
  for (const char* name : {"sealed_since_start", "reads", "read_errors", "tiles_verified", "tiles_rejected"}) {
    EXPECT_TRUE(status.at(name).is_number_unsigned()) << name;
    EXPECT_NE(metrics.find(std::string("\nqcache_") + name + "_total "), std::string::npos) << name;
  }
  EXPECT_NE(metrics.find("\nqcache_files_sealed                    1\n"), std::string::npos) << metrics;
}

// S50: The extended attributes are those of the table below; only `pinned` and `warm` can be set.
TEST_F(MountTree, AttributesAreThoseOfTheTable) {
  small_model().config("{broken").write(model("m"));
  MountedFs& fs = mount();
  const auto prefixed = [](std::initializer_list<const char*> names) {
    std::set<std::string> out;
    for (const char* name : names) {
      out.insert(std::string("user.qcache.") + name);
    }
    return out;
  };
  const std::string name = "m/int8/0.bin";
  const std::string file = fs.path(name);
  EXPECT_EQ(xattr_names(fs.path("m")), prefixed({"source", "dtypes", "config_problem"}));
  EXPECT_EQ(fs.xattr("m", "dtypes"),
            "bf16 fp16 fp32 int8 fp8 int4 nf4 qfloat8 qint8 qint4 fp8-block int8-bnb nf4-dq fp4 w8a16 nvfp4 mxfp4");
  EXPECT_EQ(xattr_names(fs.path("m/int8")), prefixed({}));
  EXPECT_EQ(xattr_names(file), prefixed({"state", "progress", "source"}));
  EXPECT_EQ(fs.xattr(name, "state"), "absent");
  EXPECT_EQ(fs.xattr(name, "progress"), "0.0000");
  {
    const UniqueFd fd = open_file(file);
    EXPECT_EQ(xattr_names(file), prefixed({"state", "progress", "source", "backing"}));
    EXPECT_EQ(fs.xattr(name, "state"), "filling");
    EXPECT_EQ(fs.xattr(name, "backing"), only_filling_file(".bin"));
  }
  EXPECT_EQ(read_whole(file).error, 0);
  fs.wait_until_hashed(name);
  EXPECT_EQ(xattr_names(file), prefixed({"state", "progress", "source", "backing", "sha256", "created", "accessed",
                                         "hits", "pinned", "sqnr"}));
  EXPECT_EQ(fs.xattr(name, "progress"), "1.0000");
  EXPECT_EQ(read_file(fs.xattr(name, "backing")), expected_file(model("m"), "int8"));
  EXPECT_EQ(fs.xattr(name, "created").size(), std::string("2026-01-01T00:00:00Z").size());
  EXPECT_EQ(fs.xattr(name, "hits"), "0");
  EXPECT_EQ(read_whole(file).error, 0);
  EXPECT_TRUE(eventually([&] { return fs.xattr(name, "hits") == "1"; }));

  EXPECT_EQ(set_xattr(file, "user.qcache.sha256", "1"), EACCES);
  EXPECT_EQ(set_xattr(file, "user.other", "1"), EACCES);
  EXPECT_EQ(set_xattr(fs.path("m"), "user.qcache.pinned", "1"), EACCES);
  EXPECT_EQ(set_xattr(file, "user.qcache.warm", "maybe"), EINVAL);
  EXPECT_EQ(::removexattr(file.c_str(), "user.qcache.pinned") == 0 ? 0 : errno, EPERM);
  std::array<char, 3> small{};
  EXPECT_EQ(::getxattr(file.c_str(), "user.qcache.sha256", small.data(), small.size()), -1);
  EXPECT_EQ(errno, ERANGE);
}

}  // namespace
}  // namespace qcache
