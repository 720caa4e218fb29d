#include "tools/named_files.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

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
  struct Case {
    std::vector<std::string> names;
    bool checkpoint;
    bool weights;
  };
  for (const Case& c : std::vector<Case>{
           {{}, true, true},
           {{"m"}, true, true},
           {{"n"}, false, false},
           {{"m", "w8a8"}, true, true},
           {{"m", "int8", "0.bin"}, true, false},
           {{"m", "int8", "0"}, false, true},
           {{"m", "int8", "0", "model.safetensors"}, false, true},
           {{"m", "int8", "0", "transformer", "diffusion_pytorch_model.safetensors"}, false, true},
           {{"m", "int8", "0", "config.json"}, false, false},
           {{"m", "int8", "1.bin"}, false, false},
       }) {
    NamedFiles names;
    names.what = MountPath{{}, c.names};
    const FilePattern pattern = names.pattern();
    EXPECT_EQ(pattern.matches(checkpoint), c.checkpoint) << ::testing::PrintToString(c.names);
    EXPECT_EQ(pattern.matches(weights), c.weights) << ::testing::PrintToString(c.names);
  }
}

}  // namespace
}  // namespace qcache
