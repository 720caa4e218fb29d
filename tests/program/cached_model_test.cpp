#include <gmock/gmock.h>

#include <cmath>
#include <filesystem>

#include "core/qcache.h"
#include "core/quant/number_formats.h"
#include "core/quant/scheme.h"
#include "core/store/store.h"
#include "tests/program/program_fixture.h"

namespace qcache {
namespace {

class CachedModelTest : public ProgramTest {
 protected:
  CachedModelTest() { builder_.write(folder()); }

  [[nodiscard]] auto open(const std::string& dtype) const { return CachedModel::open(Env::posix(), path(dtype)); }

  [[nodiscard]] std::vector<float> source_values(const TensorInfo& tensor) const {
    const std::vector<std::byte> bytes = builder_.content(tensor.name);
    std::vector<float> values;
    for (uint64_t i = 0; i < tensor.element_count(); ++i) {
      values.push_back(load_as_float(tensor.dtype, bytes.data() + i * item_bytes(tensor.dtype)));
    }
    return values;
  }
};

double sqnr(const std::vector<float>& wanted, const std::vector<float>& got) {
  double signal = 0;
  double noise = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    signal += double{wanted[i]} * wanted[i];
    noise += (double{wanted[i]} - got[i]) * (double{wanted[i]} - got[i]);
  }
  return 10 * std::log10(signal / noise);
}

TEST_F(CachedModelTest, GivesBackTheModelsTensorsInEveryDtype) {
  for (const Scheme* scheme : all_schemes()) {
    const std::string dtype(scheme->name());
    ASSERT_THAT(save(dtype), is_ok());
    const auto cached = open(dtype);
    ASSERT_THAT(cached, is_ok());
    std::vector<std::string> names;
    for (const TensorInfo& tensor : described_) {
      names.push_back(tensor.name);
      const auto place = (*cached)->find(tensor.name, tensor.shape);
      ASSERT_THAT(place, is_ok()) << dtype;
      std::vector<float> values(tensor.element_count());
      if (place->dense == nullptr) {
        place->decode(values);
        EXPECT_GT(sqnr(source_values(tensor), values), 15) << dtype << ' ' << tensor.name;
        continue;
      }
      EXPECT_TRUE(dtype == "bf16" || dtype == "fp16" || dtype == "fp32" || !tensor.name.ends_with("_proj.weight"))
          << dtype << ' ' << tensor.name << " is not quantized";
      const auto bytes = (*cached)->bytes_of(*place->dense);
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = load_as_float(place->dense->dtype, bytes.data() + i * item_bytes(place->dense->dtype));
      }
      if (!values.empty()) {
        EXPECT_GT(sqnr(source_values(tensor), values), 45) << dtype << ' ' << tensor.name;
      }
    }
    EXPECT_THAT((*cached)->model_tensors(), testing::UnorderedElementsAreArray(names)) << dtype;
  }
}

TEST_F(CachedModelTest, StoredTensorsAreThoseOfTheFile) {
  ASSERT_THAT(save("int8"), is_ok());
  const auto cached = open("int8");
  ASSERT_THAT(cached, is_ok());
  const auto plan = planned_file(folder(), "int8");
  const std::string bytes = read_file(path("int8"));
  size_t count = 0;
  for (uint32_t g = 0; g < plan->group_count(); ++g) {
    const Group group = *plan->group(g);
    for (size_t i = 0; i < group.encoding.stored.size(); ++i, ++count) {
      const StoredTensor& planned = group.encoding.stored[i];
      const auto found = std::ranges::find((*cached)->stored_tensors(), planned.name, &TensorInfo::name);
      ASSERT_NE(found, (*cached)->stored_tensors().end()) << planned.name;
      EXPECT_EQ(found->dtype, planned.dtype);
      EXPECT_EQ(found->shape, planned.shape);
      EXPECT_TRUE(
          std::ranges::equal((*cached)->bytes_of(*found),
                             std::as_bytes(std::span(bytes)).subspan(group.data_offsets[i], planned.size_bytes())));
    }
  }
  EXPECT_EQ((*cached)->stored_tensors().size(), count);
}

TEST_F(CachedModelTest, CountsAsReadAndInUse) {
  ASSERT_THAT(save("int8"), is_ok());
  const auto store = *Store::open(Env::posix(), *CacheDirectory::open(Env::posix(), dir_ / "cache"));
  EXPECT_FALSE(store->entries()->at(0).in_use);
  {
    const auto cached = open("int8");
    ASSERT_THAT(cached, is_ok());
    EXPECT_TRUE(store->entries()->at(0).in_use);
    EXPECT_EQ(store->entries()->at(0).record.hits, 1U);
  }
  EXPECT_FALSE(store->entries()->at(0).in_use);
}

