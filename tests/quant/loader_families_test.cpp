#include <gmock/gmock.h>

#include "core/quant/scheme.h"
#include "tests/quant/encode_tensor.h"

// The texts themselves; tests/frameworks loads models with them.
namespace qcache {
namespace {

using testing::ElementsAre;
using testing::Field;

SourceModel model_in(DType dtype) {
  SourceModel model;
  model.tensors = {tensor_of("layers.0.q_proj.weight", dtype, {64, 64})};
  return model;
}

std::optional<std::string> config(const char* scheme, FolderReader reader, const SourceModel& model = {}) {
  const Scheme* found = find_scheme(scheme);
  return found->loaders().quantization_config({.model = model,
                                               .choices = found->choose(model),
                                               .quantized_modules = {"layers.0.q_proj", "layers.0.\"\xff"},
                                               .dense_modules = {"lm_head"}},
                                              reader);
}

TEST(LoaderFamilies, CastsNeedNone) {
  for (const char* scheme : {"bf16", "fp16", "fp32"}) {
    EXPECT_EQ(config(scheme, FolderReader::kTransformers), "");
    EXPECT_EQ(config(scheme, FolderReader::kDiffusers), "");
  }
  EXPECT_EQ(find_scheme("fp16")->dense_dtype(model_in(DType::kBF16)), DType::kF16);
  EXPECT_EQ(find_scheme("int8")->dense_dtype(model_in(DType::kBF16)), DType::kBF16);
}

TEST(LoaderFamilies, CompressedTensorsHasOneGroupForAllLinearModules) {
  const std::string channel =
      R"("symmetric":true,"strategy":"channel","dynamic":false,"group_size":null,"block_structure":null,)"
      R"("actorder":null,"observer":"minmax","observer_kwargs":{}})";
  const std::string token =
      R"("symmetric":true,"strategy":"token","dynamic":true,"group_size":null,"block_structure":null,)"
      R"("actorder":null,"observer":null,"observer_kwargs":{}})";
  const auto expected = [&](const std::string& format, const std::string& type) {
    return R"({"quant_method":"compressed-tensors","format":")" + format +
           R"(","quantization_status":"compressed","global_compression_ratio":null,"kv_cache_scheme":null,)"
           R"("dequantize":true,"ignore":["lm_head"],"config_groups":{"group_0":{"targets":["Linear"],)"
           R"("weights":{"num_bits":8,"type":")" +
           type + R"(",)" + channel + R"(,"input_activations":{"num_bits":8,"type":")" + type + R"(",)" + token +
           R"(,"output_activations":null}}})";
  };
  EXPECT_EQ(config("int8", FolderReader::kTransformers), expected("int-quantized", "int"));
  EXPECT_EQ(config("fp8", FolderReader::kTransformers), expected("float-quantized", "float"));
  EXPECT_EQ(config("int8", FolderReader::kDiffusers), std::nullopt);
  EXPECT_EQ(config("fp8", FolderReader::kDiffusers), std::nullopt);
}

TEST(LoaderFamilies, BitsandbytesComputesInTheModelsDtype) {
  for (const FolderReader reader : {FolderReader::kTransformers, FolderReader::kDiffusers}) {
    EXPECT_EQ(config("nf4", reader, model_in(DType::kF16)),
              R"({"quant_method":"bitsandbytes","load_in_4bit":true,"load_in_8bit":false,"_load_in_4bit":true,)"
              R"("_load_in_8bit":false,"bnb_4bit_quant_type":"nf4","bnb_4bit_use_double_quant":false,)"
              R"("bnb_4bit_compute_dtype":"float16","bnb_4bit_quant_storage":"uint8",)"
              R"("llm_int8_skip_modules":["lm_head"],"llm_int8_threshold":6.0,"llm_int8_has_fp16_weight":false,)"
              R"("llm_int8_enable_fp32_cpu_offload":false})");
  }
}

TEST(LoaderFamilies, QuantoHasAMapOfModulesAndAConfigForDiffusersOnly) {
  EXPECT_EQ(config("qfloat8", FolderReader::kTransformers), "");
  EXPECT_EQ(config("qfloat8", FolderReader::kDiffusers),
            R"({"quant_method":"quanto","weights_dtype":"float8","modules_to_not_convert":["lm_head"]})");
  const SourceModel model;
  const auto files = find_scheme("qfloat8")->loaders().files(
      {.model = model, .choices = {}, .quantized_modules = {"a", "b"}, .dense_modules = {}});
  ASSERT_THAT(files, ElementsAre(Field(&FolderFile::name, "quanto_qmap.json")));
  EXPECT_EQ(files[0].text, R"({
    "a": {
        "weights": "qfloat8_e4m3fn",
        "activations": "none"
    },
    "b": {
        "weights": "qfloat8_e4m3fn",
        "activations": "none"
    }
})");
}

}  // namespace
}  // namespace qcache
