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

}  // namespace
}  // namespace qcache
