#include <algorithm>
#include <filesystem>

#include "core/engine/engine.h"
#include "core/qcache.h"
#include "tests/program/program_fixture.h"

namespace qcache {
namespace {

class SaveProgramModel : public ProgramTest {
 protected:
  std::unique_ptr<Engine> engine() {
    EngineOptions options;
    options.roots = {dir_ / "models"};
    options.cache_directory = dir_ / "cache";
    return std::move(*Engine::start(Env::posix(), options));
  }
};

TEST_F(SaveProgramModel, MakesTheFileOfTheMountInEveryDtype) {
  builder_.write(folder());
  for (const Scheme* scheme : all_schemes()) {
    const std::string dtype(scheme->name());
    ASSERT_THAT(save(dtype), is_ok()) << dtype;
    EXPECT_EQ(read_file(path(dtype)), expected_file(folder(), dtype)) << dtype;
    EXPECT_EQ(validate_cache_integrity(path(dtype)), true) << dtype;
  }
  const auto served = engine();
  for (const Scheme* scheme : all_schemes()) {
    const auto opened = served->open(ArtifactName{"m", scheme, 0});
    ASSERT_THAT(opened, is_ok());
    EXPECT_GE((*opened)->complete_fd(), 0) << scheme->name();
  }
  EXPECT_EQ(served->stats().tiles_quantized, 0U);
}

TEST_F(SaveProgramModel, GoesOnFromWhatAMountHasMade) {
  builder_.write(folder());
  {
    const auto mount = engine();
    const auto opened = mount->open(ArtifactName{"m", find_scheme("int8"), 0});
    ASSERT_THAT(opened, is_ok());
  }
  ASSERT_THAT(save("int8"), is_ok());
  EXPECT_EQ(read_file(path("int8")), expected_file(folder(), "int8"));
  const auto before = std::filesystem::last_write_time(path("int8"));
  ASSERT_THAT(save("int8"), is_ok()) << "again";
  EXPECT_EQ(std::filesystem::last_write_time(path("int8")), before) << "nothing was to be made";
}

TEST_F(SaveProgramModel, ADamagedFileIsMadeRight) {
  builder_.write(folder());
  ASSERT_THAT(save("int8"), is_ok());
  std::filesystem::permissions(path("int8"), std::filesystem::perms::owner_all);
  std::string bytes = read_file(path("int8"));
  bytes[bytes.size() / 2] ^= 1;
  write_file(path("int8"), bytes);
  ASSERT_THAT(save("int8"), is_ok());
  EXPECT_EQ(read_file(path("int8")), expected_file(folder(), "int8"));
}

TEST_F(SaveProgramModel, StridesAreFollowed) {
  builder_.write(folder());
  auto held = tensors();
  auto& k = *std::ranges::find(held, "model.layers.0.self_attn.k_proj.weight", &ProgramTensor::name);
  // [128, 256] kept as its transpose.
  std::vector<std::byte> transposed(k.bytes.size());
  for (size_t row = 0; row < 128; ++row) {
    for (size_t column = 0; column < 256; ++column) {
      std::copy_n(k.bytes.begin() + static_cast<ptrdiff_t>(2 * (row * 256 + column)), 2,
                  transposed.begin() + static_cast<ptrdiff_t>(2 * (column * 128 + row)));
    }
  }
  k.bytes = transposed;
  k.strides = {1, 128};
  ASSERT_THAT(save_program_model(Env::posix(), held, path("nf4"), source("nf4")), is_ok());
  const std::string expected = expected_file(folder(), "nf4");
  EXPECT_EQ(read_file(path("nf4")), expected);

  std::filesystem::remove(folder() + "/model.safetensors");
  const std::string other = dir_ / ("other cache/" + file("nf4"));
  ASSERT_THAT(save_program_model(Env::posix(), held, other, source("nf4")), is_ok());
  ASSERT_THAT(save_program_model(Env::posix(), tensors(), path("nf4"), source("nf4")), is_ok());
  EXPECT_EQ(read_file(other), read_file(path("nf4")));
}

TEST_F(SaveProgramModel, TiedTensorsMayHaveMoreNamesThanInTheFolder) {
  builder_.write(folder());
  auto held = tensors();
  auto tied = *std::ranges::find(held, "model.embed_tokens.weight", &ProgramTensor::name);
  tied.name = "lm_head.weight";
  held.push_back(tied);
  ASSERT_THAT(save_program_model(Env::posix(), held, path("int8"), source("int8")), is_ok());
  EXPECT_EQ(read_file(path("int8")), expected_file(folder(), "int8"));
}

TEST_F(SaveProgramModel, RefusesWhatIsNotTheFoldersModel) {
  builder_.write(folder());
  const auto saved = [&](const std::vector<ProgramTensor>& held) {
    return save_program_model(Env::posix(), held, path("int8"), source("int8"));
  };
  auto held = tensors();
  std::vector<std::byte> changed(held.back().bytes.begin(), held.back().bytes.end());
  changed.back() ^= std::byte{1};
  held.back().bytes = changed;
  EXPECT_THAT(saved(held), fails_with(ErrorKind::kInvalidArgument, {held.back().name, "other values"}));
  held = tensors();
  held.back().dtype = DType::kF16;
  EXPECT_THAT(saved(held), fails_with(ErrorKind::kInvalidArgument, {held.back().name, "float16", "bfloat16"}));
  held = tensors();
  held.back().name = "x";
  EXPECT_THAT(saved(held), fails_with(ErrorKind::kInvalidArgument, {"'x'"}));
  held = tensors();
  held.pop_back();
  EXPECT_THAT(saved(held), fails_with(ErrorKind::kInvalidArgument, {"lacks tensor"}));
  EXPECT_THAT(saved({}), fails_with(ErrorKind::kInvalidArgument, {"no tensors"}));
  EXPECT_FALSE(std::filesystem::exists(path("int8")));
}

TEST_F(SaveProgramModel, RefusesOtherPathsDtypesAndRanks) {
  builder_.write(folder());
  EXPECT_THAT(save_program_model(Env::posix(), tensors(), path("nf4"), source("int8")),
              fails_with(ErrorKind::kInvalidArgument, {file("nf4"), file("int8")}));
  EXPECT_THAT(save("int7"), fails_with(ErrorKind::kInvalidArgument, {"int7"}));
  ModelSource ranked = source("int8");
  ranked.rank = 16;
  EXPECT_THAT(save_program_model(Env::posix(), tensors(), path("int8"), ranked),
              fails_with(ErrorKind::kUnsupported, {"rank 16"}));
  ModelSource none = source("int8");
  none.model_path += "-none";
  EXPECT_THAT(save_program_model(Env::posix(), tensors(), path("int8"), none),
              fails_with(ErrorKind::kNotFound, {"m-none"}));
}

TEST_F(SaveProgramModel, AModelWithoutWeightsInItsFolderIsThatOfItsContent) {
  make_directories(folder());
  write_file(folder() + "/config.json", R"({"model_type":"llama","architectures":["LlamaForCausalLM"]})");
  ASSERT_THAT(save("int8"), is_ok());
  EXPECT_EQ(validate_cache_integrity(path("int8")), true);
  const std::string first = read_file(path("int8"));
  const auto written = std::filesystem::last_write_time(path("int8"));
  ASSERT_THAT(save("int8"), is_ok());
  EXPECT_EQ(std::filesystem::last_write_time(path("int8")), written) << "the same content is not made again";

  auto held = tensors();
  std::vector<std::byte> changed(held.back().bytes.begin(), held.back().bytes.end());
  changed.front() ^= std::byte{1};
  held.back().bytes = changed;
  ASSERT_THAT(save_program_model(Env::posix(), held, path("int8"), source("int8")), is_ok());
  EXPECT_NE(read_file(path("int8")), first);

  EXPECT_EQ(engine()->models().models.size(), 0U) << "mounts show what is in folders";
  EXPECT_EQ(get_cache_info(dir_ / "cache")->file_count, 1U);
}

TEST_F(SaveProgramModel, OnceTheFolderHasWeightsTheyAreWhatCounts) {
  make_directories(folder());
  ASSERT_THAT(save("int8"), is_ok());
  builder_.write(folder());
  EXPECT_THAT(CachedModel::open(Env::posix(), path("int8")), fails_with(ErrorKind::kNotFound, {"changed since"}));
  ASSERT_THAT(save("int8"), is_ok());
  EXPECT_EQ(read_file(path("int8")), expected_file(folder(), "int8"));
}

}  // namespace
}  // namespace qcache
