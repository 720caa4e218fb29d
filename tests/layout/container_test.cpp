#include "core/layout/containers.h"

#include <gmock/gmock.h>

#include <set>

namespace qcache {
namespace {

TEST(Containers, StandWhereLoadersLook) {
  EXPECT_EQ(container_checkpoint().path_of(16, ""), "16.bin");
  EXPECT_EQ(container_checkpoint().path_of(16, "unet"), "16.bin");
  EXPECT_EQ(container_folder_weights().path_of(0, ""), "0/model.safetensors");
  EXPECT_EQ(container_folder_weights().path_of(3, "unet"), "3/unet/diffusion_pytorch_model.safetensors");
  EXPECT_EQ(container_adapter().path_of(16, ""), "16/lora/adapter_model.safetensors");
  EXPECT_EQ(container_adapter().path_of(16, "unet"), "16/lora/pytorch_lora_weights.safetensors");
}

TEST(Containers, AreToldByTheirPaths) {
  for (const Container* const container : all_containers()) {
    for (const char* const component : {"", "transformer", "{rank}"}) {
      for (const uint32_t rank : {0U, 7U, 2147483647U}) {
        const std::string path = container->path_of(rank, component);
        const auto found = parse_container_path(path);
        ASSERT_TRUE(found) << path;
        EXPECT_EQ(found->container, container) << path;
        EXPECT_EQ(found->rank, rank) << path;
      }
    }
  }
}

TEST(Containers, NamesThatAreNearlyTheirsAreNot) {
  for (const char* const path : {"",
                                 ".bin",
                                 "00.bin",
                                 "01.bin",
                                 "-1.bin",
                                 "+1.bin",
                                 "1.BIN",
                                 "1.bin.bin",
                                 "1",
                                 "a.bin",
                                 "1 .bin",
                                 "0.bin.tmp",
                                 "99999999999.bin",
                                 "2147483648.bin",
                                 "0/0.bin",
                                 "/model.safetensors",
                                 "0/model.safetensors/",
                                 "00/model.safetensors",
                                 "0//diffusion_pytorch_model.safetensors",
                                 "0/diffusion_pytorch_model.safetensors",
                                 "0/a/b/diffusion_pytorch_model.safetensors",
                                 "16/lora",
                                 "16/lora/",
                                 "16/lora/model.safetensors",
                                 "x/lora/adapter_model.safetensors"}) {
    EXPECT_FALSE(parse_container_path(path)) << path;
  }
}

// What is cached of one model, dtype and rank must not share a name.
TEST(Containers, HaveSuffixesThatNoOtherHas) {
  std::set<std::string_view> suffixes;
  for (const Container* const container : all_containers()) {
    EXPECT_TRUE(suffixes.insert(container->suffix).second) << container->suffix;
    EXPECT_TRUE(container->suffix.starts_with('.'));
    EXPECT_TRUE(container->path.starts_with("{rank}"));
    EXPECT_TRUE(container->pipeline_path.starts_with("{rank}"));
  }
}

TEST(Containers, SharedFilesAreRankZeros) {
  EXPECT_EQ(container_folder_weights().rank_behind(16), 0U);
  EXPECT_TRUE(container_folder_weights().is_own_of_folder(0));
  EXPECT_FALSE(container_folder_weights().is_own_of_folder(16));
  EXPECT_FALSE(container_adapter().is_own_of_folder(0));
  EXPECT_TRUE(container_adapter().is_own_of_folder(16));
  EXPECT_FALSE(container_checkpoint().is_own_of_folder(0)) << "it stands beside the folder";
}

}  // namespace
}  // namespace qcache
