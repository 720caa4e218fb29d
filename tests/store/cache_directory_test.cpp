#include "core/store/cache_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "tests/store/store_fixture.h"
#include "tests/support/fake_env.h"
#include "tests/support/result_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

TEST(CacheDirectory, MakesAllItNeedsAndMarksItForBackupTools) {
  TempDir dir;
  const std::string path = dir / "a/b/cache";
  const auto directory = CacheDirectory::open(Env::posix(), path);
  ASSERT_THAT(directory, is_ok());
  EXPECT_EQ(directory->path(), path);
  EXPECT_THAT(read_file(path + "/CACHEDIR.TAG"), StartsWith("Signature: 8a477f597d28d172789f06886806bc55"));
  for (const std::string& made : {path, directory->index_path(), directory->filling_directory()}) {
    const auto stat = Env::posix().stat(made);
    ASSERT_THAT(stat, is_ok());
    EXPECT_EQ(stat->mode & 0777U, 0700U) << made;
  }
  EXPECT_EQ(Env::posix().list(directory->filling_directory())->size(), 0U) << "the probe stayed";
  EXPECT_THAT(CacheDirectory::open(Env::posix(), path), is_ok());
  EXPECT_THAT(CacheDirectory::open_existing(Env::posix(), path), is_ok());
}

TEST(CacheDirectory, ResolvesLinks) {
  TempDir dir;
  make_directories(dir / "real");
  make_link("real", dir / "link");
  EXPECT_EQ(CacheDirectory::open(Env::posix(), dir / "link")->path(), dir / "real");
}

TEST(CacheDirectory, SaysWhereAndWhatToDoWhenItCannotBeUsed) {
  TempDir dir;
  write_file(dir / "file", "");
  const struct {
    EnvCall call;
    int sys_errno;
    ErrorKind kind;
  } rows[] = {
      {EnvCall::kMakeDirectory, EACCES, ErrorKind::kPermission},
      {EnvCall::kMakeDirectory, ENOSPC, ErrorKind::kNoSpace},
      {EnvCall::kOpen, EROFS, ErrorKind::kPermission},
      {EnvCall::kRealPath, EIO, ErrorKind::kCacheUnusable},
  };
  for (const auto& row : rows) {
    FakeEnv env;
    env.fail_all(row.call, row.sys_errno);
    const auto directory = CacheDirectory::open(env, dir / "cache");
    ASSERT_FALSE(directory.has_value());
    EXPECT_EQ(directory.error().kind, row.kind);
    EXPECT_THAT(directory.error().message, HasSubstr(dir / "cache"));
    EXPECT_THAT(directory.error().message, HasSubstr("--cache-dir"));
    EXPECT_THAT(directory.error().message, HasSubstr("QWEN_CACHE"));
  }
  const auto on_file = CacheDirectory::open(Env::posix(), dir / "file");
  ASSERT_FALSE(on_file.has_value());
  EXPECT_THAT(on_file.error().message, HasSubstr("is not a directory"));
  EXPECT_EQ(CacheDirectory::open(Env::posix(), "").error().kind, ErrorKind::kInvalidArgument);
}

TEST(CacheDirectory, OpensOnAFullDisk) {
  TempDir dir;
  ASSERT_THAT(CacheDirectory::open(Env::posix(), dir / "cache"), is_ok());
  ASSERT_THAT(Env::posix().remove(dir / "cache/CACHEDIR.TAG"), is_ok());
  FakeEnv env;
  env.fail_all(EnvCall::kOpen, ENOSPC);
  EXPECT_THAT(CacheDirectory::open(env, dir / "cache"), is_ok());
}

TEST(CacheDirectory, RefusesToLieInsideAMount) {
  TempDir dir;
  write_file(dir / "mnt/.qcache/status", "{}");
  const auto directory = CacheDirectory::open(Env::posix(), dir / "mnt/model/cache");
  ASSERT_FALSE(directory.has_value());
  EXPECT_EQ(directory.error().kind, ErrorKind::kCacheUnusable);
  EXPECT_THAT(directory.error().message, HasSubstr("inside the qcache mount " + (dir / "mnt")));
  EXPECT_THAT(CacheDirectory::open(Env::posix(), dir / "beside"), is_ok());
}

TEST(CacheDirectory, OpenExistingMakesNothing) {
  TempDir dir;
  for (const char* name : {"absent", "empty"}) {
    if (name == std::string("empty")) {
      make_directories(dir / name);
    }
    const auto directory = CacheDirectory::open_existing(Env::posix(), dir / name);
    ASSERT_FALSE(directory.has_value());
    EXPECT_EQ(directory.error().kind, ErrorKind::kNotFound);
    EXPECT_THAT(directory.error().message, HasSubstr(dir / name));
  }
  make_directories(dir / "half/index");
  const auto half = CacheDirectory::open_existing(Env::posix(), dir / "half");
  ASSERT_FALSE(half.has_value());
  EXPECT_EQ(half.error().kind, ErrorKind::kCacheUnusable);
  EXPECT_THAT(half.error().message, HasSubstr("half/filling is missing"));
  EXPECT_FALSE(StoreFixture::exists(dir / "absent"));
  EXPECT_EQ(Env::posix().list(dir / "empty")->size(), 0U);
}

