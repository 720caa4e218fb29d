#include "tools/named_files.h"

#include <gmock/gmock.h>

#include <string>
#include <vector>

#include "tests/support/result_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

CacheEntry cached(const std::string& virtual_path) {
  CacheEntry entry;
  entry.record.virtual_path = virtual_path;
  entry.record.file = "some file";
  return entry;
}

TEST(NamedFiles, APlaceInAMountMatchesTheCachedFilesAtAndBelowIt) {
  const CacheEntry checkpoint = cached("m/int8/0.bin");
  const CacheEntry weights = cached("m/int8/0/model.safetensors");
  const CacheEntry adapter = cached("m/int8/8/lora/adapter_model.safetensors");
  struct Case {
    std::vector<std::string> names;
    bool checkpoint;
    bool weights;
    bool adapter = false;
  };
  for (const Case& c : std::vector<Case>{
           {{}, true, true, true},
           {{"m"}, true, true, true},
           {{"n"}, false, false},
           {{"m", "w8a8"}, true, true, true},
           {{"m", "int8", "0.bin"}, true, false},
           {{"m", "int8", "0"}, false, true},
           {{"m", "int8", "0", "model.safetensors"}, false, true},
           {{"m", "int8", "0", "transformer", "diffusion_pytorch_model.safetensors"}, false, true},
           {{"m", "int8", "0", "config.json"}, false, false},
           {{"m", "int8", "1.bin"}, false, false},
           {{"m", "int8", "8"}, false, false, true},
           {{"m", "int8", "8", "lora", "adapter_model.safetensors"}, false, false, true},
           {{"m", "int8", "8", "lora", "pytorch_lora_weights.safetensors"}, false, false, true},
           {{"m", "int8", "8", "lora", "adapter_config.json"}, false, false, false},
           {{"m", "int8", "8", "model.safetensors"}, false, true, false},
           {{"m", "int8", "9"}, false, false, false},
       }) {
    NamedFiles names;
    names.what = MountPath{{}, c.names};
    const FilePattern pattern = names.pattern();
    EXPECT_EQ(pattern.matches(checkpoint), c.checkpoint) << ::testing::PrintToString(c.names);
    EXPECT_EQ(pattern.matches(weights), c.weights) << ::testing::PrintToString(c.names);
    EXPECT_EQ(pattern.matches(adapter), c.adapter) << ::testing::PrintToString(c.names);
  }
}

TEST(NamedFiles, AModelOfSeveralMountsIsThatOfOnesOwnOrAskedFor) {
  const TempDir dir;
  make_directories(dir / "theirs/m");
  make_directories(dir / "mine/m");
  NamedFiles names;
  names.what = ModelName{"m"};
  const auto found_in = [&](bool second_is_own, const std::string& cache) {
    const std::vector<RunningMount> mounts = {{dir / "theirs", "/c1", false}, {dir / "mine", "/c2", second_is_own}};
    return find_in_mounts(Env::posix(), names, mounts, cache);
  };
  ASSERT_TRUE(found_in(true, ""));
  EXPECT_EQ(found_in(true, "").value()->mount.mount_point, dir / "mine");
  EXPECT_EQ(found_in(true, "/c1").value()->mount.mount_point, dir / "theirs") << "--cache-dir chooses";
  EXPECT_FALSE(found_in(true, "/c3").value());
  EXPECT_THAT(found_in(false, ""), fails_with(ErrorKind::kInvalidArgument, {"/c1", "/c2", "--cache-dir"}));
}

}  // namespace
}  // namespace qcache