TEST_F(CachedModelTest, WhatAProgramWritesThereDoesNotReachTheFile) {
  ASSERT_THAT(save("int8"), is_ok());
  const auto cached = open("int8");
  ASSERT_THAT(cached, is_ok());
  for (const TensorInfo& tensor : (*cached)->stored_tensors()) {
    std::ranges::fill((*cached)->bytes_of(tensor), std::byte{1});
  }
  EXPECT_EQ(read_file(path("int8")), expected_file(folder(), "int8"));
}

TEST_F(CachedModelTest, NothingIsCachedUntilItIsSaved) {
  EXPECT_THAT(open("int8"), fails_with(ErrorKind::kNotFound, {path("int8"), "save the model"}));
  make_directories(dir_ / "cache");
  write_file(path("int8"), "no record");
  EXPECT_THAT(open("int8"), fails_with(ErrorKind::kNotFound, {"not a cache directory"}));
  ASSERT_THAT(save("nf4"), is_ok());
  EXPECT_THAT(open("int8"), fails_with(ErrorKind::kNotFound, {path("int8"), "no record"}));
  write_file(dir_ / "cache/x.bin", "");
  EXPECT_THAT(CachedModel::open(Env::posix(), dir_ / "cache/x.bin"),
              fails_with(ErrorKind::kInvalidArgument, {"x.bin"}));
}

TEST_F(CachedModelTest, AFileWhoseInodeChangedIsHashedFirst) {
  ASSERT_THAT(save("int8"), is_ok());
  std::filesystem::permissions(path("int8"), std::filesystem::perms::owner_all);
  std::string bytes = read_file(path("int8"));
  write_file(path("int8"), bytes);
  EXPECT_THAT(open("int8"), is_ok());
  bytes[bytes.size() / 2] ^= 1;
  write_file(path("int8"), bytes);
  EXPECT_THAT(open("int8"), fails_with(ErrorKind::kCorrupt, {path("int8")}));
}

TEST_F(CachedModelTest, AChangedModelIsNotCachedAnyMore) {
  ASSERT_THAT(save("int8"), is_ok());
  set_mtime(folder() + "/model.safetensors", 1'000'000'000);
  EXPECT_THAT(open("int8"), fails_with(ErrorKind::kNotFound, {folder(), "changed"}));
}

TEST_F(CachedModelTest, WhatLiesBesideAnotherRecipesFileIsFound) {
  ASSERT_THAT(save("int8"), is_ok());
  const auto store = *Store::open(Env::posix(), *CacheDirectory::open(Env::posix(), dir_ / "cache"));
  ASSERT_THAT(store->set_pinned(file("int8"), store->catalog().list()->front().recipe, true), is_ok());
  const std::string former = read_file(path("int8"));
  set_mtime(folder() + "/model.safetensors", 1'000'000'000);
  ASSERT_THAT(save("int8"), is_ok());
  EXPECT_EQ(read_file(path("int8")), former) << "what is pinned stays";
  ASSERT_EQ(store->catalog().list()->size(), 2U);
  EXPECT_THAT(open("int8"), is_ok());
  EXPECT_EQ(validate_cache_integrity(path("int8")), true);
  std::filesystem::remove(path("int8"));
  EXPECT_THAT(open("int8"), is_ok()) << "the path need not exist";
}

TEST_F(CachedModelTest, AModelWhoseFolderIsGoneIsStillThere) {
  ASSERT_THAT(save("int8"), is_ok());
  std::filesystem::remove_all(folder());
  EXPECT_THAT(open("int8"), is_ok());
}

TEST_F(CachedModelTest, OtherNamesAndShapesAreTold) {
  ASSERT_THAT(save("int4"), is_ok());
  const auto cached = open("int4");
  ASSERT_THAT(cached, is_ok());
  const std::string quantized = "model.layers.0.self_attn.q_proj.weight";
  EXPECT_THAT((*cached)->find("x", {1}), fails_with(ErrorKind::kNotFound, {"'x'"}));
  EXPECT_THAT((*cached)->find("model.norm.weight", {255}), fails_with(ErrorKind::kInvalidArgument, {"[255]", "[256]"}));
  EXPECT_THAT((*cached)->find(quantized, {256, 255}), fails_with(ErrorKind::kInvalidArgument, {quantized}));
  EXPECT_THAT((*cached)->find(quantized, {256, 128}), fails_with(ErrorKind::kInvalidArgument, {quantized}));
  EXPECT_THAT((*cached)->find(quantized, {}), fails_with(ErrorKind::kInvalidArgument, {quantized}));
}

}  // namespace
}  // namespace qcache