TEST(CacheDirectory, TellsAUserWithoutPermission) {
  if (::getuid() != 0) {
    GTEST_SKIP() << "NOT TESTED: needs root, to become a user without permission";
  }
  TempDir dir;
  ASSERT_THAT(CacheDirectory::open(Env::posix(), dir / "closed"), is_ok());
  make_directories(dir / "readonly");
  ASSERT_EQ(::chmod(dir.path().c_str(), 0755), 0);
  ASSERT_EQ(::chmod((dir / "readonly").c_str(), 0555), 0);
  for (const std::string& path : {dir / "closed", dir / "readonly"}) {
    EXPECT_EQ(run_child([&] {
                constexpr uid_t kNobody = 65534;
                if (::setgid(kNobody) != 0 || ::setuid(kNobody) != 0) {
                  return 2;
                }
                const auto directory = CacheDirectory::open(Env::posix(), path);
                return !directory.has_value() && directory.error().kind == ErrorKind::kPermission &&
                               directory.error().message.find("QWEN_CACHE") != std::string::npos
                           ? 0
                           : 3;
              }),
              0)
        << path;
  }
}

TEST(CacheDirectory, DefaultFollowsTheEnvironment) {
  const auto with = [](const char* cache, const char* home) {
    ::unsetenv("QWEN_CACHE");
    ::unsetenv("HOME");
    if (cache != nullptr) {
      ::setenv("QWEN_CACHE", cache, 1);
    }
    if (home != nullptr) {
      ::setenv("HOME", home, 1);
    }
    return default_cache_directory();
  };
  const char* const home = std::getenv("HOME");
  const std::string old_home = home != nullptr ? home : "";
  EXPECT_EQ(with("/c", "/h"), "/c");
  EXPECT_EQ(with(nullptr, "/h"), "/h/.cache/qwen_quantized");
  EXPECT_EQ(with("", "/h"), "/h/.cache/qwen_quantized");
  if (::getuid() == 0) {
    EXPECT_EQ(with(nullptr, nullptr), "/var/cache/qcache");
  }
  (void)with(nullptr, old_home.c_str());
}

TEST(ArtifactFileName, IsTheNameThatUsersOfTheEarlierCacheKnow) {
  // md5 -s "/models/Qwen2.5-0.5B_int8_16"
  EXPECT_EQ(artifact_file_name("/models/Qwen2.5-0.5B", "int8", 16),
            "quantized_model_" + md5_hex("/models/Qwen2.5-0.5B_int8_16") + ".bin");
  EXPECT_THAT(artifact_file_name("/m", "q4_0", 0, ".gguf"), testing::EndsWith(".gguf"));
}

TEST(ArtifactFileName, HasOneBesideItForEveryRecipe) {
  Sha256Digest recipe{};
  recipe.fill(0xa7);
  for (const char* const extension : {".bin", ".safetensors", ".lora.safetensors"}) {
    const std::string usual = artifact_file_name("/m", "int8", 0, extension);
    const std::string beside = file_name_beside(usual, recipe);
    EXPECT_EQ(beside, "quantized_model_" + md5_hex("/m_int8_0") + "-a7a7a7a7a7a7a7a7" + extension);
    EXPECT_EQ(base_file_name(beside), usual);
    EXPECT_EQ(base_file_name(usual), usual);
    EXPECT_EQ(file_name_beside(beside, recipe), beside);
    EXPECT_TRUE(is_artifact_file_name(beside));
  }
  for (const std::string& odd :
       {std::string(), std::string("quantized_model_"), std::string("quantized_model_a-b.bin"),
        "quantized_model_" + md5_hex("") + "-a7a7.bin", "quantized_model_" + md5_hex("") + "-a7a7a7a7a7a7a7ag.bin"}) {
    EXPECT_EQ(base_file_name(odd), odd);
  }
}

TEST(ArtifactFileName, OnlySuchNamesAreTakenForCachedFiles) {
  const std::string usual = artifact_file_name("/m", "int8", 0);
  EXPECT_TRUE(is_artifact_file_name(usual));
  EXPECT_TRUE(is_artifact_file_name(artifact_file_name("/m", "int8", 0, ".safetensors")));
  for (const std::string& name :
       {std::string(), std::string("lock"), std::string("index"), std::string("../quantized_model_a"),
        std::string("quantized_model_/../x"), std::string("quantized_model_mine.bin"), std::string("quantized_model_"),
        usual + ".map", usual + ".new", usual + "/x", usual + std::string(200, 'a'), usual + '\0',
        "quantized_model_" + md5_hex("") + "x.bin", "quantized_model_" + md5_hex("") + "-a7a7.bin"}) {
    EXPECT_FALSE(is_artifact_file_name(name)) << name;
  }
}

}  // namespace
}  // namespace qcache
