// That a plan tells the truth about the file which the engine makes of it, in every scheme and both containers, for
// models of all shapes. Readers that know nothing of plans say what is in the file.

#include <gtest/gtest.h>

#include <array>
#include <future>
#include <map>
#include <random>

#include "core/engine/filling_artifact.h"
#include "core/layout/model_folder.h"
#include "core/layout/safetensors_layout.h"
#include "core/layout/torch_zip.h"
#include "core/model/byte_source.h"
#include "core/model/safetensors.h"
#include "core/model/source_folders.h"
#include "core/model/torch_checkpoint.h"
#include "tests/quant/encode_tensor.h"
#include "tests/support/result_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

using Bytes = std::vector<std::byte>;

constexpr int kModels = 500;
constexpr size_t kSourceBytes = size_t{1} << 20;

std::string_view text_of(const Bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class ProducedFiles : public testing::TestWithParam<const Scheme*>, private FillingObserver {
 protected:
  ProducedFiles() {
    std::string random_bits(kSourceBytes, '\0');
    std::generate(random_bits.begin(), random_bits.end(), [&] { return static_cast<char>(random_()); });
    write_file(source_, random_bits);
    const auto all = std::as_bytes(std::span(random_bits));
    source_bytes_.assign(all.begin(), all.end());
  }

  uint64_t below(uint64_t limit) { return random_() % limit; }

  /// Any dtype and up to four extents, often of 0 and 1.
  TensorInfo any_tensor(size_t number) {
    constexpr std::array kDTypes = {DType::kF64, DType::kF32,    DType::kF16,        DType::kBF16,      DType::kI64,
                                    DType::kI32, DType::kI16,    DType::kI8,         DType::kU64,       DType::kU32,
                                    DType::kU16, DType::kU8,     DType::kBool,       DType::kF8E4M3,    DType::kF8E5M2,
                                    DType::kC64, DType::kF8E8M0, DType::kF8E4M3Fnuz, DType::kF8E5M2Fnuz};
    constexpr std::array kNames = {"model.embed_tokens.weight", "größe", "重み.bias", "a b/c\\d\"e", "h.norm.weight"};
    Shape shape(below(5));
    for (uint64_t& extent : shape) {
      extent = below(8) == 0 ? 0 : 1 + below(12);
    }
    return tensor_of(std::to_string(number) + '.' + kNames.at(below(kNames.size())), kDTypes.at(below(kDTypes.size())),
                     std::move(shape));
  }

  /// What schemes quantize, or nearly.
  TensorInfo linear_weight(size_t number) {
    constexpr std::array kDTypes = {DType::kF64, DType::kF32, DType::kF16, DType::kBF16, DType::kBF16};
    constexpr std::array<uint64_t, 8> kRows = {15, 16, 17, 32, 96, 128, 128, 256};
    constexpr std::array<uint64_t, 10> kColumns = {16, 31, 32, 48, 64, 96, 128, 128, 160, 256};
    return tensor_of("model.layers." + std::to_string(number) + ".mlp.up_proj.weight",
                     kDTypes.at(below(kDTypes.size())),
                     {kRows.at(below(kRows.size())), kColumns.at(below(kColumns.size()))});
  }

  /// Its tensors lie anywhere in the one source file, in any order.
  std::shared_ptr<const SourceModel> random_model() {
    auto model = std::make_shared<SourceModel>();
    model->name = "m";
    model->path = dir_.path();
    model->files = {source_};
    model->folders = {"/"};
    const auto opened = SourceFolders(env_, {"/"}).open(source_);
    EXPECT_THAT(opened, is_ok());
    model->identity.files.push_back(*opened->finish(env_, {}));
    const size_t count = 1 + below(8);
    for (size_t i = 0; i < count; ++i) {
      TensorInfo& tensor = model->tensors.emplace_back(below(2) == 0 ? any_tensor(i) : linear_weight(i));
      tensor.data.offset = below(kSourceBytes - tensor.data.size);
    }
    return model;
  }

  /// The file as a reader gets it, and as it lies on disk when it is sealed.
  void produce(const std::shared_ptr<const SourceModel>& model, const std::shared_ptr<const LayoutPlan>& plan,
               const Container* container, Bytes& delivered, Bytes& on_disk) {
    const ArtifactName name{"m", GetParam(), 0, container};
    auto reader = SourceReader::open(env_, model, stats_);
    ASSERT_THAT(reader, is_ok());
    const std::string file = artifact_file_name(model->path, name.scheme->name(), 0, container->suffix);
    const FillingKey key{file, name.virtual_path(), {}, plan->size_bytes(), plan->tile_count()};
    FillingKey fresh = key;
    fresh.recipe[0] = static_cast<uint8_t>(++produced_);  // never the file before
    fresh.recipe[1] = static_cast<uint8_t>(produced_ >> 8);
    auto filling = FillingFile::open(env_, *cache_, fresh);
    ASSERT_THAT(filling, is_ok());
    const auto artifact = std::make_shared<FillingArtifact>(name, plan, std::move(*reader), *filling, env_, workshop_,
                                                            stats_, static_cast<FillingObserver&>(*this));
    std::promise<Status> done;
    // More than there is: the end must show by itself.
    artifact->read({0, plan->size_bytes() + 4096}, ReadIntent::kWanted, [&](Result<std::span<const std::byte>> bytes) {
      if (bytes) {
        delivered.assign(bytes->begin(), bytes->end());
      }
      done.set_value(bytes ? Status() : fail(bytes.error()));
    });
    ASSERT_THAT(done.get_future().get(), is_ok());
    ASSERT_TRUE(artifact->all_made());
    ASSERT_THAT(Assembly(env_, *plan, **filling).write_static_bytes(), is_ok());
    on_disk.resize(env_.stat((*filling)->fd())->size_bytes);
    ASSERT_EQ(*env_.read_at((*filling)->fd(), on_disk, 0), on_disk.size());
  }

  static Result<std::vector<TensorInfo>> tensors_in(const Bytes& file, const Container* container) {
    if (container == &container_folder_weights()) {
      const auto header_bytes = load_le<uint64_t>(text_of(file), 0);
      return parse_safetensors_header(text_of(file).substr(8, header_bytes), file.size());
    }
    MemoryBytes bytes(text_of(file));
    return find_torch_tensors(bytes);
  }

  /// That the file holds what the scheme stores for the model's tensors, each encoded whole; and nothing else.
  void expect_tensors(const SourceModel& model, const Bytes& file, const Container* container) {
    const auto found = tensors_in(file, container);
    ASSERT_THAT(found, is_ok());
    std::map<std::string, const TensorInfo*> by_name;
    for (const TensorInfo& tensor : *found) {
      by_name.emplace(tensor.name, &tensor);
    }
    const ModelChoices choices = GetParam()->choose(model);
    size_t expected = 0;
    for (const TensorInfo& tensor : model.tensors) {
      const Encoding encoding = GetParam()->encoding(model, choices, tensor);
      quantized_ += encoding.quantized ? 1 : 0;
      const auto source = std::span(source_bytes_).subspan(tensor.data.offset, tensor.data.size);
      const auto stored = encode_tensor(encoding, source, std::max<uint64_t>(1, encoding.unit_count()));
      for (size_t i = 0; i < stored.size(); ++i, ++expected) {
        SCOPED_TRACE(encoding.stored[i].name);
        const auto there = by_name.find(encoding.stored[i].name);
        ASSERT_NE(there, by_name.end());
        ASSERT_EQ(there->second->dtype, encoding.stored[i].dtype);
        ASSERT_EQ(there->second->shape, encoding.stored[i].shape);
        ASSERT_TRUE(there->second->strides.empty());
        const ByteRange range = there->second->data;
        ASSERT_TRUE(std::ranges::equal(std::span(file).subspan(range.offset, range.size), stored[i]));
      }
    }
    ASSERT_EQ(found->size(), expected);
  }

  std::mt19937_64 random_{20};
  TempDir dir_;
  Env& env_ = Env::posix();
  const std::string source_ = dir_ / "source";
  Bytes source_bytes_;
  Stats stats_;
  Result<CacheDirectory> cache_ = CacheDirectory::open(env_, dir_ / "cache");
  Workshop workshop_{2};
  uint32_t produced_ = 0;
  uint64_t quantized_ = 0;

 private:
  void on_all_made(const std::shared_ptr<FillingArtifact>& /*artifact*/) override {}
  void on_failure(const std::shared_ptr<FillingArtifact>& /*artifact*/, const Error& error) override {
    ADD_FAILURE() << error.message;
  }
};

TEST_P(ProducedFiles, AreAsPlanned) {
  ASSERT_THAT(cache_, is_ok());
  for (int i = 0; i < kModels; ++i) {
    SCOPED_TRACE(i);
    const auto model = random_model();
    ASSERT_EQ(why_not_served(*model, *GetParam()), std::nullopt);
    for (const Container* const container : {&container_checkpoint(), &container_folder_weights()}) {
      const auto plan = container->plan_of(model, *GetParam(), 0);
      ASSERT_THAT(plan, is_ok());
      Bytes delivered;
      Bytes on_disk;
      ASSERT_NO_FATAL_FAILURE(produce(model, *plan, container, delivered, on_disk));
      ASSERT_EQ(delivered.size(), (*plan)->size_bytes());
      ASSERT_EQ(on_disk, delivered);
      ASSERT_NO_FATAL_FAILURE(expect_tensors(*model, delivered, container));
    }
  }
  const bool cast = GetParam()->name() == "bf16" || GetParam()->name() == "fp16" || GetParam()->name() == "fp32";
  EXPECT_EQ(quantized_ > kModels / 10, !cast) << quantized_;
}

INSTANTIATE_TEST_SUITE_P(All, ProducedFiles, testing::ValuesIn(all_schemes().begin(), all_schemes().end()),
                         [](const testing::TestParamInfo<const Scheme*>& scheme) {
                           std::string name(scheme.param->name());
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace qcache
